//! One node: a machine with a kernel, a disk and tasks, and a daemon that may be dead or paused.
//!
//! The daemon is the core of the product, [`Agent`]; this is its shell in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::{Adopted, Agent, Config, Files, Input, Moment, OnDisk, Output, Pass, WRITE_LIMIT};
use cluster::assign::Held;
use cluster::id::{NodeId, TaskId};
use cluster::net::Subnet;
use cluster::object::NodeDescription;
use cluster::view::{EndpointKey, EndpointRow, View};
use gossip::Engine;
use netprog::plane::Place;
use netprog::programmer::Programmer;
use rand::RngExt as _;
use skein::pki::digest_of;

use super::PlantedBug;
use super::executor::Executor;
use super::network::{address, secret};
use super::pass::{SharedKernel, facts};
use super::raft::{CLUSTER, description};
use super::session::Watching;
use super::world::{Event, World};

/// Every node's egress bridge.
const GWBRIDGE: ([u8; 4], u8) = ([172, 18, 0, 0], 16);

/// One node.
pub(super) struct Host {
    pub(super) id: NodeId,
    /// Counts starts of the machine: what an earlier one had under way never comes.
    pub(super) boot: u64,
    pub(super) powered: bool,
    pub(super) kernel: SharedKernel,
    /// Places that another program changed and no pass has read since.
    pub(super) drifted: BTreeSet<Place>,
    /// Of those, the ones that the daemon could hear of.
    pub(super) bell: BTreeSet<Place>,
    pub(super) executor: Executor,
    pub(super) disk: Disk,
    /// What the machine is like now.
    pub(super) description: NodeDescription,
    pub(super) daemon: Option<Daemon>,
    /// Until when its daemon does not run, though it lives.
    pub(super) paused_until: Option<Duration>,
}

/// How many of all writes take long.
const SLOW_WRITES: f64 = 0.02;

/// What outlives everything.
#[derive(Debug, Default)]
pub(super) struct Disk {
    starts: u64,
    pub(super) assignment: Option<Arc<Held>>,
    pub(super) egress: BTreeMap<TaskId, IpAddr>,
    /// It takes nothing.
    pub(super) is_full: bool,
    /// It has had room for so short a time that it may not have been tried again.
    pub(super) tried_by: Duration,
    /// What is being written.
    writing: Option<Files>,
    /// Since when the daemon waits to hear of a write.
    unheard_since: Option<Duration>,
    /// The daemon that died knew more: until a manager tells it again, the next one may launch what
    /// has ended.
    pub(super) is_outdated: bool,
}

impl Disk {
    /// Whether what depends on it need not wait for it.
    pub(super) fn holds_nothing_back(&self, now: Duration) -> bool {
        let is_overdue = self.unheard_since.is_some_and(|since| now >= since + WRITE_LIMIT);
        self.is_full || now < self.tried_by || is_overdue
    }

    /// Whether it has taken files.
    fn take(&mut self, files: Files) -> bool {
        if self.is_full {
            return false;
        }
        self.assignment = files.assignment.or(self.assignment.take());
        if let Some(egress) = files.egress {
            self.egress = egress;
        }
        true
    }

    /// A daemon died, if there was one: what it was writing is there, or it is not.
    fn settle(&mut self, daemon: Option<&Daemon>, is_there: bool) {
        self.unheard_since = None;
        if let Some(files) = self.writing.take().filter(|_| is_there) {
            self.take(files);
        }
        let Some(daemon) = daemon else { return };
        let known = daemon.agent.worker().assignment().map(|newest| newest.revision);
        let kept = self.assignment.as_ref().map(|held| held.assignment.revision);
        self.is_outdated |= kept < known;
    }
}

/// The daemon's cores, and what is under way for them.
pub(super) struct Daemon {
    /// Counts starts of the daemon: what was meant for an earlier one is lost.
    pub(super) run: u64,
    pub(super) agent: Agent,
    pub(super) programmer: Programmer<SharedKernel>,
    pub(super) engine: Option<Engine>,
    pub(super) engine_deadline: Option<Duration>,
    pub(super) view: Arc<View>,
    /// The pass under way.
    pub(super) pass: Option<Box<Pass>>,
    pub(super) watching: Watching,
    agent_deadline: Option<Duration>,
    /// Rows of a planted bug.
    kept: BTreeMap<EndpointKey, EndpointRow>,
    /// Addresses of the tasks that are to be found running, as the disk has them.
    to_adopt: BTreeMap<TaskId, IpAddr>,
}

/// The prefix of the egress bridge.
pub(super) fn gwbridge() -> Option<Subnet> {
    Subnet::holding(IpAddr::from(GWBRIDGE.0), GWBRIDGE.1).ok()
}

impl Host {
    pub(super) fn new(number: u8) -> Self {
        let id = NodeId(number.into());
        Self {
            id,
            boot: 0,
            powered: false,
            kernel: SharedKernel::default(),
            drifted: BTreeSet::new(),
            bell: BTreeSet::new(),
            executor: Executor::default(),
            disk: Disk::default(),
            description: description(id),
            daemon: None,
            paused_until: None,
        }
    }

    /// The next thing that its daemon wants to do by itself; true for the agent.
    pub(super) fn next_deadline(&self) -> Option<(Duration, bool, NodeId)> {
        let engine = self.daemon.as_ref()?.engine_deadline.map(|at| (at, false, self.id));
        let agent = self.agent_deadline().map(|at| (at, true, self.id));
        let next = engine.into_iter().chain(agent).min();
        next.map(|(at, is_agent, id)| (at.max(self.paused_until.unwrap_or(at)), is_agent, id))
    }

    pub(super) fn agent_deadline(&self) -> Option<Duration> {
        self.daemon.as_ref()?.agent_deadline
    }
}

impl World {
    /// Switches a machine on, if it is off, and starts its daemon.
    pub(super) fn boot(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if host.powered {
            return;
        }
        host.powered = true;
        host.boot += 1;
        host.kernel =
            SharedKernel::new(self.plant == PlantedBug::SkippedEntry && node == NodeId(2));
        host.drifted.clear();
        self.start_daemon(node);
    }

    /// The machine dies: all but its disk is gone.
    pub(super) fn crash(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.powered = false;
        host.boot += 1;
        let daemon = host.daemon.take();
        host.paused_until = None;
        host.kernel = SharedKernel::default();
        host.disk.settle(daemon.as_ref(), self.chance.random_bool(0.5));
        let records_stay = self.chance.random_bool(0.5);
        host.executor.lose_all(records_stay);
    }

    /// The daemon dies: tasks, kernel and disk stay as they are at this moment.
    pub(super) fn kill_daemon(&mut self, node: NodeId) {
        if self.chance.random_bool(0.5) {
            self.half_a_pass(node);
        }
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let daemon = host.daemon.take();
        host.paused_until = None;
        let chance = &mut self.chance;
        host.disk.settle(daemon.as_ref(), chance.random_bool(0.5));
        // A supervisor that was being made is there, or it is not.
        for task in host.executor.settle_launches(|| chance.random_bool(0.5)) {
            host.kernel.create_sandbox(task);
        }
    }

    /// Starts a daemon, if there is none.
    pub(super) fn start_daemon(&mut self, node: NodeId) {
        let (Some(gwbridge), at) = (gwbridge(), self.moment()) else { return };
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if host.daemon.is_some() || !host.powered {
            return;
        }
        host.disk.starts += 1;
        host.bell.clear();
        let run = host.disk.starts;
        let kept = host.disk.assignment.as_ref().map(|held| held.kept());
        let restored = kept.map(|kept| Held::restore(node, kept, digest_of)).transpose();
        let assignment = restored.unwrap_or_else(|error| {
            self.problems.push(format!("node {}: its last assignment: {error}", node.0));
            None
        });
        let (assignment, egress) = (assignment.map(Arc::new), host.disk.egress.clone());
        let config = Config {
            node,
            facts: facts(node, &host.description, gwbridge),
            description: host.description.clone(),
            on_disk: OnDisk { has_identity: true, assignment, egress: egress.clone() },
        };
        host.daemon = Some(Daemon {
            run,
            agent: Agent::new(config, at),
            programmer: Programmer::new(host.kernel.clone()),
            engine: None,
            engine_deadline: None,
            view: Arc::default(),
            pass: None,
            watching: Watching::Nothing,
            agent_deadline: None,
            kept: BTreeMap::new(),
            to_adopt: egress,
        });
        self.agent_input(node, Input::Tick);
        let pause = self.ms_between(0, 50);
        self.after(pause, Event::Adopt { node, run });
    }

    /// A daemon has found the tasks that run. What they say before that, it does not hear.
    pub(super) fn adopt(&mut self, node: NodeId, run: u64) {
        if self.daemon_of_run(node, run).is_none() {
            return;
        }
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(daemon) = &mut host.daemon else { return };
        let egress = std::mem::take(&mut daemon.to_adopt);
        let found = host.executor.reports().into_iter().map(|(id, event)| {
            let egress = egress.get(&id).copied();
            (id, Adopted { egress, event })
        });
        let found = found.collect();
        self.agent_input(node, Input::Adopted(found));
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now, wall: self.wall() }
    }

    /// Gives a node's agent an input, once its daemon runs, and does what it says.
    pub(super) fn agent_input(&mut self, node: NodeId, input: Input) {
        let at = self.moment();
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(daemon) = &mut host.daemon else { return };
        if let Some(until) = host.paused_until {
            let (run, input) = (daemon.run, Box::new(input));
            return self.after(until - at.now, Event::Input { node, run, input });
        }
        match &input {
            Input::Written(_) => host.disk.unheard_since = None,
            Input::Watched(Ok(_)) => host.disk.is_outdated = false,
            _ => {}
        }
        let outputs = daemon.agent.step(input, at);
        daemon.agent_deadline = daemon.agent.next_deadline(at);
        for output in outputs {
            self.carry_out(node, output);
        }
        self.answer_the_bell(node);
    }

    /// What comes for a daemon, if it is still the same one.
    pub(super) fn input_of_run(&mut self, node: NodeId, run: u64, input: Input) {
        if self.daemon_of_run(node, run).is_some() {
            self.agent_input(node, input);
        }
    }

    fn carry_out(&mut self, node: NodeId, output: Output) {
        match output {
            Output::Task(command) => self.command(node, command),
            Output::Write(files) => self.begin_write(node, files),
            Output::Watch(watch) => self.ask_watch(node, watch),
            Output::Report(report) => self.send_report(node, *report),
            Output::Pass(pass) => self.begin_pass(node, pass),
            Output::LookAtPorts => self.agent_input(node, Input::PortsLookedAt(false)),
            Output::LookForListeners(young) => {
                let Some(run) = self.daemon(node).map(|daemon| daemon.run) else { return };
                let input = Box::new(Input::Listening(young.into_keys().collect()));
                let pause = self.ms_between(1, 10);
                self.after(pause, Event::Input { node, run, input });
            }
            Output::Gossip(input) => self.tell_gossip(node, input),
            Output::NoKeys(error) => self.problems.push(format!("node {}: {error}", node.0)),
            Output::InForce { .. } => {}
        }
    }

    /// A disk takes its time, and now and then a long one.
    fn begin_write(&mut self, node: NodeId, files: Files) {
        let Some(run) = self.daemon(node).map(|daemon| daemon.run) else { return };
        let is_slow = !self.calm && self.chance.random_bool(SLOW_WRITES);
        let pause = if is_slow { self.ms_between(500, 4_000) } else { self.ms_between(1, 30) };
        let now = self.now;
        if let Some(host) = self.hosts.get_mut(&node) {
            (host.disk.writing, host.disk.unheard_since) = (Some(files), Some(now));
        }
        self.after(pause, Event::Write { node, run });
        if self.writes_late(node) {
            self.agent_input(node, Input::Written(true));
        }
    }

    fn writes_late(&self, node: NodeId) -> bool {
        self.plant == PlantedBug::LateWrite && node == NodeId(3)
    }

    /// The disk has taken files, or not.
    pub(super) fn end_write(&mut self, node: NodeId, run: u64) {
        if self.daemon_of_run(node, run).is_none() {
            return;
        }
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(files) = host.disk.writing.take() else { return };
        let written = host.disk.take(files);
        if !self.writes_late(node) {
            self.agent_input(node, Input::Written(written));
        }
    }

    /// The engine begins with the first keys: without them nobody could be understood.
    fn tell_gossip(&mut self, node: NodeId, input: gossip::Input) {
        let (now, seed, plant) = (self.now, self.seed, self.plant);
        let Some(daemon) = self.daemon(node) else { return };
        match (&daemon.engine, input) {
            (None, gossip::Input::Keys(keys)) => {
                let (run, secret) = (daemon.run, secret(node));
                let config = gossip::Config::lan(node, CLUSTER, address(node), run, seed, secret);
                let engine = Engine::new(config, keys, now);
                daemon.engine_deadline = engine.next_deadline();
                daemon.engine = Some(engine);
                self.view_changed(node);
            }
            (Some(_), gossip::Input::Keys(_))
                if plant == PlantedBug::KeptKey && node == NodeId(3) => {}
            (_, gossip::Input::Own { mut endpoints, vtep })
                if plant == PlantedBug::KeptRow && node == NodeId(1) =>
            {
                daemon.kept.append(&mut endpoints);
                let endpoints = daemon.kept.clone();
                self.gossip_input(node, gossip::Input::Own { endpoints, vtep });
            }
            (_, input) => self.gossip_input(node, input),
        }
    }

    pub(super) fn view_changed(&mut self, node: NodeId) {
        if self.plant == PlantedBug::LostDoorbell && node == NodeId(3) && self.calm {
            return;
        }
        let since = self.now;
        let Some(daemon) = self.daemon(node) else { return };
        let Some(engine) = &daemon.engine else { return };
        let view = engine.view();
        daemon.view = Arc::clone(&view);
        self.agent_input(node, Input::View { view, since });
    }

    pub(super) fn daemon(&mut self, node: NodeId) -> Option<&mut Daemon> {
        self.hosts.get_mut(&node)?.daemon.as_mut()
    }

    /// The daemon, if it is still the same one.
    pub(super) fn daemon_of_run(&mut self, node: NodeId, run: u64) -> Option<&mut Daemon> {
        self.daemon(node).filter(|daemon| daemon.run == run)
    }
}
