//! One step of everything: an input goes to the part that it is for, then each part is asked what
//! is to be done now. Asking is level-triggered, so no input is needed for what is due by time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::assignment::Assignment;
use cluster::id::{NodeId, TaskId};
use cluster::net::Subnet;
use cluster::object::{NodeDescription, Trust};
use cluster::view::View;
use gossip::KeyringError;

use crate::Moment;
use crate::disk::{Disk, Files, OnDisk};
use crate::lateness::Lateness;
use crate::listeners::{Looks, Young};
use crate::passes::{Disturbed, Facts, Pass, Passed, Passes};
use crate::publish::Published;
use crate::session::{Answer, Missed, Report, Session, Watch};
use crate::worker::{self, Adopted, Command, Event, Worker};

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// Tasks found running at start, with their egress addresses. Until this came, no task is
    /// launched: it may be running already.
    Adopted(BTreeMap<TaskId, Adopted>),
    /// The executor speaks of a task.
    Task(TaskId, Event),
    /// What came of [`Output::LookForListeners`]: tasks in whose sandboxes what is to listen does.
    Listening(Vec<TaskId>),
    /// A command could not be carried out, for a reason that may pass.
    NotDone {
        /// Which.
        command: Command,
        /// The whole cause, for the task's status.
        error: String,
    },
    /// Every task is to stop now, whatever the assignment says: the node leaves, or the daemon
    /// stops together with its tasks. Nothing is launched after it.
    StopAll,
    /// What came of [`Output::Watch`].
    Watched(Result<Answer, Missed>),
    /// What came of [`Output::Report`]: which leader heard it, if any did.
    Reported(Option<SocketAddr>),
    /// Whom this node trusts from now on.
    Trusts(Trust),
    /// What this machine is like now.
    Machine {
        /// Where it has routes to.
        routes: Vec<Subnet>,
        /// MTU of the underlay, while that has a link.
        underlay_mtu: Option<u32>,
    },
    /// What gossip says now.
    View {
        /// All of it.
        view: Arc<View>,
        /// When the oldest news in it reached the node.
        since: Duration,
    },
    /// Other programs changed what is ours.
    Disturbed(Disturbed),
    /// What came of [`Output::Pass`].
    Passed(Passed),
    /// What came of [`Output::LookAtPorts`]: whether programs have other ports than before.
    PortsLookedAt(bool),
    /// The kernel was read for somebody who wanted to see it.
    Inspected,
    /// What came of [`Output::Write`]: whether the disk took all of it.
    Written(bool),
    /// Time passed.
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Something for the executor.
    Task(Command),
    /// Files to be written; what depends on them waits for [`Input::Written`].
    Write(Files),
    /// The leader is to be asked.
    Watch(Watch),
    /// The leader is to be told.
    Report(Box<Report>),
    /// The kernel is to be made as it should be.
    Pass(Box<Pass>),
    /// It is to be found out which programs have ports that are to be published.
    LookAtPorts,
    /// It is to be found out in which of these sandboxes somebody listens.
    LookForListeners(Young),
    /// Gossip is to be told.
    Gossip(gossip::Input),
    /// Gossip keeps its keys: those of the assignment are none.
    NoKeys(KeyringError),
    /// Another assignment is in force.
    InForce {
        /// It.
        assignment: Arc<Assignment>,
        /// A manager sent it; it is not from disk.
        is_manager_s: bool,
    },
}

/// What an agent begins with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node.
    pub node: NodeId,
    /// What it is like.
    pub facts: Facts,
    /// What it says of itself.
    pub description: NodeDescription,
    /// What an earlier run left.
    pub on_disk: OnDisk,
}

/// The core.
#[derive(Debug)]
pub struct Agent {
    worker: Worker,
    session: Session,
    passes: Passes,
    disk: Disk,
    looks: Looks,
    published: Published,
    /// When the assignment came that is still being written.
    arrived: Option<Duration>,
}

impl Agent {
    /// Begins with the assignment that was in force last, if the disk has it. The first step, of
    /// whatever input, carries it out.
    #[must_use]
    pub fn new(config: Config, at: Moment) -> Self {
        let Config { node, facts, description, on_disk } = config;
        let mut worker = Worker::new(node, facts.gwbridge);
        if let Some(held) = &on_disk.assignment {
            let assignment = Arc::clone(&held.assignment);
            // Nothing is launched before the tasks that run are known.
            let commands =
                worker.step(worker::Input::Assignment { assignment, from_manager: false }, at);
            debug_assert!(commands.is_empty(), "{commands:?}");
        }
        Self {
            worker,
            session: Session::new(description, on_disk.assignment.clone()),
            published: Published::new(facts.vtep),
            passes: Passes::new(facts),
            disk: Disk::new(on_disk),
            looks: Looks::default(),
            arrived: None,
        }
    }

    /// Takes an input; returns what is to be done.
    pub fn step(&mut self, input: Input, at: Moment) -> Vec<Output> {
        if let Input::Watched(Ok(answer)) = &input {
            self.arrived = Some(answer.arrived);
        }
        let inputs = self.take(input, at);
        let is_overdue = self.disk.becomes_overdue(at.now);
        let inputs = inputs.or_else(|| is_overdue.then(Vec::new));
        let mut outputs = inputs.map(|inputs| self.work(inputs, at)).unwrap_or_default();
        let session = &self.session;
        outputs.extend(self.passes.due(|assignment| session.digest_of(assignment), at.now));
        outputs.extend(self.looks.due(&self.worker, at.now));
        let (applied, worker) = (self.passes.applied(), &self.worker);
        // The next assignment is asked for once the disk has this one.
        if !self.disk.is_behind(worker) {
            outputs.extend(self.session.due_watch(at.now).map(Output::Watch));
        }
        let report = self.session.due_report(applied, || worker.statuses(), at.now);
        outputs.extend(report.map(|report| Output::Report(Box::new(report))));
        outputs
    }

    /// Has the worker look, and the parts that follow it.
    fn work(&mut self, inputs: Vec<worker::Input>, at: Moment) -> Vec<Output> {
        let steps = inputs.into_iter().flat_map(|input| self.worker.step(input, at));
        let mut commands: Vec<Command> = steps.collect();
        let (due, instead) = self.worker.still_due(self.disk.released(), at);
        commands.extend(instead);
        let mut outputs: Vec<Output> = due.into_iter().map(Output::Task).collect();
        outputs.extend(self.disk.before((&self.worker, &self.session), commands, at.now));
        if !self.disk.is_behind(&self.worker) {
            self.passes.follow(&self.worker, self.arrived.take(), at.now);
            let is_manager_s = self.is_manager_s();
            outputs.extend(self.published.news(&self.worker, is_manager_s));
        }
        outputs
    }

    /// Gives an input to the part that it is for; what of it is for the worker, if it has to look.
    fn take(&mut self, input: Input, at: Moment) -> Option<Vec<worker::Input>> {
        use worker::Input as Work;
        let now = at.now;
        let work = match input {
            Input::Adopted(found) => Work::Adopted(found),
            Input::Task(id, event) => Work::Task(id, event),
            Input::Listening(tasks) => {
                self.looks.looked();
                return Some(tasks.into_iter().map(Work::Listens).collect());
            }
            Input::NotDone { command, error } => Work::NotDone { command, error },
            Input::StopAll => Work::StopAll,
            Input::Tick => Work::Tick,
            Input::Watched(answer) => {
                let news = self.session.watched(answer.as_ref().map_err(|missed| *missed), now);
                let time = answer.ok().map(|answer| Work::LeaderTime(answer.time));
                let assignment = news.assignment;
                let assignment = assignment
                    .map(|assignment| Work::Assignment { assignment, from_manager: true });
                let released = news.released.map(Work::Released);
                return Some(time.into_iter().chain(assignment).chain(released).collect());
            }
            Input::Reported(heard_by) => Work::Reported(self.session.reported(heard_by, now)),
            Input::Passed(Passed { report, refused, has_withheld }) => {
                let outcome = self.passes.passed(&report, has_withheld, now);
                let (ready, failed) = (outcome.ready, outcome.failed);
                return Some(vec![Work::Refused(refused), Work::Programmed { ready, failed }]);
            }
            Input::Trusts(trust) => {
                self.session.trusts(trust);
                return None;
            }
            Input::Machine { routes, underlay_mtu } => {
                self.session.machine(routes, underlay_mtu);
                if let Some(mtu) = underlay_mtu {
                    self.passes.underlay_mtu(mtu, now);
                }
                return None;
            }
            Input::View { view, since } => {
                self.passes.take_view(view, since);
                return None;
            }
            Input::Disturbed(disturbed) => {
                self.passes.disturbed(disturbed);
                return None;
            }
            Input::PortsLookedAt(have_changed) => {
                self.passes.looked_at_ports(have_changed, now);
                return None;
            }
            Input::Inspected => {
                self.passes.inspected(now);
                return None;
            }
            // The worker has nothing to do with it, but its commands wait.
            Input::Written(done) => {
                self.disk.written(done, now);
                return Some(Vec::new());
            }
        };
        Some(vec![work])
    }

    fn is_manager_s(&self) -> bool {
        let assignment = self.worker.assignment();
        assignment.is_some_and(|assignment| self.session.digest_of(assignment).is_some())
    }

    /// When [`Agent::step`] wants to be called with a tick at the latest.
    #[must_use]
    pub fn next_deadline(&self, at: Moment) -> Option<Duration> {
        let parts = [
            self.worker.next_deadline(at),
            self.session.next_deadline(!self.disk.is_behind(&self.worker)),
            self.passes.next_deadline(at.now),
            self.disk.next_deadline(),
            self.looks.next_deadline(&self.worker),
        ];
        parts.into_iter().flatten().min()
    }

    /// Whether [`Input::Disturbed`] is of use now.
    #[must_use]
    pub fn hears_drift(&self, now: Duration) -> bool {
        self.passes.hears_drift(now)
    }

    /// What is known of the node's tasks.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// How late changes are.
    #[must_use]
    pub fn lateness(&self) -> &Lateness {
        self.passes.lateness()
    }

    /// The last report of a daemon that restarts.
    #[must_use]
    pub fn last_report(&self) -> Report {
        let (applied, statuses) = (self.passes.applied(), self.worker.statuses());
        Report { applied, statuses, description: None }
    }
}
