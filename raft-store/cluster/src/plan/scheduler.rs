//! Places tasks: on the node that rejected the fewest of the service's of late, then where the
//! service's preferences have it, then on the node with the fewest tasks of the service, then the
//! fewest of all, then the lowest id; among those that may take it. A task that no node can take
//! says why.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::constraint::place_in_spread;
use crate::draft::Draft;
use crate::generic::GenericResource;
use crate::id::{NodeId, ServiceId};
use crate::object::{Node, Slot, Task, TaskState};
use crate::plan::allocator::{self, networks_of};
use crate::plan::obstacle::{Refusal, claim, explain, obstacle};
use crate::spec::Preference;
use crate::state::{Load, State};
use crate::time::{Revision, Timestamp};

/// A rejection counts against its node for so long (swarmkit's `monitorFailures`, scheduler.go).
const REJECTION_MS: u64 = 5 * 60 * 1000;

pub(super) fn run(draft: &mut Draft<'_>) {
    let ready = |task: &&Arc<Task>| is_ready(draft.state(), task);
    let mut waiting: Vec<_> = allocator::waiting(draft.state()).filter(ready).cloned().collect();
    if waiting.is_empty() {
        return;
    }
    waiting.sort_by_key(|task| (task.service, task.slot, task.id));
    let mut rejections = Rejections::default();
    let mut hopeless: BTreeSet<Kind> = BTreeSet::new();
    let mut left = Vec::new();
    for task in waiting {
        if draft.is_full() {
            return;
        }
        // What the nodes carry only grows here.
        let kind = kind(&task);
        if hopeless.contains(&kind) {
            left.push(task);
            continue;
        }
        let rejected = rejections.of(draft.state(), &task, draft.now());
        // Why not is told when the rest is placed.
        match place(draft.state(), rejected, &task) {
            Some(node) => {
                let given = claim(draft.state(), node, &task).unwrap_or_default();
                assign(draft, &task, node, given);
            }
            None => {
                hopeless.insert(kind);
                left.push(task);
            }
        }
    }
    let mut reasons: BTreeMap<Kind, Option<String>> = BTreeMap::new();
    for task in left {
        if draft.is_full() {
            return;
        }
        let reason = || refusals(draft.state(), &task).map(|refusals| explain(&refusals));
        if let Some(error) = reasons.entry(kind(&task)).or_insert_with(reason).clone() {
            draft.edit_task(task.id, |task| {
                "pending task scheduling".clone_into(&mut task.status.message);
                task.status.error = error;
            });
        }
    }
}

/// Tasks of one kind go to the same nodes: of one spec of a service, and of one node if the service
/// is global.
pub(super) type Kind = (ServiceId, Revision, Option<NodeId>);

pub(super) fn kind(task: &Task) -> Kind {
    let node = match task.slot {
        Slot::Replica(_) => None,
        Slot::Node(node) => Some(node),
    };
    (task.service, task.spec_version, node)
}

/// How many tasks like one each node could not run, as far as history and [`REJECTION_MS`] reach.
#[derive(Debug, Default)]
struct Rejections(BTreeMap<(ServiceId, Revision), BTreeMap<NodeId, usize>>);

impl Rejections {
    fn of(&mut self, state: &State, task: &Task, now: Timestamp) -> &BTreeMap<NodeId, usize> {
        self.0.entry((task.service, task.spec_version)).or_insert_with(|| {
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
        })
    }
}

/// Whether a task lacks nothing but a node.
pub(super) fn is_ready(state: &State, task: &Task) -> bool {
    task.status.state == TaskState::Pending
        && task.attachments.len() == networks_of(state, task).len()
}

fn assign(draft: &mut Draft<'_>, task: &Task, node: NodeId, given: Vec<GenericResource>) {
    let now = draft.now();
    draft.edit_task(task.id, |task| {
        task.node = Some(node);
        task.generic_resources = given;
        task.status.state = TaskState::Assigned;
        task.status.at = now;
        "scheduler assigned task to node".clone_into(&mut task.status.message);
        task.status.error.clear();
    });
}

/// The best node.
fn place(state: &State, rejected: &BTreeMap<NodeId, usize>, task: &Task) -> Option<NodeId> {
    let idle = Load::default();
    let spread = Spread::over(state, task);
    let mut best: Option<(usize, Vec<u64>, u64, u64, NodeId)> = None;
    for node in candidates(state, task) {
        let load = state.index.loads.of(node.id).unwrap_or(&idle);
        if obstacle(state, node, load, task).is_some() {
            continue;
        }
        let same = load.of_service(task.service);
        let rejected = rejected.get(&node.id).copied().unwrap_or(0);
        let rank = (rejected, spread.rank(node), same, load.tasks, node.id);
        best = Some(best.map_or(rank.clone(), |other| other.min(rank)));
    }
    best.map(|(.., node)| node)
}

/// Why each node cannot take a task; `None` if one can.
pub(super) fn refusals<'a>(state: &'a State, task: &'a Task) -> Option<Vec<Refusal<'a>>> {
    let idle = Load::default();
    let refusal = |node: &'a Arc<Node>| {
        let load = state.index.loads.of(node.id).unwrap_or(&idle);
        obstacle(state, node, load, task).map(|obstacle| Refusal { node, obstacle })
    };
    candidates(state, task).into_iter().map(refusal).collect()
}

/// How many tasks of a service are where its preferences tell nodes apart. As in Docker, those on
/// nodes that cannot take a task count too.
struct Spread<'a> {
    preferences: &'a [Preference],
    /// By the values of the first label, of the first and the second, and so on.
    tasks: BTreeMap<Vec<&'a str>, u64>,
}

impl<'a> Spread<'a> {
    fn over(state: &'a State, task: &'a Task) -> Self {
        let placement = task.spec.placement.as_ref();
        let preferences = placement.map_or(&[][..], |placement| &placement.preferences);
        let mut tasks: BTreeMap<Vec<&str>, u64> = BTreeMap::new();
        for node in state.nodes.values().filter(|_| !preferences.is_empty()) {
            let count = state.index.loads.of(node.id).map(|load| load.of_service(task.service));
            let place = place_in_spread(preferences, node);
            for level in 1..=place.len() {
                *tasks.entry(place[..level].to_vec()).or_default() += count.unwrap_or(0);
            }
        }
        Self { preferences, tasks }
    }

    /// The tasks that are with the node at each level: the fewer, the better.
    fn rank(&self, node: &Node) -> Vec<u64> {
        let place = place_in_spread(self.preferences, node);
        let count = |level: usize| self.tasks.get(&place[..level]).copied().unwrap_or(0);
        (1..=place.len()).map(count).collect()
    }
}

/// The nodes that come into question: all, or the one of a global task's slot.
fn candidates<'a>(state: &'a State, task: &Task) -> Vec<&'a Arc<Node>> {
    match task.slot {
        Slot::Replica(_) => state.nodes.values().collect(),
        Slot::Node(node) => state.nodes.get(&node).into_iter().collect(),
    }
}
