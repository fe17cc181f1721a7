//! One task as its node sees it. Its status only rises.

use std::net::IpAddr;
use std::time::Duration;

use cluster::id::TaskId;
use cluster::object::{TaskState, TaskStatus};
use cluster::time::{Revision, Timestamp};
use netprog::local::LocalSandbox;

use super::{Command, DRAIN_LIMIT, Event, Health};

/// How far a task came on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Its sandbox is being made.
    Launching,
    /// The sandbox exists and is being programmed.
    Prepared,
    /// The sandbox is programmed: the program may start.
    Ready,
    /// The program is being started.
    Starting,
    /// The program runs.
    Running,
    /// It was asked to stop.
    Stopping,
    /// It ended; kept until the leader knows.
    Ended,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit status of the program, if there was one.
    pub exit_code: Option<i32>,
    /// What went wrong, empty if nothing.
    pub error: String,
    /// It could not be run at all.
    pub rejected: bool,
}

impl Ended {
    /// It was to stop before it began.
    #[must_use]
    pub fn never_started() -> Self {
        Self { exit_code: None, error: String::new(), rejected: false }
    }

    /// It ran once, and nothing is left of it.
    #[must_use]
    pub fn lost() -> Self {
        let error = "task is gone: its node or its supervisor was stopped".to_owned();
        Self { exit_code: None, error, rejected: false }
    }

    /// It cannot be run here.
    #[must_use]
    pub fn rejected(error: String) -> Self {
        Self { exit_code: None, error, rejected: true }
    }
}

/// One task as its node sees it.
#[derive(Debug, Clone)]
pub struct LocalTask {
    /// How far it came.
    pub phase: Phase,
    /// Its address on the egress bridge; none once it has ended, or if it never had one.
    pub egress: Option<IpAddr>,
    /// Revision of the assignment that brought it.
    pub revision: Revision,
    /// What is reported of it.
    pub status: TaskStatus,
    dns_ports: Option<(u16, u16)>,
    healthy: bool,
    drain_since: Option<Duration>,
    asked_to_stop: bool,
    failing_checks: bool,
    /// What its health check said when it was given up: how it ends then does not matter.
    unhealthy: Option<String>,
}

impl LocalTask {
    pub(super) fn new(egress: Option<IpAddr>, revision: Revision, wall: Timestamp) -> Self {
        let status = TaskStatus {
            state: TaskState::Preparing,
            at: wall,
            message: "preparing".to_owned(),
            error: String::new(),
            pid: None,
            exit_code: None,
            healthy: false,
        };
        Self {
            phase: Phase::Launching,
            egress,
            revision,
            status,
            dns_ports: None,
            healthy: false,
            drain_since: None,
            asked_to_stop: false,
            failing_checks: false,
            unhealthy: None,
        }
    }

    pub(super) fn ended(
        ended: Ended,
        state: TaskState,
        revision: Revision,
        wall: Timestamp,
    ) -> Self {
        let mut task = Self::new(None, revision, wall);
        task.end(ended, state, wall);
        task
    }

    /// The executor speaks. What it says of an earlier phase than ours is old news.
    pub(super) fn hear(&mut self, event: Event, wall: Timestamp) {
        if self.phase == Phase::Ended {
            return;
        }
        match event {
            Event::Prepared { dns_udp_port, dns_tcp_port } => {
                self.dns_ports = Some((dns_udp_port, dns_tcp_port));
                self.phase = self.phase.max(Phase::Prepared);
            }
            Event::Starting { dns_udp_port, dns_tcp_port } => {
                self.dns_ports = Some((dns_udp_port, dns_tcp_port));
                self.phase = self.phase.max(Phase::Starting);
            }
            Event::Running { dns_udp_port, dns_tcp_port, pid, health, detail } => {
                let healthy = health == Health::Healthy;
                self.failing_checks = health == Health::Unhealthy;
                self.dns_ports = Some((dns_udp_port, dns_tcp_port));
                self.phase = self.phase.max(Phase::Running);
                self.healthy = healthy;
                self.status.pid = Some(pid);
                self.status.healthy = healthy;
                if healthy {
                    self.advance(TaskState::Running, "started", wall);
                } else {
                    // Until the first check passes it counts as starting, as Docker's.
                    self.advance(TaskState::Starting, "waiting for its health check", wall);
                }
                self.status.error = detail;
            }
            Event::Ended(ended) => {
                let state = match (&ended, self.asked_to_stop) {
                    (Ended { rejected: true, .. }, _) => TaskState::Rejected,
                    (_, true) => TaskState::Shutdown,
                    (Ended { exit_code: Some(0), error, .. }, false)
                        if error.is_empty() && self.unhealthy.is_none() =>
                    {
                        TaskState::Complete
                    }
                    (Ended { .. }, false) => TaskState::Failed,
                };
                self.end(ended, state, wall);
            }
        }
    }

    fn end(&mut self, ended: Ended, state: TaskState, wall: Timestamp) {
        let message = match state {
            TaskState::Complete => "finished",
            TaskState::Shutdown => "shutdown",
            TaskState::Rejected => "rejected",
            _ended => "failed",
        };
        self.phase = Phase::Ended;
        self.healthy = false;
        self.status.healthy = false;
        self.status.pid = None;
        self.status.exit_code = ended.exit_code;
        self.status.error = match (&self.unhealthy, ended.exit_code) {
            _ if !ended.error.is_empty() || state != TaskState::Failed => ended.error,
            (Some(output), _) => format!("task: unhealthy: {output}"),
            (None, Some(code)) => format!("task: non-zero exit ({code})"),
            (None, None) => ended.error,
        };
        self.advance(state, message, wall);
    }

    fn advance(&mut self, state: TaskState, message: &str, wall: Timestamp) {
        if let Some(state) = self.status.state.advance(state) {
            self.status.state = state;
            self.status.at = wall;
            message.clone_into(&mut self.status.message);
        }
    }

    /// A pass over the kernel ended.
    pub(super) fn programmed(&mut self, ready: bool, failed: Option<&String>, wall: Timestamp) {
        if self.phase != Phase::Prepared {
            return;
        }
        if ready {
            self.phase = Phase::Ready;
            self.status.error.clear();
            self.advance(TaskState::Ready, "prepared", wall);
        } else if let Some(reason) = failed {
            self.status.error = format!("network is not ready: {reason}");
        }
    }

    pub(super) fn may_start(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub(super) fn starting(&mut self, wall: Timestamp) {
        self.phase = Phase::Starting;
        self.advance(TaskState::Starting, "starting", wall);
    }

    /// Whether the balancers have had their time. Asking starts the clock.
    pub(super) fn may_stop(&mut self, now: Duration, released: bool) -> bool {
        if self.asked_to_stop || self.phase == Phase::Ended || self.phase == Phase::Launching {
            return false;
        }
        let since = *self.drain_since.get_or_insert(now);
        released || self.phase < Phase::Running || now.saturating_sub(since) >= DRAIN_LIMIT
    }

    pub(super) fn stop(&mut self, id: TaskId, wall: Timestamp) -> Option<Command> {
        self.asked_to_stop = true;
        if self.phase < Phase::Starting {
            // Its program never ran: nothing to wait for.
            self.end(Ended::never_started(), TaskState::Shutdown, wall);
            return None;
        }
        self.phase = Phase::Stopping;
        Some(Command::Stop(id))
    }

    /// A task whose check fails for good is stopped, and so replaced, as Docker's.
    pub(super) fn is_failing_checks(&self) -> bool {
        self.failing_checks && self.phase == Phase::Running
    }

    pub(super) fn give_up(&mut self, id: TaskId) -> Option<Command> {
        self.phase = Phase::Stopping;
        self.unhealthy = Some(self.status.error.clone());
        Some(Command::Stop(id))
    }

    pub(super) fn drain_deadline(&self) -> Option<Duration> {
        let waiting = !self.asked_to_stop && self.phase != Phase::Ended;
        self.drain_since.filter(|_| waiting).map(|since| since + DRAIN_LIMIT)
    }

    /// The sandbox, while there is one.
    pub(super) fn sandbox(&self) -> Option<LocalSandbox> {
        let (dns_udp_port, dns_tcp_port) = self.dns_ports.filter(|_| self.phase != Phase::Ended)?;
        Some(LocalSandbox { egress: self.egress?, dns_udp_port, dns_tcp_port })
    }

    /// Peers learn of an endpoint once its sandbox exists, so that entries are there before
    /// traffic; it counts as a backend only once healthy.
    pub(super) fn has_endpoint(&self) -> bool {
        self.sandbox().is_some()
    }

    pub(super) fn healthy(&self) -> bool {
        self.healthy && matches!(self.phase, Phase::Running | Phase::Stopping)
    }
}
