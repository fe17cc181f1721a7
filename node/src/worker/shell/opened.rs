//! The namespace and the DNS server of each sandbox. They are opened next to the shell's loop, used
//! from the step on in which the core hears that the sandbox exists, and closed when its task ends.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use agent::Phase;
use cluster::id::TaskId;
use netprog_linux::dns_server::{DnsServer, Forwarder};

use super::{AllLaunched, Shell, hold};
use crate::clock;
use crate::executor::{self, Launched};
use crate::worker::names::Names;

/// A task that was launched and not forgotten.
pub(super) struct Known {
    pub(super) launched: Launched,
    opened: Opened,
}

enum Opened {
    /// It is being opened, or has ended.
    No,
    /// The loop has not taken it over yet.
    Waits(DnsServer, OwnedFd),
    Taken,
}

/// What is needed to open a sandbox.
#[derive(Clone)]
pub(super) struct Opener {
    pub(super) all: AllLaunched,
    pub(super) names: Arc<Names>,
    pub(super) forwarder: Arc<Forwarder>,
}

impl Opener {
    /// Keeps a task. Nothing is opened twice.
    pub(super) fn keep(&self, id: TaskId, launched: &Launched) {
        let launched = launched.clone();
        let mut all = hold(&self.all);
        let opened = all.remove(&id).map_or(Opened::No, |known| known.opened);
        all.insert(id, Known { launched, opened });
    }

    /// Opens the sandbox of a task that is kept, unless it is open or its task has ended.
    pub(super) async fn open(
        &self,
        id: TaskId,
        launched: &Launched,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let waits = |known: &Known| matches!(known.opened, Opened::No);
        let is_due = hold(&self.all).get(&id).is_some_and(waits);
        if !is_due || matches!(launched.report().phase, executor::Phase::Exited(_)) {
            return Ok(());
        }
        let fds = launched.sandbox.fds().await?;
        let (udp, tcp) = (fds.dns_udp.into(), fds.dns_tcp.into());
        let own = &launched.spec.dns.nameservers;
        let forwarder = if own.is_empty() {
            self.forwarder.clone()
        } else {
            let clock = Arc::new(clock::monotonic);
            Arc::new(Forwarder::within(fds.netns.try_clone()?, own, clock))
        };
        let server = DnsServer::start(id, udp, tcp, self.names.clone(), forwarder)?;
        if let Some(known) = hold(&self.all).get_mut(&id) {
            known.opened = Opened::Waits(server, fds.netns);
        }
        Ok(())
    }
}

impl Shell {
    pub(super) fn opener(&self) -> Opener {
        let (names, forwarder) = (self.names.clone(), self.forwarder.clone());
        Opener { all: self.launched.clone(), names, forwarder }
    }

    /// Takes over sandboxes that the core knows of, and closes those whose tasks have ended.
    pub(super) fn follow_sandboxes(&mut self) {
        let worker = self.agent.worker();
        let sandboxes = worker.local();
        let gone: Vec<_> =
            self.dns.keys().filter(|id| !sandboxes.contains_key(id)).copied().collect();
        for id in gone {
            self.dns.remove(&id);
            self.sandboxes.remove(id);
        }
        for (id, known) in hold(&self.launched).iter_mut() {
            let has_ended = worker.tasks().get(id).is_some_and(|task| task.phase == Phase::Ended);
            if !has_ended && !sandboxes.contains_key(id) {
                continue;
            }
            if let Some((server, namespace)) = known.opened.take()
                && !has_ended
            {
                self.dns.insert(*id, server);
                self.sandboxes.insert(*id, namespace);
            }
        }
    }
}

impl Opened {
    fn take(&mut self) -> Option<(DnsServer, OwnedFd)> {
        match std::mem::replace(self, Self::Taken) {
            Self::Waits(server, namespace) => Some((server, namespace)),
            other => {
                *self = other;
                None
            }
        }
    }
}
