//! What a scrape of `/metrics` is answered: what is measured as it happens, and what is so now.

use std::time::Duration;

use cluster::view::Liveness;
use prometheus_client::encoding::prometheus_text::{CONTENT_TYPE, encode};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::lines;
use super::meters::meters;
use crate::manager::Manager;
use crate::member::Member;

/// The media type of [`metrics`].
pub const METRICS_TYPE: &str = CONTENT_TYPE;

/// All metrics in Prometheus' text format 0.0.4.
#[must_use]
pub fn metrics(member: Option<&Member>) -> String {
    let mut registry = Registry::default();
    let mut readings = Readings(&mut registry);
    readings.gauge("skein_member", "Whether this node is in a cluster", member.is_some());
    readings.counter(
        "skein_log_lines_withheld",
        "Lines of the log that came too often to be written",
        lines::withheld(),
    );
    if let Some(member) = member {
        readings.node(member);
        readings.worker(member);
        readings.gossip(member);
        if let Some(manager) = member.manager() {
            readings.manager(&manager);
        }
        meters().register(&mut registry);
    }
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

/// Values as they are at a scrape.
struct Readings<'a>(&'a mut Registry);

impl Readings<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: impl Number) {
        self.0.register(name, help, ConstGauge::new(value.number()));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.0.register(name, help, ConstCounter::new(value));
    }

    fn node(&mut self, member: &Member) {
        let end = *member.certificate_end.borrow();
        self.gauge(
            "skein_certificate_end_seconds",
            "When the node's certificate ends, since the Unix epoch",
            end,
        );
        self.gauge(
            "skein_manager_disk_full",
            "Whether this manager is none until its disk has room",
            member.without_room.borrow().is_some(),
        );
    }

    fn worker(&mut self, member: &Member) {
        let done = member.worker.done.borrow();
        self.counter("skein_passes", "Passes over the kernel", done.passes);
        self.counter(
            "skein_drift_repaired",
            "Kernel operations that changes by other programs made necessary",
            done.drift,
        );
        self.gauge(
            "skein_ports_withheld",
            "Published ports that this node leaves to programs that listen on them",
            done.conflicts.withheld,
        );
        self.gauge(
            "skein_change_waiting_milliseconds",
            "For how long the oldest change waits that came and that the kernel does not hold yet",
            milliseconds(member.worker.change_waiting()),
        );
        self.gauge(
            "skein_change_last_milliseconds",
            "From when the last change reached the node until the kernel held it",
            milliseconds(member.worker.change_took()),
        );
        self.gauge("skein_tasks", "Tasks of this node", member.worker.tasks.borrow().len());
        self.gauge(
            "skein_worker_queue",
            "Inputs that wait for the worker",
            member.worker.waiting_inputs(),
        );
    }

    /// What a manager knows of the cluster.
    fn manager(&mut self, manager: &Manager) {
        let status = manager.raft.status();
        self.gauge("skein_raft_leader", "Whether this manager leads", status.is_leader);
        self.gauge("skein_raft_term", "Raft term", status.term);
        self.gauge("skein_raft_applied", "Last applied log index", status.last_applied);
        self.gauge(
            "skein_state_differing",
            "Managers that were seen to hold another state than this one",
            manager.differing().len(),
        );
        let state = manager.newest();
        let schema = state.cluster.as_ref().map_or(0, |cluster| u64::from(cluster.schema));
        self.gauge("skein_schema", "What log and snapshots may hold, as a number", schema);
        let revision = state.revision.0;
        self.gauge("skein_state_revision", "Log index of the last change", revision);
        self.gauge(
            "skein_decider_queue",
            "Requests that wait to be decided on this manager",
            manager.waiting_requests(),
        );
    }

    /// What gossip knows, and what it has refused.
    fn gossip(&mut self, member: &Member) {
        let view = member.gossip.view();
        let view = view.borrow();
        let alive = view.liveness.values().filter(|l| **l == Liveness::Alive).count();
        self.gauge("skein_gossip_alive", "Nodes that gossip holds for alive", alive);
        self.gauge("skein_gossip_endpoints", "Endpoint rows known", view.endpoints.len());
        self.gauge(
            "skein_gossip_waiting_milliseconds",
            "For how long the oldest datagram or message waits that may change the view",
            milliseconds(member.gossip.waiting(crate::clock::monotonic())),
        );
        let refused = member.gossip.refused();
        self.counter(
            "skein_gossip_forged",
            "Rows, runs and restarts that the node they are of did not sign",
            refused.forged,
        );
        self.counter(
            "skein_gossip_unlisted",
            "Datagrams, rows and runs of nodes that the assignment lists elsewhere or not at all",
            refused.unlisted,
        );
        self.counter(
            "skein_gossip_impersonated",
            "Rows of this node, signed with its key by another program, that it cannot outrun",
            refused.impersonated,
        );
    }
}

/// Numbers that a metric may have.
trait Number {
    fn number(self) -> u64;
}

impl Number for bool {
    fn number(self) -> u64 {
        u64::from(self)
    }
}

impl Number for u64 {
    fn number(self) -> u64 {
        self
    }
}

impl Number for usize {
    fn number(self) -> u64 {
        self as u64
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
