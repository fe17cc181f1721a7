//! Notices that something else has changed what is ours.
//!
//! Netlink notifications are a doorbell, not data: they may be lost, and whoever hears the bell
//! reads everything anew. What our own operations cause is not heard, so a pass does not call for
//! the next one.

pub(crate) mod notice;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use netprog::plane::Place;
use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::Notify;

use notice::Watcher;

/// `NFNLGRP_NFTABLES` (include/uapi/linux/netfilter/nfnetlink.h).
const NFTABLES_GROUP: u32 = 7;
/// Groups of route netlink whose messages can be about what is ours.
const ROUTE_GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];
/// Room for one datagram of notifications.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Datagrams read in one go before others get their turn.
const DATAGRAMS_MAX: usize = 256;
/// Process ids remembered for one namespace between two answers to the bell.
const CULPRITS_MAX: usize = 8;

/// What was heard from one namespace since the last answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disturbance {
    /// Notifications about things of ours; at least 1.
    pub events: u64,
    /// Netlink port ids of those who asked for the changes: usually process ids. Empty where the
    /// kernel does not tell.
    pub by: BTreeSet<u32>,
    /// Notifications were lost, so anything may have changed.
    pub lost: bool,
}

/// Rings when something of ours was changed by others. Clones are the same bell.
#[derive(Debug, Clone, Default)]
pub struct Doorbell(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<BTreeMap<Place, Disturbance>>,
    rung: Notify,
}

impl Doorbell {
    /// Waits until there is something, and takes it. For one waiter.
    pub async fn answer(&self) -> BTreeMap<Place, Disturbance> {
        loop {
            let heard = std::mem::take(&mut *self.lock());
            if !heard.is_empty() {
                return heard;
            }
            self.0.rung.notified().await;
        }
    }

    fn ring(&self, place: Place, more: &Disturbance) {
        let mut heard = self.lock();
        let known = heard.entry(place).or_default();
        known.events += more.events;
        known.lost |= more.lost;
        known.by.extend(&more.by);
        while known.by.len() > CULPRITS_MAX {
            known.by.pop_last();
        }
        drop(heard);
        // Stores a permit if nobody waits yet, so no ring is lost.
        self.0.rung.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Place, Disturbance>> {
        // A map of counts is whole at every moment.
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens in one namespace and rings.
pub(crate) struct Ear {
    place: Place,
    bell: Doorbell,
    route: TokioSocket,
    nftables: TokioSocket,
    watcher: Watcher,
    quiet: Quiet,
}

/// Set while a request from another namespace changes what is ours in this one.
pub(crate) type Quiet = Arc<AtomicBool>;

impl Ear {
    /// Subscribes in the calling thread's namespace; needs its runtime.
    pub(crate) fn open(place: Place, bell: Doorbell, quiet: Quiet) -> io::Result<Self> {
        let route = subscribe(NETLINK_ROUTE, ROUTE_GROUPS.map(|group| group as u32))?;
        let nftables = subscribe(NETLINK_NETFILTER, [NFTABLES_GROUP])?;
        let watcher = Watcher::new(place);
        Ok(Self { place, bell, route, nftables, watcher, quiet })
    }

    /// Which links are ours, as just read.
    pub(crate) fn ours(&mut self, links: BTreeSet<u32>) {
        self.watcher.ours(links);
    }

    /// Waits for notifications and rings if they concern us.
    pub(crate) async fn listen(&mut self) {
        let mut found = Disturbance::default();
        let mut route = Vec::with_capacity(RECEIVE_BYTES);
        let mut nftables = Vec::with_capacity(RECEIVE_BYTES);
        let received = tokio::select! {
            received = self.route.recv(&mut route) => received,
            received = self.nftables.recv(&mut nftables) => received,
        };
        if let Err(error) = received {
            lose(&error, &mut found);
        }
        self.watcher.route(&route, &mut found);
        self.watcher.nftables(&nftables, &mut found);
        self.hear_more(found);
    }

    /// Rings for what is there already.
    pub(crate) fn hear(&mut self) {
        self.hear_more(Disturbance::default());
    }

    fn hear_more(&mut self, mut found: Disturbance) {
        drain(&self.route, &mut found, |datagram, found| self.watcher.route(datagram, found));
        drain(&self.nftables, &mut found, |datagram, found| {
            self.watcher.nftables(datagram, found);
        });
        let heard = found.events > 0 && !self.quiet.load(Ordering::Acquire);
        if heard || found.lost {
            self.bell.ring(self.place, &found);
        }
    }

    /// Forgets what is there: our own doing.
    pub(crate) fn ignore(&mut self) {
        let mut own = Disturbance::default();
        // Our own changes still say which links there are.
        drain(&self.route, &mut own, |datagram, own| self.watcher.route(datagram, own));
        drain(&self.nftables, &mut own, |_, _| {});
        if own.lost {
            self.bell.ring(self.place, &Disturbance { lost: true, ..Disturbance::default() });
        }
    }
}

fn subscribe<const N: usize>(protocol: isize, groups: [u32; N]) -> io::Result<TokioSocket> {
    let mut asynchronous = TokioSocket::new(protocol)?;
    let socket = asynchronous.socket_mut();
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        match socket.add_membership(group) {
            // A kernel without this kind of thing has no notifications of it either.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(asynchronous)
}

/// Reads datagrams until there is none, at most [`DATAGRAMS_MAX`].
fn drain(
    socket: &TokioSocket,
    found: &mut Disturbance,
    mut each: impl FnMut(&[u8], &mut Disturbance),
) {
    let mut datagram = Vec::with_capacity(RECEIVE_BYTES);
    for _ in 0..DATAGRAMS_MAX {
        datagram.clear();
        match socket.socket_ref().recv(&mut datagram, 0) {
            Ok(_) => each(&datagram, found),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => lose(&error, found),
        }
    }
}

/// ENOBUFS: the kernel dropped notifications because the buffer was full.
fn lose(error: &io::Error, found: &mut Disturbance) {
    tracing::debug!(%error, "read netlink notifications");
    found.lost = true;
}
