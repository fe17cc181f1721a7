//! Nodes for the tasks of one kind, the best first, without a look at all of them for each task.
//!
//! While tasks are placed, what nodes carry only grows: a rank that was noted is never too high,
//! and a node that cannot take a task of the kind cannot take the next one either. So the lowest
//! noted rank is brought up to date until it is the lowest. Nodes that no task of the service is
//! on, and that rejected none, are ranked by their load alone, as the state has them already.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::can_take;
use crate::constraint::place_in_spread;
use crate::id::NodeId;
use crate::object::Task;
use crate::state::{Ranking, State};
use crate::time::Timestamp;

/// A rejection counts against its node for so long (swarmkit's `monitorFailures`, scheduler.go).
const REJECTION_MS: u64 = 5 * 60 * 1000;

/// Rejections; tasks of the service where its preferences tell nodes apart; those on the node; all
/// tasks there; the node. The lower, the better.
type Rank = (usize, Vec<u64>, u64, u64, NodeId);

#[derive(Debug)]
pub(super) struct Queue {
    rejected: BTreeMap<NodeId, usize>,
    spread: Spread,
    /// Nodes that may take a task, with ranks that they had.
    noted: BinaryHeap<Reverse<Rank>>,
    /// The other nodes, those before the place left out.
    rest: Ranking,
    place: Option<(u64, NodeId)>,
    /// Nodes that do not belong to them.
    apart: BTreeSet<NodeId>,
}

impl Queue {
    pub(super) fn of(state: &State, task: &Task, now: Timestamp) -> Self {
        let loads = &state.index.loads;
        let rejected = rejected(state, task, now);
        let spread = Spread::over(state, task);
        let (rest, apart): (_, BTreeSet<NodeId>) = if spread.is_over_nothing() {
            let with = loads.nodes_with(task.service).map(|(node, _)| node);
            (loads.ranking.clone(), rejected.keys().copied().chain(with).collect())
        } else {
            (Ranking::default(), loads.ranking.nodes().collect())
        };
        let noted = BinaryHeap::new();
        let mut queue = Self { rejected, spread, noted, rest, place: None, apart };
        queue.noted =
            queue.apart.iter().map(|node| Reverse(queue.rank(state, task, *node))).collect();
        queue
    }

    /// The best node that can take a task of the kind. It stays in the queue.
    pub(super) fn best(&mut self, state: &State, task: &Task) -> Option<NodeId> {
        loop {
            let noted = self.lowest()?;
            let node = noted.4;
            let rank = self.rank(state, task, node);
            let is_lowest = rank == noted;
            if is_lowest && !can_take(state, node, task) {
                continue;
            }
            self.noted.push(Reverse(rank));
            if is_lowest {
                return Some(node);
            }
        }
    }

    /// A task of the service was placed.
    pub(super) fn note(&mut self, node: NodeId) {
        self.spread.note(node);
    }

    /// Takes the lowest rank that is known.
    fn lowest(&mut self) -> Option<Rank> {
        let mut next = self.rest.after(self.place);
        while next.is_some_and(|(_, node)| self.apart.contains(&node)) {
            self.place = next;
            next = self.rest.after(next);
        }
        let of_rest = next.map(|(tasks, node)| (0, Vec::new(), 0, tasks, node));
        let noted = self.noted.peek().map(|Reverse(noted)| noted);
        if of_rest.is_some() && noted.is_none_or(|noted| of_rest.as_ref() < Some(noted)) {
            self.place = next;
            return of_rest;
        }
        self.noted.pop().map(|Reverse(noted)| noted)
    }

    fn rank(&self, state: &State, task: &Task, node: NodeId) -> Rank {
        let loads = &state.index.loads;
        let rejected = self.rejected.get(&node).copied().unwrap_or(0);
        let same = loads.of_service(task.service, node);
        (rejected, self.spread.rank(node), same, loads.tasks(node), node)
    }
}

/// How many tasks like one each node could not run, as far as history and [`REJECTION_MS`] reach.
fn rejected(state: &State, task: &Task, now: Timestamp) -> BTreeMap<NodeId, usize> {
    let rejected = state.index.rejected.of(task.service);
    let mut counts = BTreeMap::new();
    for other in rejected.filter_map(|id| state.tasks.get(&id)) {
        let like = other.spec == task.spec;
        let recent = now.since_ms(other.status.at) < REJECTION_MS;
        if let Some(node) = other.node.filter(|_| like && recent) {
            *counts.entry(node).or_default() += 1;
        }
    }
    counts
}

/// How many tasks of a service are where its preferences tell nodes apart. As in Docker, those on
/// nodes that cannot take a task count too.
#[derive(Debug, Default)]
struct Spread {
    /// The groups that a node is in: by the value of the first label, of the first and the second,
    /// and so on.
    groups: BTreeMap<NodeId, Vec<usize>>,
    /// Tasks in each group.
    tasks: Vec<u64>,
}

impl Spread {
    fn over(state: &State, task: &Task) -> Self {
        let over = &task.spec.terms().spread;
        let mut spread = Self::default();
        if over.is_empty() {
            return spread;
        }
        let mut known: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
        for node in state.nodes.values() {
            let place = place_in_spread(over, node);
            let count = state.index.loads.of_service(task.service, node.id);
            let mut groups = Vec::with_capacity(place.len());
            for level in 1..=place.len() {
                let next = known.len();
                let group = *known.entry(place[..level].to_vec()).or_insert(next);
                spread.tasks.resize(known.len(), 0);
                spread.tasks[group] += count;
                groups.push(group);
            }
            spread.groups.insert(node.id, groups);
        }
        spread
    }

    fn is_over_nothing(&self) -> bool {
        self.groups.is_empty()
    }

    /// The tasks that are with the node at each level: the fewer, the better.
    fn rank(&self, node: NodeId) -> Vec<u64> {
        let groups = self.groups.get(&node).into_iter().flatten();
        groups.map(|group| self.tasks[*group]).collect()
    }

    fn note(&mut self, node: NodeId) {
        for group in self.groups.get(&node).into_iter().flatten() {
            self.tasks[*group] += 1;
        }
    }
}
