//! Faults: which kinds a run has and how hard they strike, and what each of them does.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use agent::Input;
use cluster::id::NodeId;
use netprog::op::{EntryOp, Op};
use netprog::plane::Place;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::network::{Network, address};
use super::session::Woken;
use super::world::{Event, World};
use super::{NODES, STORM};

/// Faults of one kind in a run.
const REPEATS_MAX: u32 = 3;
/// A disk that took nothing is tried again after this time, as the agent's; a write takes a moment.
const DISK_RETRY: Duration = Duration::from_millis(1_050);
/// The longest pause of a daemon: its lease ends meanwhile, and it counts as dead.
const PAUSE_MS_MAX: u64 = 8_000;

/// Something breaks, or is repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// These nodes are cut off: from their peers, from the managers, or from both.
    Cut { apart: BTreeSet<NodeId>, gossip: bool, sessions: bool },
    /// The partition heals.
    Heal,
    /// A machine dies.
    Crash(NodeId),
    /// It comes back.
    Boot(NodeId),
    /// A daemon is killed.
    Kill(NodeId),
    /// A daemon is stopped cleanly.
    Stop(NodeId),
    /// It comes back.
    Start(NodeId),
    /// The leader is gone.
    LeaderLost,
    /// Another one has been elected.
    LeaderBack,
    /// Another program removes one of our entries.
    Drift(NodeId),
    /// A daemon does not run for so long, though it lives.
    Pause(NodeId, Duration),
    /// A disk takes nothing.
    DiskFull(NodeId),
    /// It has room again.
    DiskRoom(NodeId),
    /// The machine's underlay has another MTU.
    Mtu(NodeId, u32),
}

/// What a seed draws for its run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Swarm {
    /// Share of datagrams that are lost, and share of those that come twice.
    pub(super) loss: f64,
    /// Delay of a message in microseconds: least and most.
    pub(super) delay_us: (u64, u64),
    /// Doorbell to pass in milliseconds, at most.
    pub(super) pass_ms: u64,
    /// Prefix length of subnets.
    pub(super) subnet_size: u8,
    /// Share of passes in which the kernel refuses an operation.
    pub(super) kernel_fault: f64,
    /// Share of tasks that end by themselves.
    pub(super) exit: f64,
    /// Share of tasks whose health check comes to fail.
    pub(super) failing: f64,
    /// Share of tasks with a health check.
    pub(super) checked: f64,
    /// Share of launches that fail.
    pub(super) reject: f64,
    /// A machine that dies for good.
    pub(super) lost: Option<NodeId>,
    /// Milliseconds between two requests of users, at most.
    pub(super) request_ms: u64,
    partitions: u32,
    crashes: u32,
    kills: u32,
    stops: u32,
    elections: u32,
    drifts: u32,
    pauses: u32,
    full_disks: u32,
    mtus: u32,
}

fn one_of<T: Copy>(rng: &mut StdRng, choices: &[T]) -> Option<T> {
    choices.get(rng.random_range(0..choices.len())).copied()
}

/// How often a kind of fault occurs: in half of the runs never.
fn times(rng: &mut StdRng) -> u32 {
    if rng.random_bool(0.5) { rng.random_range(1..=REPEATS_MAX) } else { 0 }
}

fn share(rng: &mut StdRng, most: f64) -> f64 {
    if rng.random_bool(0.5) { rng.random_range(0.0..most) } else { 0.0 }
}

fn some_node(rng: &mut StdRng) -> NodeId {
    NodeId(rng.random_range(1..=NODES).into())
}

impl Swarm {
    pub(super) fn draw(rng: &mut StdRng) -> Self {
        Self {
            loss: one_of(rng, &[0.0, 0.01, 0.05]).unwrap_or_default(),
            delay_us: one_of(rng, &[(200, 800), (200, 5_000), (1_000, 30_000)])
                .unwrap_or((200, 800)),
            pass_ms: one_of(rng, &[20, 100, 400]).unwrap_or(20),
            subnet_size: one_of(rng, &[24, 26]).unwrap_or(24),
            kernel_fault: share(rng, 0.3),
            exit: share(rng, 0.4),
            failing: share(rng, 0.2),
            checked: share(rng, 1.0),
            reject: share(rng, 0.2),
            lost: rng.random_bool(0.3).then(|| some_node(rng)),
            request_ms: one_of(rng, &[1_000, 2_000, 4_000]).unwrap_or(2_000),
            partitions: times(rng),
            crashes: times(rng),
            kills: times(rng),
            stops: times(rng),
            elections: times(rng),
            drifts: times(rng),
            pauses: times(rng),
            full_disks: times(rng),
            mtus: times(rng),
        }
    }

    /// When what happens.
    pub(super) fn schedule(&self, rng: &mut StdRng) -> Vec<(Duration, Fault)> {
        let storm = u64::try_from(STORM.as_millis()).unwrap_or(u64::MAX);
        let mut faults = Vec::new();
        let moment = |rng: &mut StdRng| Duration::from_millis(rng.random_range(2_000..storm));
        let lasts = |rng: &mut StdRng, most: u64| Duration::from_millis(rng.random_range(50..most));
        for _ in 0..self.partitions {
            let apart = (0..rng.random_range(1..=2)).map(|_| some_node(rng)).collect();
            let kind = rng.random_range(0..3);
            let at = moment(rng);
            faults.push((at, Fault::Cut { apart, gossip: kind != 1, sessions: kind != 2 }));
            faults.push((at + lasts(rng, 8_000), Fault::Heal));
        }
        let mut breaks =
            |times: u32, most: u64, first: fn(NodeId) -> Fault, then: fn(NodeId) -> Fault| {
                for _ in 0..times {
                    let (node, at) = (some_node(rng), moment(rng));
                    faults.push((at, first(node)));
                    faults.push((at + lasts(rng, most), then(node)));
                }
            };
        breaks(self.crashes, 8_000, Fault::Crash, Fault::Boot);
        breaks(self.kills, 4_000, Fault::Kill, Fault::Start);
        breaks(self.stops, 4_000, Fault::Stop, Fault::Start);
        breaks(self.elections, 6_000, |_| Fault::LeaderLost, |_| Fault::LeaderBack);
        breaks(self.full_disks, 5_000, Fault::DiskFull, Fault::DiskRoom);
        for _ in 0..self.drifts {
            faults.push((moment(rng), Fault::Drift(some_node(rng))));
        }
        for _ in 0..self.pauses {
            let (node, at) = (some_node(rng), moment(rng));
            faults.push((at, Fault::Pause(node, lasts(rng, PAUSE_MS_MAX))));
        }
        for _ in 0..self.mtus {
            let mtu = one_of(rng, &[1_400, 1_450, 1_500, 9_000]).unwrap_or(1_500);
            faults.push((moment(rng), Fault::Mtu(some_node(rng), mtu)));
        }
        if let Some(node) = self.lost {
            faults.push((moment(rng), Fault::Crash(node)));
        }
        faults
    }
}

impl fmt::Display for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { loss, delay_us, pass_ms, kernel_fault, exit, failing, reject, lost, .. } = self;
        write!(f, "loss {loss} delay {delay_us:?} us pass {pass_ms} ms kernel {kernel_fault:.2} ")?;
        write!(f, "exit {exit:.2} failing {failing:.2} reject {reject:.2} ")?;
        if let Some(node) = lost {
            write!(f, "lost {} ", node.0)?;
        }
        let Self { partitions, crashes, kills, stops, elections, drifts, .. } = self;
        write!(f, "partitions {partitions} crashes {crashes} kills {kills} stops {stops} ")?;
        let Self { pauses, full_disks, mtus, .. } = self;
        write!(f, "elections {elections} drifts {drifts} pauses {pauses} ")?;
        write!(f, "full disks {full_disks} mtus {mtus}")
    }
}

impl World {
    pub(super) fn serve_fault(&mut self, fault: Fault) {
        // A machine that is lost for good never comes back, whatever else was to happen to it.
        if let Fault::Boot(node) = fault
            && self.swarm.lost == Some(node)
            && self.is_lost(node)
        {
            return;
        }
        self.tell(format!("{fault:?}"));
        match fault {
            Fault::Cut { apart, gossip, sessions } => {
                self.network = Network::cut(apart, gossip, sessions);
            }
            Fault::Heal => self.network = Network::default(),
            Fault::Crash(node) => self.crash(node),
            Fault::Boot(node) => self.boot(node),
            Fault::Kill(node) => self.kill_daemon(node),
            Fault::Stop(node) => self.stop(node),
            Fault::Start(node) => self.start_daemon(node),
            Fault::LeaderLost => {
                if self.leader.available {
                    (self.leader.available, self.leader.lost_at) = (false, self.now);
                }
            }
            Fault::LeaderBack => self.leader_back(),
            Fault::Drift(node) => self.drift(node),
            Fault::Pause(node, pause) => self.pause(node, pause),
            Fault::DiskFull(node) => self.set_disk_full(node, true),
            Fault::DiskRoom(node) => self.set_disk_full(node, false),
            Fault::Mtu(node, mtu) => self.set_mtu(node, mtu),
        }
    }

    /// Managers are a majority again, with another leader or with the same one.
    fn leader_back(&mut self) {
        if self.leader.available {
            return;
        }
        (self.leader.available, self.leader.back_at) = (true, self.now);
        if self.chance.random_bool(0.5) {
            self.leader.lost = self.leader.lost.wrapping_add(1);
            self.leader.core.resign();
            self.leader.core.take_over(&self.leader.state, self.now);
        }
        self.ring_soon(Woken::ByTheState);
    }

    fn is_lost(&self, node: NodeId) -> bool {
        self.hosts.get(&node).is_some_and(|host| !host.powered)
    }

    /// Peers are told that the daemon restarts, and so is the leader, by its last report.
    fn stop(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get(&node) else { return };
        let Some(daemon) = host.daemon.as_ref().filter(|_| host.paused_until.is_none()) else {
            return self.kill_daemon(node);
        };
        let (run, last) = (daemon.run, daemon.agent.last_report());
        self.gossip_input(node, gossip::Input::Restarting);
        self.kill_daemon(node);
        if self.leader.available && self.network.reaches_managers(node) {
            self.hear_report((node, run), address(node).ip(), last, true);
        }
    }

    /// What it would do meanwhile it does afterwards.
    fn pause(&mut self, node: NodeId, pause: Duration) {
        let until = self.now + pause;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(daemon) = &host.daemon else { return };
        let run = daemon.run;
        if host.paused_until.is_none() {
            host.paused_until = Some(until);
            self.after(pause, Event::Resume { node, run });
        }
    }

    pub(super) fn resume(&mut self, node: NodeId, run: u64) {
        if self.daemon_of_run(node, run).is_some()
            && let Some(host) = self.hosts.get_mut(&node)
        {
            host.paused_until = None;
        }
    }

    pub(super) fn set_disk_full(&mut self, node: NodeId, is_full: bool) {
        let tried_by = self.now + DISK_RETRY;
        if let Some(host) = self.hosts.get_mut(&node)
            && host.disk.is_full != is_full
        {
            (host.disk.is_full, host.disk.tried_by) = (is_full, tried_by);
        }
    }

    /// A daemon that runs notices.
    fn set_mtu(&mut self, node: NodeId, mtu: u32) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.description.underlay_mtu = Some(mtu);
        self.agent_input(node, Input::Machine { routes: Vec::new(), underlay_mtu: Some(mtu) });
    }

    /// Another program removes the first forwarding entry of a random fabric, which the kernel may
    /// tell or not.
    fn drift(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let contents = host.kernel.contents();
        let entries = contents.spaces.iter().filter_map(|(place, space)| {
            let key = space.fdb.keys().next().filter(|_| matches!(place, Place::Fabric(_)))?;
            Some(Op::new(*place, EntryOp::DeleteFdb(key.clone())))
        });
        let entries: Vec<Op> = entries.collect();
        drop(contents);
        if entries.is_empty() {
            return;
        }
        let chosen = self.chance.random_range(0..entries.len());
        if let Some(op) = entries.get(chosen) {
            // What is not there cannot be removed, which is no matter.
            let _ = host.kernel.interfere(op);
            host.drifted.insert(op.place);
            if self.chance.random_bool(0.5) {
                host.bell.insert(op.place);
                self.answer_the_bell(node);
            }
        }
    }
}
