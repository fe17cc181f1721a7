//! Raft by its contract: one state, one leader, entries in order; and what the leader does besides
//! it. It has no place: partitions cut nodes off from it, and an election makes it absent.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cluster::State;
use cluster::apply::Outcome;
use cluster::assignment::Assignment;
use cluster::id::{ClusterId, NodeId, TaskId};
use cluster::object::{GossipKey, ManagerInfo, NodeDescription, NodeState};
use cluster::request::{Answer, InitCluster, JoinNode, Request};
use cluster::session::Digest;
use cluster::spec::{Availability, ClusterSpec, Role};
use cluster::time::{Revision, Timestamp};
use cluster::transaction::Transaction;
use leader::{Ask, Decider, LEASE, Next, PAUSE_MAX, PLAN_INTERVAL, Proposed, Standing, Undecided};
use rand::RngExt as _;
use rand::rngs::StdRng;
use skein::pki::digest_of;

use super::network::{address, secret};
use super::session::Woken;
use super::world::{Event, World};
use super::{Members, PlantedBug};

/// Between two looks at the leases, as the manager's.
const LEASE_LOOK: Duration = Duration::from_millis(250);
/// Entries that follow from one request; more without an end are a bug.
const ENTRIES_MAX: usize = 17;
/// Every run's cluster.
pub(super) const CLUSTER: ClusterId = ClusterId(0xC1);

/// The leader.
pub(super) struct Leader {
    pub(super) state: State,
    /// Every entry, from revision 1 on.
    pub(super) log: Vec<Vec<u8>>,
    pub(super) core: leader::Leader,
    decider: Decider<()>,
    pub(super) available: bool,
    /// When it became unavailable last.
    pub(super) lost_at: Duration,
    /// When it became available last.
    pub(super) back_at: Duration,
    /// Leaders that were lost: the next one answers elsewhere.
    pub(super) lost: u8,
    /// Tasks whose node was once declared down: nobody can say how they are.
    pub(super) let_go: BTreeSet<TaskId>,
    seeds: StdRng,
}

impl Leader {
    pub(super) fn new(seeds: StdRng) -> Self {
        Self {
            state: State::default(),
            log: Vec::new(),
            core: leader::Leader::new(digest_of),
            decider: Decider::default(),
            available: true,
            lost_at: Duration::ZERO,
            back_at: Duration::ZERO,
            lost: 0,
            let_go: BTreeSet::new(),
            seeds,
        }
    }

    /// Where it answers.
    pub(super) fn address(&self) -> SocketAddr {
        (IpAddr::from([192, 0, 2, u8::MAX - self.lost]), 2377).into()
    }

    /// Writes what the decider proposes until it waits. Returns the answer to `asked`, and how long
    /// the decider waits; complaints are our bugs, an error is the asker's.
    fn decide(
        &mut self,
        asked: Option<&Request>,
        wall: Timestamp,
        problems: &mut Vec<String>,
    ) -> (Option<Result<Answer, Undecided>>, Duration) {
        if let Some(request) = asked.cloned() {
            self.decider.ask(Ask { request, attempt: None, reply: () });
        }
        let mut told = None;
        for _ in 0..=ENTRIES_MAX {
            let Self { decider, state, seeds, .. } = self;
            let answers = match decider.next(state, Standing::Leads, wall, &mut || seeds.random()) {
                Next::Wait(pause) => return (told, pause),
                Next::Answer(answers) => answers,
                Next::Propose(proposal) => {
                    self.apply(&proposal.transaction, problems);
                    self.decider.outcome(Proposed::Applied)
                }
            };
            told = answers.into_iter().map(|(_ask, answer)| answer).next().or(told);
        }
        problems.push(format!("{ENTRIES_MAX} entries in a row, and no end"));
        (told, Duration::ZERO)
    }

    fn apply(&mut self, transaction: &Transaction, problems: &mut Vec<String>) {
        let revision = Revision(self.state.revision.0 + 1);
        match self.state.apply(revision, transaction) {
            Outcome::Applied if self.state.revision == revision => {
                match cluster::codec::encode_transaction(transaction) {
                    Ok(entry) => self.log.push(entry),
                    Err(error) => problems.push(format!("encoding an entry: {error}")),
                }
            }
            Outcome::Applied => {}
            Outcome::Rejected(conflict) => {
                problems.push(format!("a decision on the newest state was rejected: {conflict}"));
            }
        }
        let violations = cluster::invariant::check(&self.state);
        problems.extend(violations.iter().map(|violation| format!("state: {violation}")));
    }

    /// A node's assignment at the newest state, and its digest.
    pub(super) fn assignment(
        &mut self,
        node: NodeId,
        now: Duration,
    ) -> Option<(Digest, Assignment)> {
        let assignment = cluster::assignment_for(&self.state, node)?;
        Some((self.core.digest(&self.state, node, now)?, assignment))
    }
}

/// Whether two assignments ask for the same.
pub(super) fn same_content(one: &Assignment, other: &Assignment) -> bool {
    // Its plain parts first: most differences are found there without a copy.
    one.nodes == other.nodes
        && one.tasks == other.tasks
        && one.own == other.own
        && one.networks == other.networks
        && one.services == other.services
        && (one.cluster, one.node, one.data_path_port)
            == (other.cluster, other.node, other.data_path_port)
        && one.gossip_keys == other.gossip_keys
        && one.removed == other.removed
}

impl World {
    pub(super) fn found_cluster(&mut self) {
        let first = NodeId(1);
        let init = InitCluster {
            id: CLUSTER,
            spec: ClusterSpec::default(),
            ca_certificate: "certificate".to_owned(),
            ca_key: "key".to_owned(),
            worker_token: "worker".to_owned(),
            manager_token: "manager".to_owned(),
            gossip_keys: vec![GossipKey { id: 1, key: [7; 32] }],
            address_pools: Vec::new(),
            // Small, so that addresses are used again soon.
            subnet_size: self.swarm.subnet_size,
            data_path_port: 0,
            unlock_key: None,
            node: joining(first, Role::Manager, Some(place(first))),
        };
        self.must(&Request::InitCluster(Box::new(init)));
        let others: Vec<NodeId> = self.hosts.keys().copied().filter(|id| *id != first).collect();
        for node in others {
            let managers = if self.members == Members::Changing { 3 } else { 1 };
            let place = (node.0 <= managers).then(|| place(node));
            let role = if place.is_some() { Role::Manager } else { Role::Worker };
            self.must(&Request::JoinNode(Box::new(joining(node, role, place))));
        }
        self.leader.core.take_over(&self.leader.state, self.now);
    }

    fn must(&mut self, request: &Request) {
        if let Err(refusal) = self.decide(request) {
            self.problems.push(refusal);
        }
    }

    /// Asks the leader; what it decides is in the log at once.
    pub(super) fn decide(&mut self, request: &Request) -> Result<Answer, String> {
        if !self.leader.available {
            return Err("no leader".to_owned());
        }
        let wall = self.wall();
        let (answer, _pause) = self.leader.decide(Some(request), wall, &mut self.problems);
        self.state_changed();
        match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(Undecided::Rejected(rejection))) => Err(rejection.message),
            Some(Err(why)) => Err(format!("{why:?}")),
            None => Err("no answer".to_owned()),
        }
    }

    pub(super) fn plan_due(&mut self) {
        let wall = self.wall();
        let mut pause = PLAN_INTERVAL;
        if self.leader.available {
            let before = self.leader.state.revision;
            (_, pause) = self.leader.decide(None, wall, &mut self.problems);
            if self.leader.state.revision != before {
                self.state_changed();
            }
        }
        self.after(pause.max(Duration::from_millis(1)), Event::Plan);
    }

    fn state_changed(&mut self) {
        self.check_tasks_that_run();
        self.ring_soon(Woken::ByTheState);
    }

    fn let_go(&mut self, node: NodeId) {
        self.tell(format!("the lease of node {} ran out", node.0));
        let Leader { lost_at, back_at, .. } = self.leader;
        let since = self.now - back_at;
        if back_at - lost_at > PAUSE_MAX && since < LEASE {
            let ms = since.as_millis();
            let what = format!("{ms} ms after a majority was back: nobody heard it before");
            self.problems.push(format!("the lease of node {} ran out {what}", node.0));
        }
        let tasks = self.leader.state.tasks.values();
        let let_go = tasks.filter(|task| task.node == Some(node)).map(|task| task.id);
        self.leader.let_go.extend(let_go);
        self.trust.sworn.remove(&node);
    }

    pub(super) fn look_at_leases(&mut self) {
        let is_available = self.leader.available;
        let has_quorum = is_available || self.plant == PlantedBug::CountedSilence;
        let look = self.leader.core.look(&self.leader.state, has_quorum, self.now);
        // Without a majority nothing is recorded.
        for request in look.requests.into_iter().filter(|_| is_available) {
            if let Request::SetNodeState { id, state: NodeState::Down, .. } = request {
                self.let_go(id);
            }
            self.must(&request);
        }
        self.after(LEASE_LOOK, Event::Leases);
    }
}

/// A node's place in Raft.
fn place(node: NodeId) -> ManagerInfo {
    ManagerInfo { raft_id: node.0 as u64, address: (address(node).ip(), 2377).into() }
}

pub(super) fn joining(node: NodeId, role: Role, manager: Option<ManagerInfo>) -> JoinNode {
    JoinNode {
        id: node,
        key: None,
        role,
        availability: Availability::Active,
        description: description(node),
        manager,
    }
}

/// What a node says of itself when it joins.
pub(super) fn description(node: NodeId) -> NodeDescription {
    NodeDescription {
        hostname: format!("node{}", node.0),
        os: "linux".to_owned(),
        architecture: "x86_64".to_owned(),
        nano_cpus: 4_000_000_000,
        memory_bytes: 8 << 30,
        engine_version: "0.1.0".to_owned(),
        gossip: address(node),
        vtep: address(node).ip(),
        routes: Vec::new(),
        balancer: "nft".to_owned(),
        executors: vec!["process".to_owned()],
        certificate_subject: String::new(),
        schema: cluster::object::newest_schema(),
        manager_address: Some((address(node).ip(), 2377).into()),
        proof_key: Some(secret(node).key()),
        trust: None,
        underlay_mtu: None,
        generic_resources: Vec::new(),
    }
}
