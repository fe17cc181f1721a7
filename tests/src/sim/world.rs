//! The world: everything there is, the queue of what will happen, and the clock.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use agent::{Input, Report};
use cluster::id::NodeId;
use cluster::time::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::executor::Step;
use super::faults::{Fault, Swarm};
use super::host::Host;
use super::managers::Managers;
use super::members::Change;
use super::network::{Network, Packet};
use super::raft::Leader;
use super::session::{WatchNews, Woken};
use super::trust::Trust;
use super::{EVENTS_MAX, Failure, Members, NODES, PlantedBug, Summary};

/// Wall time at the start of every run.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// Lines of the story that are kept.
const STORY_MAX: usize = 80;

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Event {
    /// Gossip arrives.
    Packet { from: NodeId, to: NodeId, packet: Packet },
    /// A pass comes to its end.
    Pass { node: NodeId, run: u64 },
    /// Something comes for a daemon, if it is still the same one.
    Input { node: NodeId, run: u64, input: Box<Input> },
    /// A daemon has found the tasks that run.
    Adopt { node: NodeId, run: u64 },
    /// A disk has taken what a daemon wrote, or not.
    Write { node: NodeId, run: u64 },
    /// The same for its gossip.
    Gossip { node: NodeId, run: u64, input: Box<gossip::Input> },
    /// A daemon that was paused goes on.
    Resume { node: NodeId, run: u64 },
    /// The executor did something.
    Task { node: NodeId, boot: u64, task: cluster::id::TaskId, step: Step },
    /// The leader looks at the watches that wait.
    Ring,
    /// The leader's answer to a watch arrives.
    Assigned { node: NodeId, run: u64, news: WatchNews },
    /// A report arrives at the leader.
    Report { node: NodeId, run: u64, from: IpAddr, report: Box<Report> },
    /// The leader's answer to a report arrives; or it is noticed that there is none.
    Reported { node: NodeId, run: u64, heard_by: Option<SocketAddr> },
    /// The leader looks at the leases.
    Leases,
    /// The leader's planner looks at what is due by time.
    Plan,
    /// A user asks for something.
    Request,
    /// Something breaks, or is repaired.
    Fault(Fault),
    /// A manager looks at Raft's members and the key of gossip, the others at the log.
    Managers,
    /// Who is a member and a manager changes.
    Change(Change),
}

/// Everything.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) members: Members,
    pub(super) plant: PlantedBug,
    pub(super) swarm: Swarm,
    pub(super) now: Duration,
    /// Delays and losses.
    pub(super) chance: StdRng,
    /// What users ask for.
    pub(super) wishes: StdRng,
    /// What becomes of members and managers.
    pub(super) moves: StdRng,
    pub(super) leader: Leader,
    pub(super) managers: Managers,
    pub(super) trust: Trust,
    pub(super) hosts: BTreeMap<NodeId, Host>,
    pub(super) network: Network,
    pub(super) ringing: Option<Woken>,
    /// No new faults any more.
    pub(super) calm: bool,
    pub(super) passes: u64,
    pub(super) problems: Vec<String>,
    queue: BTreeMap<(Duration, u64), Event>,
    drawn: String,
    number: u64,
    events: u64,
    trace: u64,
    story: VecDeque<String>,
}

impl World {
    pub(super) fn new(seed: u64, members: Members, plant: PlantedBug) -> Self {
        let stream = |number: u64| StdRng::seed_from_u64(seed ^ (number << 56));
        let swarm = Swarm::draw(&mut stream(1));
        let drawn = swarm.to_string();
        let hosts = (1..=NODES).map(|n| (NodeId(n.into()), Host::new(n))).collect();
        Self {
            seed,
            members,
            plant,
            swarm,
            now: Duration::ZERO,
            chance: stream(2),
            wishes: stream(3),
            moves: stream(6),
            leader: Leader::new(stream(4)),
            managers: Managers::default(),
            trust: Trust::default(),
            hosts,
            network: Network::default(),
            ringing: None,
            calm: false,
            passes: 0,
            problems: Vec::new(),
            queue: BTreeMap::new(),
            drawn,
            number: 0,
            events: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            story: VecDeque::new(),
        }
    }

    /// Makes the cluster, starts every node, and lays out workload and faults.
    pub(super) fn begin(&mut self) {
        self.found_cluster();
        let nodes: Vec<NodeId> = self.hosts.keys().copied().collect();
        for node in nodes {
            self.boot(node);
        }
        self.after(Duration::ZERO, Event::Leases);
        self.after(Duration::ZERO, Event::Plan);
        let faults = self.swarm.schedule(&mut StdRng::seed_from_u64(self.seed ^ (5 << 56)));
        for (at, fault) in faults {
            self.after(at, Event::Fault(fault));
        }
        self.schedule_requests();
        if self.members == Members::Changing {
            self.seat_managers();
            self.schedule_changes();
        }
    }

    /// Faults end, and what they broke is repaired, but for machines that are lost for good.
    pub(super) fn calm_down(&mut self) {
        self.tell("calm".to_owned());
        self.calm = true;
        self.network = Network::default();
        self.swarm.loss = 0.0;
        if !self.leader.available {
            self.serve_fault(Fault::LeaderBack);
        }
        let lost = self.swarm.lost;
        let nodes: Vec<NodeId> =
            self.hosts.keys().copied().filter(|node| Some(*node) != lost).collect();
        for node in nodes {
            self.set_disk_full(node, false);
            self.boot(node);
            self.start_daemon(node);
        }
        self.last_wishes();
    }

    pub(super) fn wall(&self) -> Timestamp {
        let ms = u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX);
        Timestamp(EPOCH_MS.saturating_add(ms))
    }

    pub(super) fn after(&mut self, delay: Duration, event: Event) {
        self.number += 1;
        self.queue.insert((self.now + delay, self.number), event);
    }

    /// A random time between two numbers of milliseconds.
    pub(super) fn ms_between(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.chance.random_range(from * 1_000..=to * 1_000))
    }

    /// How long a message is under way.
    pub(super) fn delay(&mut self) -> Duration {
        let (from, to) = self.swarm.delay_us;
        Duration::from_micros(self.chance.random_range(from..=to))
    }

    /// A line of the story of this run.
    pub(super) fn tell(&mut self, line: String) {
        if self.story.len() == STORY_MAX {
            self.story.pop_front();
        }
        self.mix(line.as_bytes());
        self.story.push_back(format!("{:8.3} {line}", self.now.as_secs_f64()));
    }

    /// Serves everything up to a moment; what was found wrong on the way ends it.
    pub(super) fn run_until(&mut self, end: Duration) -> Result<(), Vec<String>> {
        while self.advance(end) {
            self.events += 1;
            if self.events > EVENTS_MAX {
                self.problems.push(format!("more than {EVENTS_MAX} events"));
            }
            if !self.problems.is_empty() {
                return Err(std::mem::take(&mut self.problems));
            }
        }
        Ok(())
    }

    /// Serves the earliest thing there is up to `end`; false if there is none.
    fn advance(&mut self, end: Duration) -> bool {
        let event = self.queue.first_key_value().map(|(key, _)| *key);
        let deadlines = self.hosts.values().filter_map(Host::next_deadline);
        let timer = deadlines.min();
        match (event, timer) {
            (Some(key), timer) if key.0 <= end && timer.is_none_or(|(at, ..)| key.0 <= at) => {
                self.now = self.now.max(key.0);
                if let Some(event) = self.queue.remove(&key) {
                    self.serve(event);
                }
                true
            }
            (_, Some((at, is_agent, node))) if at <= end => {
                self.now = self.now.max(at);
                self.mix(&[u8::from(is_agent), node.0 as u8]);
                if is_agent {
                    self.agent_input(node, Input::Tick);
                    self.check_agent_moves(node, at);
                } else {
                    self.gossip_input(node, gossip::Input::Timer);
                }
                true
            }
            (Some(_) | None, Some(_) | None) => {
                self.now = end;
                false
            }
        }
    }

    /// An agent that asks for a tick at a moment must not ask for it again and again.
    fn check_agent_moves(&mut self, node: NodeId, at: Duration) {
        let again = self.hosts.get(&node).and_then(|host| host.agent_deadline());
        if again.is_some_and(|again| again <= at) {
            self.problems.push(format!("node {}: a tick does not move the deadline", node.0));
        }
    }

    fn serve(&mut self, event: Event) {
        let at = u64::try_from(self.now.as_micros()).unwrap_or(u64::MAX);
        self.mix(&at.to_le_bytes());
        match event {
            Event::Packet { from, to, packet } => self.deliver(from, to, packet),
            Event::Pass { node, run } => self.serve_pass(node, run),
            Event::Input { node, run, input } => self.input_of_run(node, run, *input),
            Event::Adopt { node, run } => self.adopt(node, run),
            Event::Write { node, run } => self.end_write(node, run),
            Event::Gossip { node, run, input } => self.gossip_of_run(node, run, *input),
            Event::Resume { node, run } => self.resume(node, run),
            Event::Task { node, boot, task, step } => self.serve_task(node, boot, task, step),
            Event::Ring => self.ring(),
            Event::Assigned { node, run, news } => self.assigned(node, run, news),
            Event::Report { node, run, from, report } => {
                self.hear_report((node, run), from, *report, false);
            }
            Event::Reported { node, run, heard_by } => self.reported(node, run, heard_by),
            Event::Leases => self.look_at_leases(),
            Event::Plan => self.plan_due(),
            Event::Request => self.request(),
            Event::Fault(fault) => {
                if !self.calm {
                    self.serve_fault(fault);
                }
            }
            Event::Managers => self.look_at_managers(),
            Event::Change(change) => self.change_members(change),
        }
    }

    /// FNV-1a, which is no defence against anyone.
    pub(super) fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            seed: self.seed,
            swarm: self.drawn.clone(),
            took: self.now,
            events: self.events,
            passes: self.passes,
            revision: self.leader.state.revision.0,
            tasks: self.running_tasks().len(),
            moved: self.managers.moved,
            turns: self.trust.turns,
            compared: self.managers.compared,
            trace: self.trace,
        }
    }

    pub(super) fn failure(&self, complaints: Vec<String>) -> Failure {
        Failure {
            seed: self.seed,
            members: self.members,
            swarm: self.drawn.clone(),
            at: self.now,
            complaints,
            story: self.story.iter().cloned().collect(),
        }
    }
}
