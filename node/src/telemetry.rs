//! Log lines and metrics of the daemon.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Context as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::clock;
use crate::config::LogFormat;
use crate::manager::Manager;
use crate::member::Member;

mod lines;

/// Environment variable that sets the log level; `info` unless given.
const LEVEL: &str = "SKEIN_LOG";

/// openraft tells every step at `info` and every heartbeat that got no answer at `warn`; who leads
/// and whose lease ran out is told by the manager. hickory tells every query.
const DEFAULT_FILTER: &str = "info,openraft=error,hickory_server=warn";

/// Starts logging to standard error.
///
/// # Errors
/// When the environment asks for levels that are none.
pub fn start(format: LogFormat) -> anyhow::Result<()> {
    let given = std::env::var_os(LEVEL).map(|value| value.to_string_lossy().into_owned());
    let filter = levels(given.as_deref().unwrap_or(DEFAULT_FILTER))?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter).with(lines::Limit::default());
    match format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).init(),
        LogFormat::Json => registry.with(lines.json()).init(),
    }
    Ok(())
}

/// A level for all, or one for each of some parts.
fn levels(text: &str) -> anyhow::Result<Targets> {
    text.parse().with_context(|| {
        format!("{LEVEL} {text:?}: say a level, as debug, or parts with one, as skein=debug,info")
    })
}

/// A line that a peer or a task can cause is written this often at most.
const SELDOM: Duration = Duration::from_secs(10);

/// Lets one line of many through, and counts the others.
#[derive(Debug, Default)]
pub struct Seldom {
    last: Option<Duration>,
    kept_back: u64,
}

impl Seldom {
    /// Whether to write the line now: with how many others were kept back since the last one.
    pub fn say(&mut self) -> Option<u64> {
        self.say_at(clock::monotonic())
    }

    fn say_at(&mut self, now: Duration) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + SELDOM) {
            self.kept_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.kept_back))
    }
}

/// All metrics in Prometheus' text format.
#[must_use]
pub fn metrics(member: Option<&Member>) -> String {
    let mut text = String::new();
    gauge(&mut text, "skein_member", "Whether this node is in a cluster.", member.is_some());
    counter(
        &mut text,
        "skein_log_lines_withheld_total",
        "Lines of the log that came too often to be written.",
        lines::withheld(),
    );
    let Some(member) = member else { return text };
    let end = *member.certificate_end.borrow();
    gauge(
        &mut text,
        "skein_certificate_end_seconds",
        "When the node's certificate ends, since the Unix epoch.",
        end,
    );
    gauge(
        &mut text,
        "skein_manager_disk_full",
        "Whether this manager is none until its disk has room.",
        member.without_room.borrow().is_some(),
    );
    if let Some(manager) = member.manager() {
        manages(&mut text, &manager);
    }
    let done = member.worker.done.borrow();
    counter(&mut text, "skein_passes_total", "Passes over the kernel.", done.passes);
    counter(&mut text, "skein_operations_total", "Kernel operations.", done.operations);
    counter(
        &mut text,
        "skein_operations_failed_total",
        "Kernel operations that were refused.",
        done.failures,
    );
    counter(
        &mut text,
        "skein_drift_repaired_total",
        "Kernel operations that another hand made needed.",
        done.drift,
    );
    gauge(
        &mut text,
        "skein_ports_withheld",
        "Published ports that this node leaves to programs that listen on them.",
        done.conflicts.withheld,
    );
    gauge(
        &mut text,
        "skein_change_waiting_milliseconds",
        "For how long the oldest change waits that came and that the kernel does not hold yet.",
        milliseconds(member.worker.change_waiting()),
    );
    gauge(
        &mut text,
        "skein_change_last_milliseconds",
        "From when the last change reached the node until the kernel held it.",
        milliseconds(done.lateness.last()),
    );
    gossip(&mut text, member);
    let tasks = member.worker.tasks.borrow();
    gauge(&mut text, "skein_tasks", "Tasks of this node.", tasks.len());
    text
}

/// What a manager knows of the cluster.
fn manages(text: &mut String, manager: &Manager) {
    let status = manager.raft.status();
    gauge(text, "skein_raft_leader", "Whether this manager leads.", status.is_leader);
    gauge(text, "skein_raft_term", "Raft term.", status.term);
    gauge(text, "skein_raft_applied", "Last applied log index.", status.last_applied);
    gauge(
        text,
        "skein_state_differing",
        "Managers that were seen to hold another state than this one.",
        manager.differing().len(),
    );
    let state = manager.newest();
    let schema = state.cluster.as_ref().map_or(0, |cluster| u64::from(cluster.schema));
    gauge(text, "skein_schema", "What log and snapshots may hold, as a number.", schema);
    let revision = state.revision.0;
    gauge(text, "skein_state_revision", "Log index of the last change.", revision);
}

/// What gossip knows, and what it has refused.
fn gossip(text: &mut String, member: &Member) {
    let view = member.gossip.view();
    let view = view.borrow();
    let alive = view.liveness.values().filter(|l| **l == cluster::view::Liveness::Alive).count();
    gauge(text, "skein_gossip_alive", "Nodes that gossip holds for alive.", alive);
    gauge(text, "skein_gossip_endpoints", "Endpoint rows known.", view.endpoints.len());
    let refused = member.gossip.refused();
    counter(
        text,
        "skein_gossip_forged_total",
        "Rows, runs and restarts that the node they are of did not sign.",
        refused.forged,
    );
    counter(
        text,
        "skein_gossip_unlisted_total",
        "Datagrams, rows and runs of nodes that the assignment does not list, or lists elsewhere.",
        refused.unlisted,
    );
    counter(
        text,
        "skein_gossip_impersonated_total",
        "Rows of this node, signed with its key by another program, that it cannot outrun.",
        refused.impersonated,
    );
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

fn gauge(text: &mut String, name: &str, help: &str, value: impl Number) {
    metric(text, name, help, "gauge", value.number());
}

fn counter(text: &mut String, name: &str, help: &str, value: impl Number) {
    metric(text, name, help, "counter", value.number());
}

fn metric(text: &mut String, name: &str, help: &str, kind: &str, value: u64) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

#[test]
fn levels_are_read_and_others_refused() {
    let filter = levels(DEFAULT_FILTER).expect("the default");
    let told = |target: &str, level| filter.would_enable(target, &level);
    assert!(told("skein::worker", tracing::Level::INFO));
    assert!(!told("openraft::core", tracing::Level::WARN));
    let error = format!("{:#}", levels("skein=loud").expect_err("no level"));
    assert!(error.contains("SKEIN_LOG") && error.contains("\"skein=loud\""), "{error}");
}

#[test]
fn a_line_is_said_seldom_and_tells_how_many_were_not() {
    let mut line = Seldom::default();
    let at = |ms| Duration::from_millis(ms);
    assert_eq!(line.say_at(at(0)), Some(0));
    assert_eq!((line.say_at(at(1)), line.say_at(at(9_999))), (None, None));
    assert_eq!((line.say_at(at(10_000)), line.say_at(at(20_000))), (Some(2), Some(0)));
}
