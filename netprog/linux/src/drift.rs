//! Detects that another program has changed our objects.
//!
//! Netlink notifications are a doorbell, not data: they may be lost, and the code that they wake
//! reads the namespace again. Notifications caused by our own operations are ignored, so a pass
//! does not trigger the next one. For this, a large pass is split into jobs of limited size, and
//! the notifications of each job are read as soon as it has ended, so that they fit the socket
//! buffers.

pub(crate) mod notice;
pub(crate) mod own;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use netprog::plane::Place;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::Notify;

use notice::Watcher;
pub(crate) use own::OwnChanges;

/// `NFNLGRP_NFTABLES` (include/uapi/linux/netfilter/nfnetlink.h).
const NFTABLES_GROUP: u32 = 7;
/// Groups of route netlink whose messages can concern our objects.
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
/// Buffer for one datagram of notifications.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Receive buffer for the notifications of the largest job: two for each of its entries, about 1
/// KiB each with buffer and bookkeeping. The kernel doubles it (socket(7)).
const SOCKET_BYTES: usize = 4 * 1024 * 1024;
/// Datagrams read at once before other work gets its turn.
const DATAGRAMS_MAX: usize = 256;
/// Datagrams read after one of our own jobs: more than a full buffer holds, unless another program
/// keeps filling it.
const OWN_DATAGRAMS_MAX: usize = 16 * 1024;
/// Process ids remembered for one namespace between two answers to the bell.
const CULPRITS_MAX: usize = 8;

/// What happened in one namespace since the last answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disturbance {
    /// Notifications about our objects; at least 1.
    pub events: u64,
    /// Netlink port ids of the sockets that requested the changes, usually process ids. Empty if
    /// the kernel does not report them.
    pub by: BTreeSet<u32>,
    /// Notifications were lost, so anything may have changed.
    pub lost: bool,
}

/// Rings when another program has changed our objects. Clones are the same bell.
#[derive(Debug, Clone, Default)]
pub struct Doorbell(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<BTreeMap<Place, Disturbance>>,
    rung: Notify,
}

impl Doorbell {
    /// Waits until it rings, and returns the reasons. For one waiter.
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

/// Subscribes to notifications of one namespace, and rings.
pub(crate) struct Subscription {
    place: Place,
    bell: Doorbell,
    route: TokioSocket,
    nftables: TokioSocket,
    watcher: Watcher,
    muted: Muted,
}

/// Set while a request from another namespace changes our objects in this one.
pub(crate) type Muted = Arc<AtomicBool>;

impl Subscription {
    /// Subscribes in the calling thread's namespace; needs its runtime.
    pub(crate) fn open(place: Place, bell: Doorbell, muted: Muted) -> io::Result<Self> {
        let route = subscribe(place, NETLINK_ROUTE, ROUTE_GROUPS.map(|group| group as u32))?;
        let nftables = subscribe(place, NETLINK_NETFILTER, [NFTABLES_GROUP])?;
        let watcher = Watcher::new(place);
        Ok(Self { place, bell, route, nftables, watcher, muted })
    }

    /// Sets which links are ours, as just read.
    pub(crate) fn ours(&mut self, links: BTreeSet<u32>) {
        self.watcher.ours(links);
    }

    /// Waits for notifications and rings if they concern our objects.
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
        self.watcher.route(&route, None, &mut found);
        self.watcher.nftables(&nftables, &mut found);
        self.finish(found);
    }

    /// Rings for notifications that have already arrived.
    pub(crate) fn poll(&mut self) {
        self.finish(Disturbance::default());
    }

    fn finish(&mut self, mut found: Disturbance) {
        drain(&self.route, DATAGRAMS_MAX, &mut found, |datagram, found| {
            self.watcher.route(datagram, None, found);
        });
        drain(&self.nftables, DATAGRAMS_MAX, &mut found, |datagram, found| {
            self.watcher.nftables(datagram, found);
        });
        let heard = found.events > 0 && !self.muted.load(Ordering::Acquire);
        if heard || found.lost {
            self.bell.ring(self.place, &found);
        }
    }

    /// Discards the notifications of our own job, and rings for changes by other programs in the
    /// meantime. Without `own` the job was in another namespace, and only a loss rings.
    pub(crate) fn ignore(&mut self, own: Option<&OwnChanges>) {
        let mut found = Disturbance::default();
        // Our own changes still say which links there are.
        drain(&self.route, OWN_DATAGRAMS_MAX, &mut found, |datagram, found| {
            self.watcher.route(datagram, own, found);
        });
        drain(&self.nftables, OWN_DATAGRAMS_MAX, &mut found, |_, _| {});
        if own.is_none() {
            found = Disturbance { lost: found.lost, ..Disturbance::default() };
        }
        if found.events > 0 || found.lost {
            self.bell.ring(self.place, &found);
        }
    }
}

fn subscribe<const N: usize>(
    place: Place,
    protocol: isize,
    groups: [u32; N],
) -> io::Result<TokioSocket> {
    let mut asynchronous = TokioSocket::new(protocol)?;
    let socket = asynchronous.socket_mut();
    match place {
        Place::Host | Place::Fabric(_) => {
            // More than the host allows needs its own CAP_NET_ADMIN; what is lost is read again.
            if setsockopt(&*socket, sockopt::RcvBufForce, &SOCKET_BYTES).is_err() {
                setsockopt(&*socket, sockopt::RcvBuf, &SOCKET_BYTES)?;
            }
        }
        // There are many, and few entries in each.
        Place::Sandbox(_) => {}
    }
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

/// Reads datagrams until there is none, at most so many.
fn drain(
    socket: &TokioSocket,
    datagrams_max: usize,
    found: &mut Disturbance,
    mut each: impl FnMut(&[u8], &mut Disturbance),
) {
    let mut datagram = Vec::with_capacity(RECEIVE_BYTES);
    for _ in 0..datagrams_max {
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
