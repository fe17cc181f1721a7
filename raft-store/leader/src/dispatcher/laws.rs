//! Goal: a task is released only when no live balancer has it, a node that waits for a release is
//! woken when it is given, no node counts as behind that a fresh look finds not to be, and once all
//! nodes have followed nothing waits. Method: random stories of services, nodes, kernels and
//! leaders; after each step all of that, with kernels that hold what they were really told.

use cluster::assign::Held;
use cluster::assignment::Assignment;
use cluster::object::{NodeState, TaskState};
use cluster::request::Request;
use cluster::spec::Role;

use super::*;
use crate::fixture::{
    A, B, carry_out, cluster, create_network, create_service, hash, joining, remove_service,
    set_state, try_out,
};

const C: NodeId = NodeId(3);
const STORIES: u64 = 40;
const STEPS: u64 = 150;

/// A node, as it really is.
#[derive(Default)]
struct Node {
    known: Option<Held>,
    is_confirmed: bool,
    /// What it was told and its kernel does not hold yet.
    told: Vec<(Digest, Arc<Assignment>)>,
    kernel: Option<Arc<Assignment>>,
    /// What its reports say of that.
    applied: Option<Digest>,
}

struct Story {
    state: State,
    dispatcher: Dispatcher,
    nodes: BTreeMap<NodeId, Node>,
    seed: u64,
    services: Vec<String>,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut state = cluster();
        carry_out(&mut state, &Request::JoinNode(Box::new(joining(C, Role::Worker))));
        set_state(&mut state, C, NodeState::Ready);
        create_network(&mut state, "other");
        let mut dispatcher = Dispatcher::new(hash);
        dispatcher.take_over(&state, Duration::ZERO);
        let nodes = [A, B, C].map(|id| (id, Node::default())).into();
        Self { state, dispatcher, nodes, seed, services: vec!["web".to_owned()] }
    }

    /// One of so many: Knuth's linear congruential generator.
    fn draw(&mut self, count: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.seed >> 33).unwrap() % count
    }

    fn some_node(&mut self) -> NodeId {
        [A, B, C][self.draw(3)]
    }

    /// Something happens. Who did something that may ring, and whether it did.
    fn step(&mut self, number: u64) -> Option<(NodeId, bool)> {
        let node = self.some_node();
        match self.draw(12) {
            0 => {
                let only = [None, Some(A), Some(B), Some(C)][self.draw(4)];
                let name = format!("s{number}");
                let network = if self.draw(2) == 0 { "vote" } else { "other" };
                if self.state.network_named(network).is_none() {
                    create_network(&mut self.state, network);
                }
                create_service(&mut self.state, &name, network, only);
                self.services.push(name);
            }
            1 | 2 if !self.services.is_empty() => {
                let at = self.draw(self.services.len());
                let name = self.services.swap_remove(at);
                remove_service(&mut self.state, &name);
            }
            3 => self.end_a_task(node),
            // Refused while a service or a task that is not lost uses it.
            10 => {
                if let Some(id) = self.state.network_named("other").map(|network| network.id) {
                    try_out(&mut self.state, &Request::RemoveNetwork { id });
                }
            }
            4 if self.draw(3) == 0 => {
                let is_ready = self.state.nodes[&node].status.state == NodeState::Ready;
                let to = if is_ready { NodeState::Down } else { NodeState::Ready };
                set_state(&mut self.state, node, to);
            }
            5 if self.draw(4) == 0 => {
                self.dispatcher = Dispatcher::new(hash);
                self.dispatcher.take_over(&self.state, Duration::ZERO);
            }
            6 if self.draw(4) == 0 => {
                self.restart(node);
                return Some((node, self.report(node)));
            }
            7 | 8 => return Some((node, self.watch(node).rings)),
            _other => {
                let count = self.nodes[&node].told.len();
                if count > 0 {
                    let at = self.draw(count);
                    self.apply(node, at);
                }
                return Some((node, self.report(node)));
            }
        }
        None
    }

    fn restart(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        (node.is_confirmed, node.applied) = (false, None);
    }

    fn end_a_task(&mut self, node: NodeId) {
        let Some(task) = self.state.stopping_on(node).next() else { return };
        let mut status = task.status.clone();
        status.state = TaskState::Complete;
        let statuses = [(task.id, status)].into_iter().collect();
        carry_out(&mut self.state, &Request::ReportTasks { node, statuses });
    }

    fn watch(&mut self, id: NodeId) -> Watched {
        let node = self.nodes.get_mut(&id).unwrap();
        let call = WatchCall {
            have: node.known.as_ref().map(Held::digests).unwrap_or_default(),
            confirmed: node.is_confirmed,
            released: BTreeSet::new(),
            schema: cluster::object::newest_schema(),
        };
        let watched = self.dispatcher.watch(id, &call, Timestamp(0)).unwrap();
        if let Some(told) = watched.answer.told.clone() {
            let held = Held::next(node.known.as_ref(), id, told, hash).unwrap();
            node.told.push((held.digest, Arc::clone(&held.assignment)));
            (node.known, node.is_confirmed) = (Some(held), true);
        }
        watched
    }

    /// A kernel gets what its node was told.
    fn apply(&mut self, id: NodeId, at: usize) {
        let node = self.nodes.get_mut(&id).unwrap();
        let (digest, assignment) = node.told.drain(..=at).next_back().unwrap();
        (node.kernel, node.applied) = (Some(assignment), Some(digest));
    }

    fn report(&mut self, node: NodeId) -> bool {
        self.dispatcher.hear(node, self.nodes[&node].applied, Duration::ZERO).rings
    }

    fn released(&mut self) -> BTreeMap<NodeId, BTreeSet<TaskId>> {
        [A, B, C].map(|node| (node, self.dispatcher.released(node))).into()
    }

    /// Whether a live node's kernel has the task in its balancers.
    fn balances(&self, task: &Task) -> Option<NodeId> {
        let networks = task.attachments.iter().map(|held| held.network);
        let live = networks.flat_map(|network| self.state.nodes_on(network));
        let mut live = live.filter(|node| node.status.state == NodeState::Ready);
        let has = |node: &Arc<cluster::object::Node>| {
            let kernel = self.nodes[&node.id].kernel.as_ref();
            kernel.and_then(|held| held.tasks.get(&task.id)).is_some_and(|task| !task.draining)
        };
        live.find(|node| has(node)).map(|node| node.id)
    }

    /// Who is behind, by a look at every node.
    fn behind(&mut self, task: &Task) -> BTreeSet<NodeId> {
        let mut behind = BTreeSet::new();
        for held in &task.attachments {
            let nodes = self.state.nodes_on(held.network);
            let live = nodes.filter(|node| node.status.state == NodeState::Ready);
            for node in live.map(|node| node.id).collect::<Vec<_>>() {
                if self.dispatcher.at(node, held.network) < Some(task.meta.version) {
                    behind.insert(node);
                }
            }
        }
        behind
    }

    fn check(&mut self, line: &str) {
        let stopping: Vec<Arc<Task>> =
            [A, B, C].iter().flat_map(|node| self.state.stopping_on(*node)).cloned().collect();
        let released = self.released();
        for task in stopping {
            let behind = self.dispatcher.behind(&task);
            // Of a change that others do not see, a node that was not behind is not behind either.
            let fresh = self.behind(&task);
            assert!(behind.is_subset(&fresh), "{line}: {}: {behind:?} of {fresh:?}", task.id);
            let is_released = released.values().any(|tasks| tasks.contains(&task.id));
            assert_eq!(is_released, behind.is_empty(), "{line}: {}", task.id);
            if is_released {
                assert_eq!(self.balances(&task), None, "{line}: {} is released", task.id);
            }
        }
    }

    /// Every node follows all there is.
    fn settle(&mut self) {
        for node in [A, B, C] {
            self.watch(node);
            if let Some(last) = self.nodes[&node].told.len().checked_sub(1) {
                self.apply(node, last);
            }
            self.report(node);
        }
    }
}

#[test]
fn releases_are_safe_and_come() {
    let mut given = 0;
    for seed in 1..=STORIES {
        let mut story = Story::new(seed);
        for number in 0..STEPS {
            let line = format!("story {seed}, step {number}");
            story.dispatcher.follow(&story.state, Duration::ZERO);
            let (before, revision) = (story.released(), story.state.revision);
            let rung = story.step(number);
            story.dispatcher.follow(&story.state, Duration::ZERO);
            let after = story.released();
            if let Some((who, rings)) = rung {
                assert_eq!(story.state.revision, revision);
                let news = after.iter().filter(|(node, tasks)| !tasks.is_subset(&before[*node]));
                let others = news.filter(|(node, _)| **node != who).count();
                assert!(rings || others == 0, "{line}: {others} nodes are not woken");
                given += others;
            }
            story.check(&line);
        }
        story.settle();
        let waiting = |node: &NodeId| story.state.stopping_on(*node).count();
        let waiting: BTreeMap<_, _> = [A, B, C].map(|node| (node, waiting(&node))).into();
        let released = story.released();
        for (node, tasks) in &released {
            assert_eq!(tasks.len(), waiting[node], "story {seed}: node {} waits", node.0);
        }
    }
    assert!(given > 50, "releases that others waited for: {given}");
}
