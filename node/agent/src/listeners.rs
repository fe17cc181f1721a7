//! When the sandboxes of young tasks are looked into: a task without a health check takes new flows
//! once what is to listen in it does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::id::TaskId;
use cluster::spec::Protocol;

use crate::Output;
use crate::worker::Worker;

/// How often the sandboxes of young tasks are looked into.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Tasks, and the ports that are to be listened on in their sandboxes; none: any.
pub type Young = BTreeMap<TaskId, BTreeSet<(Protocol, u16)>>;

/// One look at a time.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    under_way: bool,
    next_at: Duration,
}

impl Looks {
    pub(crate) fn due(&mut self, worker: &Worker, now: Duration) -> Option<Output> {
        if self.under_way || now < self.next_at {
            return None;
        }
        let young = worker.young();
        if young.is_empty() {
            return None;
        }
        (self.under_way, self.next_at) = (true, now + LOOK_INTERVAL);
        Some(Output::LookForListeners(young))
    }

    pub(crate) fn looked(&mut self) {
        self.under_way = false;
    }

    pub(crate) fn next_deadline(&self, worker: &Worker) -> Option<Duration> {
        let waits = !self.under_way && !worker.young().is_empty();
        waits.then_some(self.next_at)
    }
}
