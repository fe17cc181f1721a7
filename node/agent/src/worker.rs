//! The worker: realises its assignment on one node.
//!
//! Inputs in, executor commands out, and three level-triggered readings that the agent carries on:
//! what rendering must know of this node ([`Worker::local`]), the rows it owns in gossip
//! ([`Worker::own_rows`]) and what it knows of its tasks ([`Worker::statuses`]).
//! It never deletes on the absence of knowledge: a task that no assignment of a manager has
//! mentioned since start is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::assignment::{Assignment, OwnTask};
use cluster::id::{NodeId, TaskId};
use cluster::net::Subnet;
use cluster::object::{Attachment, TaskState, TaskStatus};
use cluster::time::{Revision, Timestamp};
use cluster::view::{Condition, EndpointKey, EndpointOwner, EndpointRow};
use netprog::local::LocalSandbox;

use crate::{Moment, Young};

pub use task::{Ended, LocalTask, Phase};

mod egress;
mod task;
#[cfg(test)]
pub(crate) mod tests;

/// A task that is to stop waits this long at most for the balancers of its networks.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// A command that could not be carried out is given again after this time, while it is still due.
pub const AGAIN_INTERVAL: Duration = Duration::from_secs(1);
/// The same for what is left of a task that ended: nobody waits for its removal.
pub const FORGET_INTERVAL: Duration = Duration::from_secs(10);
/// A task that could not be launched or started for so long has failed, so that its service's
/// restart policy and the scheduler have their say.
pub const LAUNCH_LIMIT: Duration = Duration::from_secs(60);
/// A task without a health check takes new flows this long after its start at the latest, also
/// where others of its service could: it may serve what cannot be seen.
pub const YOUNG_LIMIT: Duration = Duration::from_secs(15);

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The whole assignment; `from_manager` is false for the one read from disk.
    Assignment {
        /// The assignment.
        assignment: Arc<Assignment>,
        /// It came from a manager since start.
        from_manager: bool,
    },
    /// Which stopping tasks are out of every balancer.
    Released(BTreeSet<TaskId>),
    /// Tasks found running at start, with their egress addresses. Until this came, no task is
    /// launched: it may be running already.
    Adopted(BTreeMap<TaskId, Adopted>),
    /// The executor speaks of a task.
    Task(TaskId, Event),
    /// What is to listen in a task's sandbox does.
    Listens(TaskId),
    /// A command could not be carried out, for a reason that may pass.
    NotDone {
        /// Which.
        command: Command,
        /// The whole cause, for the task's status.
        error: String,
    },
    /// A pass over the kernel ended: these sandboxes are programmed, these failed with that text.
    Programmed {
        /// Complete.
        ready: BTreeSet<TaskId>,
        /// Not complete, and why.
        failed: BTreeMap<TaskId, String>,
    },
    /// These sandboxes publish ports that programs of the host have, and who has them.
    Refused(BTreeMap<TaskId, String>),
    /// The leader has these statuses in its log.
    Reported(BTreeMap<TaskId, TaskStatus>),
    /// Every task is to stop now, whatever the assignment says: the node leaves, or the daemon
    /// stops together with its tasks. Nothing is launched after it.
    StopAll,
    /// The leader's clock now: restart delays are counted by it, not by this node's.
    LeaderTime(Timestamp),
    /// Time passed.
    Tick,
}

/// A task that outlived the previous daemon.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// Its address on the egress bridge; it gets another one where none is known.
    pub egress: Option<IpAddr>,
    /// How it stands.
    pub event: Event,
}

/// What a health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// No check has passed yet.
    Starting,
    /// It passes, or is not waited for.
    Healthy,
    /// There is none: it takes new flows once something listens in its sandbox.
    Unchecked,
    /// It failed as often as the spec allows.
    Unhealthy,
}

/// What the executor says of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its sandbox exists, with DNS sockets on these ports.
    Prepared {
        /// UDP port.
        dns_udp_port: u16,
        /// TCP port.
        dns_tcp_port: u16,
    },
    /// Its program is being started already: by the daemon before this one.
    Starting {
        /// UDP port of DNS.
        dns_udp_port: u16,
        /// TCP port of DNS.
        dns_tcp_port: u16,
    },
    /// Its program runs.
    Running {
        /// UDP port of DNS.
        dns_udp_port: u16,
        /// TCP port of DNS.
        dns_tcp_port: u16,
        /// Process id on the node.
        pid: u32,
        /// What its health check says.
        health: Health,
        /// Output of the last check that failed.
        detail: String,
    },
    /// It ended.
    Ended(Ended),
}

/// What the executor must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make the sandbox and its supervisor.
    Launch(TaskId),
    /// Start the program.
    Start(TaskId),
    /// Ask it to stop, then insist.
    Stop(TaskId),
    /// Forget it: supervisor, sandbox and directory go, logs stay.
    Forget(TaskId),
}

/// The core.
#[derive(Debug)]
pub struct Worker {
    node: NodeId,
    egress: egress::Pool,
    assignment: Option<Arc<Assignment>>,
    from_manager: bool,
    adopted: bool,
    tasks: BTreeMap<TaskId, LocalTask>,
    released: BTreeSet<TaskId>,
    reported: BTreeMap<TaskId, TaskStatus>,
    /// What is left of tasks that ended and could not be removed: when that is tried again.
    remains: BTreeMap<TaskId, Duration>,
    /// First assignment that showed this node's own ingress endpoint.
    ingress_revision: Option<Revision>,
    stopping: bool,
    /// The leader's clock minus this node's.
    leader_ahead_ms: i128,
}

impl Worker {
    /// For a node that gives egress addresses out of `gwbridge`.
    #[must_use]
    pub fn new(node: NodeId, gwbridge: Subnet) -> Self {
        Self {
            node,
            egress: egress::Pool::new(gwbridge),
            assignment: None,
            from_manager: false,
            adopted: false,
            tasks: BTreeMap::new(),
            released: BTreeSet::new(),
            reported: BTreeMap::new(),
            remains: BTreeMap::new(),
            ingress_revision: None,
            stopping: false,
            leader_ahead_ms: 0,
        }
    }

    /// Takes an input; returns what the executor must do.
    pub fn step(&mut self, input: Input, at: Moment) -> Vec<Command> {
        match input {
            Input::Assignment { assignment, from_manager } => {
                self.take_assignment(assignment, from_manager);
            }
            Input::Released(released) => self.released = released,
            Input::Adopted(found) => self.adopt(found, at),
            Input::Task(id, event) => {
                if let Some(task) = self.tasks.get_mut(&id) {
                    task.hear(event, at);
                }
            }
            Input::NotDone { command, error } => {
                self.not_done(&command, error, at);
            }
            Input::Programmed { ready, failed } => {
                for (id, task) in &mut self.tasks {
                    task.programmed(ready.contains(id), failed.get(id), at.wall);
                }
            }
            Input::Refused(refused) => {
                for (id, reason) in refused {
                    if let Some(task) = self.tasks.get_mut(&id) {
                        task.refused(reason, at.wall);
                    }
                }
            }
            Input::Reported(statuses) => self.reported.extend(statuses),
            Input::StopAll => self.stopping = true,
            Input::LeaderTime(leader) => {
                self.leader_ahead_ms = i128::from(leader.0) - i128::from(at.wall.0);
            }
            Input::Listens(id) => {
                if let Some(task) = self.tasks.get_mut(&id) {
                    task.listens();
                }
            }
            Input::Tick => {}
        }
        self.reconcile(at)
    }

    fn not_done(&mut self, command: &Command, error: String, at: Moment) {
        match command {
            Command::Launch(id) | Command::Start(id) | Command::Stop(id) => {
                if let Some(task) = self.tasks.get_mut(id) {
                    task.not_done(command, error, at);
                }
            }
            Command::Forget(id) => {
                self.remains.insert(*id, at.now + FORGET_INTERVAL);
            }
        }
    }

    fn take_assignment(&mut self, assignment: Arc<Assignment>, from_manager: bool) {
        let older = self.assignment.as_ref().is_some_and(|a| a.revision > assignment.revision);
        // A manager that lags behind must not take the node back in time.
        if older {
            return;
        }
        self.from_manager |= from_manager;
        let has_ingress =
            assignment.nodes.get(&self.node).is_some_and(|node| node.ingress.is_some());
        if has_ingress && self.ingress_revision.is_none() {
            self.ingress_revision = Some(assignment.revision);
        }
        self.assignment = Some(assignment);
    }

    fn adopt(&mut self, found: BTreeMap<TaskId, Adopted>, at: Moment) {
        self.adopted = true;
        for address in found.values().filter_map(|adopted| adopted.egress) {
            self.egress.reserve(address);
        }
        for (id, adopted) in found {
            let revision = self.assignment.as_ref().map_or(Revision(0), |a| a.revision);
            let address = match &adopted.event {
                Event::Ended(_) => adopted.egress,
                _lives => adopted.egress.or_else(|| self.egress.allocate()),
            };
            let mut task = LocalTask::new(address, revision, at.wall);
            task.hear(adopted.event, at);
            task.listens();
            self.tasks.insert(id, task);
        }
    }

    fn reconcile(&mut self, at: Moment) -> Vec<Command> {
        for task in self.tasks.values_mut() {
            task.grow_up(at.now);
        }
        let mut commands = self.towards_assignment(at);
        self.give_again(at, &mut commands);
        commands
    }

    fn towards_assignment(&mut self, at: Moment) -> Vec<Command> {
        if self.stopping {
            return self.stop_all(at);
        }
        let Some(assignment) = self.assignment.clone() else { return Vec::new() };
        if !self.adopted {
            return Vec::new();
        }
        let mut commands = Vec::new();
        for (id, own) in &assignment.own {
            self.reconcile_own(*id, own, assignment.revision, at, &mut commands);
        }
        if self.from_manager {
            self.reconcile_strays(&assignment, at, &mut commands);
        }
        commands
    }

    /// The commands that could not be carried out, as far as they are still due.
    fn give_again(&mut self, at: Moment, commands: &mut Vec<Command>) {
        for (id, task) in &mut self.tasks {
            match task.due_again(*id, at.now) {
                Some(Command::Launch(_)) => commands.extend(task.launch(*id, &mut self.egress, at)),
                due => commands.extend(due),
            }
        }
        self.remains.retain(|id, again_at| {
            let is_due = *again_at <= at.now;
            commands.extend(is_due.then_some(Command::Forget(*id)));
            !is_due
        });
    }

    /// Of commands that had to wait, those that are still to be carried out, and what is to be done
    /// instead of the others.
    pub(crate) fn still_due(
        &mut self,
        waited: Vec<Command>,
        at: Moment,
    ) -> (Vec<Command>, Vec<Command>) {
        let (due, dropped): (Vec<_>, Vec<_>) =
            waited.into_iter().partition(|command| self.is_due(command));
        if dropped.is_empty() {
            return (due, Vec::new());
        }
        for command in dropped {
            self.not_done(&command, "it is not wanted any more".to_owned(), at);
        }
        (due, self.reconcile(at))
    }

    fn is_due(&self, command: &Command) -> bool {
        let is_in = |id, phase| self.tasks.get(id).is_some_and(|task| task.phase == phase);
        match command {
            Command::Launch(id) => is_in(id, Phase::Launching) && self.wants(id),
            Command::Start(id) => is_in(id, Phase::Starting),
            Command::Stop(_) | Command::Forget(_) => true,
        }
    }

    fn wants(&self, id: &TaskId) -> bool {
        let own = self.assignment.as_ref().and_then(|assignment| assignment.own.get(id));
        !self.stopping && own.is_some_and(|own| own.desired <= TaskState::Running)
    }

    fn stop_all(&mut self, at: Moment) -> Vec<Command> {
        let may_stop = |task: &mut LocalTask| task.may_stop(at.now, true);
        let mut commands = Vec::new();
        for (id, task) in &mut self.tasks {
            if may_stop(task) {
                commands.extend(task.stop(*id, at.wall));
            }
        }
        commands
    }

    fn reconcile_own(
        &mut self,
        id: TaskId,
        own: &OwnTask,
        revision: Revision,
        at: Moment,
        commands: &mut Vec<Command>,
    ) {
        let Moment { now, wall } = at;
        let wanted = own.desired <= TaskState::Running;
        // Until its restart delay is over it is made ready, and no more.
        let is_time = own.start_after.is_none_or(|moment| moment <= self.leader_time(wall));
        if let Some(task) = self.tasks.get_mut(&id) {
            if !wanted && task.may_stop(now, self.released.contains(&id)) {
                commands.extend(task.stop(id, wall));
            } else if wanted && task.is_failing_checks() {
                commands.extend(task.give_up(id));
            } else if wanted && is_time && task.may_start() {
                task.starting(wall);
                commands.push(Command::Start(id));
            }
            return;
        }
        if own.observed.is_terminal() || own.desired == TaskState::Ready {
            return;
        }
        if !wanted {
            let ended = Ended::never_started();
            self.tasks.insert(id, LocalTask::ended(ended, TaskState::Shutdown, revision, wall));
        } else if own.observed >= TaskState::Starting {
            let ended = Ended::lost();
            self.tasks.insert(id, LocalTask::ended(ended, TaskState::Failed, revision, wall));
        } else {
            let task = self.tasks.entry(id).or_insert(LocalTask::new(None, revision, wall));
            commands.extend(task.launch(id, &mut self.egress, at));
        }
    }

    /// Tasks that no assignment lists any more: stop what runs, forget what ended.
    fn reconcile_strays(
        &mut self,
        assignment: &Assignment,
        at: Moment,
        commands: &mut Vec<Command>,
    ) {
        let Moment { now, wall } = at;
        let strays: Vec<TaskId> =
            self.tasks.keys().filter(|id| !assignment.own.contains_key(id)).copied().collect();
        for id in strays {
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            if task.phase == Phase::Ended {
                if let Some(address) = task.egress {
                    self.egress.free(address);
                }
                self.tasks.remove(&id);
                self.reported.remove(&id);
                commands.push(Command::Forget(id));
            } else if task.may_stop(now, true) {
                commands.extend(task.stop(id, wall));
            }
        }
    }

    fn leader_time(&self, wall: Timestamp) -> Timestamp {
        let ahead = i128::from(wall.0) + self.leader_ahead_ms;
        Timestamp(u64::try_from(ahead).unwrap_or_default())
    }

    /// When `step` wants to be called with a tick at the latest.
    #[must_use]
    pub fn next_deadline(&self, at: Moment) -> Option<Duration> {
        let Moment { now, wall } = at;
        let drains = self.tasks.values().filter_map(LocalTask::drain_deadline);
        let delays = self.assignment.iter().flat_map(|a| a.own.iter()).filter_map(|(id, own)| {
            let waits = self.tasks.get(id).is_some_and(LocalTask::may_start);
            let moment = own.start_after.filter(|_| waits)?;
            let wall = self.leader_time(wall);
            (moment > wall).then(|| now + Duration::from_millis(moment.since_ms(wall)))
        });
        let again = self.tasks.values().filter_map(LocalTask::again_at);
        let young = self.tasks.values().filter_map(LocalTask::young_until);
        let again = again.chain(young);
        let remains = self.remains.values().copied();
        drains.chain(delays).chain(again).chain(remains).min()
    }

    /// The assignment in force.
    #[must_use]
    pub fn assignment(&self) -> Option<&Arc<Assignment>> {
        self.assignment.as_ref()
    }

    /// Whether an assignment is known that nothing in the kernel can be newer than, and the tasks
    /// that run are known: only then may anything be deleted.
    #[must_use]
    pub fn knows_all(&self) -> bool {
        self.assignment.is_some() && self.adopted
    }

    /// Sandboxes that exist, for rendering.
    #[must_use]
    pub fn local(&self) -> BTreeMap<TaskId, LocalSandbox> {
        self.tasks.iter().filter_map(|(id, task)| Some((*id, task.sandbox()?))).collect()
    }

    /// Egress addresses in use, to be kept on disk.
    #[must_use]
    pub fn egress_addresses(&self) -> BTreeMap<TaskId, IpAddr> {
        let live = self.tasks.iter().filter(|(_, task)| task.phase != Phase::Ended);
        live.filter_map(|(id, task)| Some((*id, task.egress?))).collect()
    }

    /// The rows that this node owns in gossip; `None` until the tasks that run are known, so that
    /// a restart takes no row away.
    #[must_use]
    pub fn own_rows(&self) -> Option<BTreeMap<EndpointKey, EndpointRow>> {
        let assignment = self.assignment.as_ref().filter(|_| self.adopted)?;
        let mut rows = BTreeMap::new();
        for (id, task) in &self.tasks {
            let Some(assigned) = assignment.tasks.get(id).filter(|_| task.has_endpoint()) else {
                continue;
            };
            for attachment in &assigned.attachments {
                let owner = EndpointOwner::Task(*id);
                let (key, row) = self.row(owner, attachment, task.condition(), task.revision);
                rows.insert(key, row);
            }
        }
        let own = assignment.nodes.get(&self.node).and_then(|node| node.ingress.as_ref());
        if let (Some(attachment), Some(revision)) = (own, self.ingress_revision) {
            let owner = EndpointOwner::Node(self.node);
            let (key, row) = self.row(owner, attachment, Condition::Ready, revision);
            rows.insert(key, row);
        }
        Some(rows)
    }

    /// Young tasks, and the ports that are to be listened on in their sandboxes; none: any.
    #[must_use]
    pub fn young(&self) -> Young {
        let Some(assignment) = &self.assignment else { return Young::new() };
        let ports = |id: &TaskId| {
            let own = assignment.own.get(id).into_iter().flat_map(|own| &own.ports);
            own.map(|port| (port.protocol, port.target)).collect()
        };
        let young = self.tasks.iter().filter(|(_, task)| task.young_until().is_some());
        young.map(|(id, _)| (*id, ports(id))).collect()
    }

    fn row(
        &self,
        owner: EndpointOwner,
        attachment: &Attachment,
        condition: Condition,
        revision: Revision,
    ) -> (EndpointKey, EndpointRow) {
        let key = EndpointKey { network: attachment.network, owner };
        let (node, addresses, mac) = (self.node, attachment.addresses, attachment.mac);
        (key, EndpointRow { node, addresses, mac, condition, revision })
    }

    /// What the leader does not know yet.
    #[must_use]
    pub fn statuses(&self) -> BTreeMap<TaskId, TaskStatus> {
        let news = self.tasks.iter().filter(|(id, task)| {
            self.reported.get(id).is_none_or(|reported| *reported != task.status)
        });
        news.map(|(id, task)| (*id, task.status.clone())).collect()
    }

    /// The node's own tasks, for answers about this node.
    #[must_use]
    pub fn tasks(&self) -> &BTreeMap<TaskId, LocalTask> {
        &self.tasks
    }
}
