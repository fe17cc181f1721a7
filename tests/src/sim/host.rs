//! One node: a machine with a kernel, a disk and tasks, and a daemon that may be dead.
//!
//! What the daemon's shell does around the worker is here, as `node/src/worker/shell.rs` does it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::assignment::Assignment;
use cluster::id::{NodeId, TaskId};
use cluster::net::Subnet;
use cluster::view::{EndpointKey, EndpointRow, View, VtepRow};
use gossip::{Config, Engine, Keyring};
use netprog::fake::FakeKernel;
use rand::RngExt as _;
use skein::member::gossip_peers;
use skein::wire::Digest;
use skein::worker::{Adopted, Input, Worker};

use super::Plant;
use super::executor::Executor;
use super::network::{address, secret};
use super::raft::CLUSTER;
use super::session::{Report, Watch};
use super::world::{Event, World};

/// Every node's egress bridge.
const GWBRIDGE: ([u8; 4], u8) = ([172, 18, 0, 0], 16);

/// One node.
pub(super) struct Host {
    pub(super) id: NodeId,
    /// Counts starts of the machine: what an earlier one had under way never comes.
    pub(super) boot: u64,
    pub(super) powered: bool,
    pub(super) kernel: FakeKernel,
    pub(super) executor: Executor,
    pub(super) disk: Disk,
    pub(super) daemon: Option<Daemon>,
}

/// What outlives everything.
#[derive(Debug, Default)]
pub(super) struct Disk {
    starts: u64,
    assignment: Option<Arc<Assignment>>,
    egress: BTreeMap<TaskId, IpAddr>,
}

/// The daemon's cores and what its shell keeps between them.
pub(super) struct Daemon {
    /// Counts starts of the daemon: what was meant for an earlier one is lost.
    pub(super) run: u64,
    pub(super) worker: Worker,
    pub(super) engine: Option<Engine>,
    pub(super) engine_deadline: Option<Duration>,
    pub(super) view: Arc<View>,
    /// The newest assignment of a manager, with its digest.
    pub(super) received: Option<(Digest, Arc<Assignment>)>,
    /// The assignment of which gossip knows the peers.
    told: Option<Arc<Assignment>>,
    pub(super) wanted: Wanted,
    pub(super) pass_pending: bool,
    pub(super) passes: u64,
    /// The assignment that the kernel holds.
    pub(super) applied: Option<Digest>,
    pub(super) watch: Watch,
    pub(super) released: BTreeSet<TaskId>,
    pub(super) report: Report,
    worker_deadline: Option<Duration>,
    /// Rows of a planted bug.
    kept: BTreeMap<EndpointKey, EndpointRow>,
}

/// Everything that a pass is made from.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) assignment: Option<(Option<Digest>, Arc<Assignment>)>,
    pub(super) sandboxes: BTreeMap<TaskId, netprog::local::LocalSandbox>,
    pub(super) knows_tasks: bool,
}

/// The prefix of the egress bridge.
pub(super) fn gwbridge() -> Option<Subnet> {
    Subnet::holding(IpAddr::from(GWBRIDGE.0), GWBRIDGE.1).ok()
}

impl Host {
    pub(super) fn new(number: u8) -> Self {
        Self {
            id: NodeId(number.into()),
            boot: 0,
            powered: false,
            kernel: FakeKernel::new(),
            executor: Executor::default(),
            disk: Disk::default(),
            daemon: None,
        }
    }

    /// The next thing that its daemon wants to do by itself; true for the worker.
    pub(super) fn next_deadline(&self) -> Option<(Duration, bool, NodeId)> {
        let engine = self.daemon.as_ref()?.engine_deadline.map(|at| (at, false, self.id));
        let worker = self.worker_deadline().map(|at| (at, true, self.id));
        engine.into_iter().chain(worker).min()
    }

    pub(super) fn worker_deadline(&self) -> Option<Duration> {
        self.daemon.as_ref()?.worker_deadline
    }
}

impl Daemon {
    fn new(node: NodeId, run: u64, gwbridge: Subnet) -> Self {
        Self {
            run,
            worker: Worker::new(node, gwbridge),
            engine: None,
            engine_deadline: None,
            view: Arc::default(),
            received: None,
            told: None,
            wanted: Wanted::default(),
            pass_pending: false,
            passes: 0,
            applied: None,
            watch: Watch::Broken,
            released: BTreeSet::new(),
            report: Report::default(),
            worker_deadline: None,
            kept: BTreeMap::new(),
        }
    }

    /// Whether what is wanted of the kernel changed.
    fn renew_wanted(&mut self) -> bool {
        let assignment = self.worker.assignment().map(|assignment| {
            let of_manager = self.received.as_ref().filter(|(_, a)| Arc::ptr_eq(a, assignment));
            (of_manager.map(|(digest, _)| *digest), Arc::clone(assignment))
        });
        let (sandboxes, knows_tasks) = (self.worker.local(), self.worker.knows_all());
        let same = self.wanted.sandboxes == sandboxes
            && self.wanted.knows_tasks == knows_tasks
            && match (&self.wanted.assignment, &assignment) {
                (Some((_, a)), Some((_, b))) => Arc::ptr_eq(a, b),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
        self.wanted = Wanted { assignment, sandboxes, knows_tasks };
        !same
    }

    /// What gossip is to be told, in order.
    fn news_for_gossip(&mut self, node: NodeId, plant: Plant) -> Vec<gossip::Input> {
        let Some(assignment) = self.worker.assignment().cloned() else { return Vec::new() };
        let mut news = Vec::new();
        if self.told.as_ref().is_none_or(|told| !Arc::ptr_eq(told, &assignment)) {
            let keys = &assignment.gossip_keys;
            let primary = keys.first().map_or(0, |key| key.id);
            let all = keys.iter().map(|key| (key.id, key.key)).collect();
            let ring = Keyring::new(primary, &all).ok().map(gossip::Input::Keys);
            let kept = plant == Plant::KeptKey && node == NodeId(3) && self.engine.is_some();
            news.extend(ring.filter(|_| !kept));
            news.push(gossip::Input::Peers(gossip_peers(&assignment)));
            self.told = Some(assignment);
        }
        if let Some(mut endpoints) = self.worker.own_rows() {
            if plant == Plant::KeptRow && node == NodeId(1) {
                let mut kept = self.kept.clone();
                kept.append(&mut endpoints);
                self.kept.clone_from(&kept);
                endpoints = kept;
            }
            let vtep = VtepRow { address: address(node).ip() };
            news.push(gossip::Input::Own { endpoints, vtep });
        }
        news
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
        host.kernel = FakeKernel::new();
        self.start_daemon(node);
    }

    /// The machine dies: all but its disk is gone.
    pub(super) fn crash(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.powered = false;
        host.boot += 1;
        host.daemon = None;
        host.kernel = FakeKernel::new();
        let records_stay = self.chance.random_bool(0.5);
        host.executor.lose_all(records_stay);
    }

    /// The daemon dies: tasks, kernel and disk stay as they are at this moment.
    pub(super) fn kill_daemon(&mut self, node: NodeId) {
        if self.chance.random_bool(0.5) {
            self.half_a_pass(node);
        }
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.daemon = None;
        let chance = &mut self.chance;
        // A supervisor that was being made is there, or it is not.
        for task in host.executor.settle_launches(|| chance.random_bool(0.5)) {
            host.kernel.create_sandbox(task);
        }
    }

    /// Starts a daemon, if there is none.
    pub(super) fn start_daemon(&mut self, node: NodeId) {
        let Some(gwbridge) = gwbridge() else { return };
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if host.daemon.is_some() || !host.powered {
            return;
        }
        host.disk.starts += 1;
        let run = host.disk.starts;
        host.daemon = Some(Daemon::new(node, run, gwbridge));
        let (saved, egress) = (host.disk.assignment.clone(), host.disk.egress.clone());
        let found = host.executor.reports().into_iter().map(|(id, event)| {
            let egress = egress.get(&id).copied();
            (id, Adopted { egress, event })
        });
        let found: BTreeMap<TaskId, Adopted> = found.collect();
        if let Some(assignment) = saved {
            self.worker_input(node, Input::Assignment { assignment, from_manager: false });
        }
        self.worker_input(node, Input::Adopted(found));
        self.after(Duration::ZERO, Event::Watch { node, run });
        self.after(Duration::ZERO, Event::ReportDue { node, run, turn: 0 });
    }

    /// Steps a node's worker and carries out what it wants done.
    pub(super) fn worker_input(&mut self, node: NodeId, input: Input) {
        let (now, wall) = (self.now, self.wall());
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(daemon) = &mut host.daemon else { return };
        if let Input::Assignment { assignment, from_manager: true } = &input {
            host.disk.assignment = Some(Arc::clone(assignment));
        }
        let commands = daemon.worker.step(input, now, wall);
        host.disk.egress = daemon.worker.egress_addresses();
        daemon.worker_deadline = daemon.worker.next_deadline(now, wall);
        for command in commands {
            self.carry_out(node, command);
        }
        self.publish(node);
    }

    /// The readings of the worker, each to where it is wanted.
    fn publish(&mut self, node: NodeId) {
        let plant = self.plant;
        let Some(daemon) = self.daemon(node) else { return };
        let renewed = daemon.renew_wanted();
        let news = daemon.news_for_gossip(node, plant);
        if renewed {
            self.pass_soon(node);
        }
        for input in news {
            self.tell_gossip(node, input);
        }
        self.report_if_news(node);
    }

    /// The engine begins with the first keys: without them nobody could be understood.
    fn tell_gossip(&mut self, node: NodeId, input: gossip::Input) {
        let (now, seed) = (self.now, self.seed);
        let Some(daemon) = self.daemon(node) else { return };
        match (&daemon.engine, input) {
            (None, gossip::Input::Keys(keys)) => {
                let (run, secret) = (daemon.run, secret(node));
                let config = Config::lan(node, CLUSTER, address(node), run, seed, secret);
                let engine = Engine::new(config, keys, now);
                daemon.engine_deadline = engine.next_deadline();
                daemon.engine = Some(engine);
                self.view_changed(node);
            }
            (_, input) => self.gossip_input(node, input),
        }
    }

    pub(super) fn view_changed(&mut self, node: NodeId) {
        if self.plant == Plant::LostDoorbell && node == NodeId(3) && self.calm {
            return;
        }
        let Some(daemon) = self.daemon(node) else { return };
        let Some(engine) = &daemon.engine else { return };
        daemon.view = engine.view();
        self.pass_soon(node);
    }

    pub(super) fn daemon(&mut self, node: NodeId) -> Option<&mut Daemon> {
        self.hosts.get_mut(&node)?.daemon.as_mut()
    }

    /// The daemon, if it is still the same one.
    pub(super) fn daemon_of_run(&mut self, node: NodeId, run: u64) -> Option<&mut Daemon> {
        self.daemon(node).filter(|daemon| daemon.run == run)
    }
}
