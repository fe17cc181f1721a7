//! One task as its node sees it. Its status only rises.

use std::net::IpAddr;
use std::time::Duration;

use cluster::id::TaskId;
use cluster::object::{TaskState, TaskStatus};
use cluster::time::{Revision, Timestamp};
use cluster::view::Condition;
use netprog::local::LocalSandbox;

use super::{
    AGAIN_INTERVAL, Command, DRAIN_LIMIT, Event, Health, LAUNCH_LIMIT, YOUNG_LIMIT, egress,
};
use crate::Moment;

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Nothing is known to listen in it yet; then, the latest moment at which it counts as ready.
    young_until: Option<Duration>,
    drain_since: Option<Duration>,
    asked_to_stop: bool,
    failing_checks: bool,
    /// What its health check said when it was given up: how it ends then does not matter.
    unhealthy: Option<String>,
    /// The last command could not be carried out: when it is given again.
    again_at: Option<Duration>,
    /// Since when it cannot be launched or started.
    failing_since: Option<Duration>,
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
            young_until: None,
            drain_since: None,
            asked_to_stop: false,
            failing_checks: false,
            unhealthy: None,
            again_at: None,
            failing_since: None,
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
    pub(super) fn hear(&mut self, event: Event, at: Moment) {
        let Moment { now, wall } = at;
        if self.phase == Phase::Ended {
            return;
        }
        match event {
            Event::Prepared { dns_udp_port, dns_tcp_port } => {
                self.dns_ports = Some((dns_udp_port, dns_tcp_port));
                if self.phase == Phase::Launching {
                    self.came_to(Phase::Prepared);
                }
            }
            Event::Starting { dns_udp_port, dns_tcp_port } => {
                self.dns_ports = Some((dns_udp_port, dns_tcp_port));
                if self.phase <= Phase::Starting {
                    self.came_to(Phase::Starting);
                }
            }
            Event::Running { dns_udp_port, dns_tcp_port, pid, health, detail } => {
                let healthy = matches!(health, Health::Healthy | Health::Unchecked);
                self.failing_checks = health == Health::Unhealthy;
                self.dns_ports = Some((dns_udp_port, dns_tcp_port));
                if self.phase < Phase::Running {
                    self.came_to(Phase::Running);
                    let unchecked = health == Health::Unchecked;
                    self.young_until = unchecked.then_some(now + YOUNG_LIMIT);
                }
                self.healthy = healthy;
                self.status.pid = Some(pid);
                self.status.healthy = healthy;
                if healthy {
                    self.advance(TaskState::Running, "started", wall);
                } else {
                    // Until the first check passes it counts as starting, as Docker's.
                    self.advance(TaskState::Starting, "starting", wall);
                    if self.status.state == TaskState::Starting {
                        "waiting for its health check".clone_into(&mut self.status.message);
                    }
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

    /// What was asked for has happened.
    fn came_to(&mut self, phase: Phase) {
        self.phase = phase;
        self.again_at = None;
        self.failing_since = None;
        self.status.error.clear();
    }

    fn end(&mut self, ended: Ended, state: TaskState, wall: Timestamp) {
        let message = match state {
            TaskState::Complete => "finished",
            TaskState::Shutdown => "shutdown",
            TaskState::Rejected => "rejected",
            _ended => "failed",
        };
        self.phase = Phase::Ended;
        self.again_at = None;
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

    /// A program of the host has a port that it publishes: it cannot run here.
    pub(super) fn refused(&mut self, reason: String, wall: Timestamp) {
        if matches!(self.phase, Phase::Prepared | Phase::Ready) {
            self.end(Ended::rejected(reason), TaskState::Rejected, wall);
        }
    }

    /// Makes the sandbox, once there is an address for it.
    pub(super) fn launch(
        &mut self,
        id: TaskId,
        addresses: &mut egress::Pool,
        at: Moment,
    ) -> Option<Command> {
        self.egress = self.egress.or_else(|| addresses.allocate());
        if self.egress.is_none() {
            let error = format!("no free address on skein_gwbridge ({})", addresses.subnet());
            self.not_done(&Command::Launch(id), error, at);
            return None;
        }
        Some(Command::Launch(id))
    }

    /// A command could not be carried out. One that is not due any more is old news.
    pub(super) fn not_done(&mut self, command: &Command, error: String, at: Moment) {
        let is_due = match command {
            Command::Launch(_) => self.phase == Phase::Launching,
            Command::Start(_) => self.phase == Phase::Starting,
            Command::Stop(_) => self.phase == Phase::Stopping,
            Command::Forget(_) => false,
        };
        if !is_due {
            return;
        }
        self.again_at = Some(at.now + AGAIN_INTERVAL);
        if self.phase == Phase::Stopping {
            return;
        }
        let since = *self.failing_since.get_or_insert(at.now);
        if at.now.saturating_sub(since) >= LAUNCH_LIMIT {
            let ended = Ended { exit_code: None, error, rejected: false };
            self.end(ended, TaskState::Failed, at.wall);
        } else {
            self.status.error = error;
        }
    }

    /// When the last command is to be given again.
    pub(super) fn again_at(&self) -> Option<Duration> {
        self.again_at
    }

    /// The last command, if it could not be carried out and its time has come again.
    pub(super) fn due_again(&mut self, id: TaskId, now: Duration) -> Option<Command> {
        self.again_at.take_if(|at| *at <= now)?;
        match self.phase {
            Phase::Launching => Some(Command::Launch(id)),
            Phase::Starting => Some(Command::Start(id)),
            Phase::Stopping => Some(Command::Stop(id)),
            Phase::Prepared | Phase::Ready | Phase::Running | Phase::Ended => None,
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
        // Until a launch is known to have failed, it may make a supervisor.
        let launches = self.phase == Phase::Launching && self.again_at.is_none();
        if self.asked_to_stop || self.phase == Phase::Ended || launches {
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
        self.again_at = None;
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

    pub(super) fn condition(&self) -> Condition {
        if !self.healthy || !matches!(self.phase, Phase::Running | Phase::Stopping) {
            Condition::Unhealthy
        } else if self.young_until.is_some() {
            Condition::Young
        } else {
            Condition::Ready
        }
    }

    /// What is to listen in its sandbox does, or did when an earlier daemon started it.
    pub(super) fn listens(&mut self) {
        self.young_until = None;
    }

    /// Until when it may be young, while it is.
    pub(super) fn young_until(&self) -> Option<Duration> {
        self.young_until.filter(|_| self.phase == Phase::Running)
    }

    pub(super) fn grow_up(&mut self, now: Duration) {
        self.young_until.take_if(|until| *until <= now);
    }
}
