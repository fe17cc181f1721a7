//! What is measured as it happens: durations, sizes and refusals. One set per process, as there is
//! one log.

use std::sync::LazyLock;
use std::time::Duration;

use netprog::programmer::{Look, PassReport};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The process's meters.
pub fn meters() -> &'static Meters {
    static METERS: LazyLock<Meters> = LazyLock::new(Meters::new);
    &METERS
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Called {
    path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Looked {
    read: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    kind: &'static str,
    errno: String,
}

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// See the module.
#[derive(Debug)]
pub struct Meters {
    commit: Histogram,
    batch: Histogram,
    realized: Histogram,
    calls: Durations<Called>,
    passes: Durations<Looked>,
    operations: Family<OfKind, Counter>,
    refused: Family<Refused, Counter>,
}

/// From 0.25 ms to 16 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 17))
}

impl Meters {
    fn new() -> Self {
        Self {
            commit: seconds(),
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            realized: seconds(),
            calls: Family::new_with_constructor(seconds),
            passes: Family::new_with_constructor(seconds),
            operations: Family::default(),
            refused: Family::default(),
        }
    }

    /// An entry with so many requests was applied, so long after it was proposed.
    pub fn committed(&self, requests: usize, took: Duration) {
        self.commit.observe(took.as_secs_f64());
        self.batch.observe(f64::from(u32::try_from(requests).unwrap_or(u32::MAX)));
    }

    /// A node's kernel is known to hold a change of its assignment, so long after it was proposed.
    pub fn realized(&self, took: Duration) {
        self.realized.observe(took.as_secs_f64());
    }

    /// A peer has answered a call of a route, which is a word of this program.
    pub fn called(&self, path: &str, took: Duration) {
        self.calls.get_or_create(&Called { path: path.to_owned() }).observe(took.as_secs_f64());
    }

    /// A pass over the kernel has ended.
    pub fn passed(&self, look: &Look, report: &PassReport, took: Duration) {
        let read = match (report.dumped, look) {
            (false, _) => "nothing",
            (true, Look::At(_)) => "part",
            (true, Look::Remember | Look::Whole) => "all",
        };
        self.passes.get_or_create(&Looked { read }).observe(took.as_secs_f64());
        for (kind, count) in &report.by_kind {
            self.operations.get_or_create(&OfKind { kind }).inc_by(*count as u64);
        }
        for failure in &report.failures {
            let kind = failure.op.as_ref().map_or("read", |op| op.kind.name());
            let errno = errno_name(failure.error.errno);
            self.refused.get_or_create(&Refused { kind, errno }).inc();
        }
    }

    /// Adds them to what a scrape is answered.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "skein_commit_seconds",
            "From the proposal of a log entry until it is applied, on the leader",
            self.commit.clone(),
        );
        registry.register(
            "skein_batch_requests",
            "Requests that were decided together in one log entry, on the leader",
            self.batch.clone(),
        );
        registry.register(
            "skein_realized_seconds",
            "From the proposal of a change of a node's assignment until the node reports that its \
             kernel holds it, on the leader, over all nodes",
            self.realized.clone(),
        );
        registry.register(
            "skein_call_seconds",
            "Calls of other nodes, until the whole answer was there, by route",
            self.calls.clone(),
        );
        registry.register(
            "skein_pass_seconds",
            "Passes over the kernel, by what was read of it",
            self.passes.clone(),
        );
        registry.register(
            "skein_operations",
            "Kernel operations, failed ones too, by kind of kernel object",
            self.operations.clone(),
        );
        registry.register(
            "skein_operations_failed",
            "Kernel operations and readings that failed, by kind of kernel object and errno",
            self.refused.clone(),
        );
    }
}

/// The name of an errno; the empty string where something other than the kernel failed.
fn errno_name(errno: i32) -> String {
    if errno == 0 { String::new() } else { format!("{:?}", nix::errno::Errno::from_raw(errno)) }
}

#[cfg(test)]
mod tests {
    use netprog::kernel::KernelError;
    use netprog::op::{Op, SpaceOp};
    use netprog::plane::Place;
    use netprog::programmer::Failure;
    use prometheus_client::encoding::prometheus_text::encode;

    use super::*;

    #[test]
    fn passes_and_refusals_are_counted_by_kind_and_errno() {
        let meters = Meters::new();
        let op = Op::new(Place::Host, SpaceOp::Create);
        let (activity, reason) = ("make it".to_owned(), "file exists".to_owned());
        let error = KernelError { activity, reason, errno: nix::errno::Errno::EEXIST as i32 };
        let report = PassReport {
            operations: 3,
            by_kind: [("namespace", 1), ("nft", 2)].into(),
            failures: vec![Failure { op: Some(op), error }],
            ..PassReport::default()
        };
        meters.passed(&Look::Remember, &report, Duration::from_millis(3));
        meters.committed(5, Duration::from_millis(2));
        let mut registry = Registry::default();
        meters.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "skein_operations_total{kind=\"nft\"} 2",
            "skein_operations_failed_total{kind=\"namespace\",errno=\"EEXIST\"} 1",
            "skein_pass_seconds_bucket{read=\"nothing\",le=\"0.004\"} 1",
            "skein_pass_seconds_bucket{read=\"nothing\",le=\"0.002\"} 0",
            "skein_commit_seconds_count 1",
            "skein_batch_requests_bucket{le=\"4\"} 0",
            "skein_batch_requests_bucket{le=\"8\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
    }
}
