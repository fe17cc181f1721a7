//! Places tasks: on the node that rejected the fewest of the service's of late, then where the
//! service's preferences have it, then on the node with the fewest tasks of the service, then the
//! fewest of all, then the lowest id; among those that may take it. A task that no node can take
//! says why.

use std::collections::BTreeMap;
use std::sync::Arc;

use self::queue::Queue;
use crate::draft::Draft;
use crate::generic::GenericResource;
use crate::id::{NodeId, ServiceId};
use crate::object::{Node, Slot, Task, TaskState};
use crate::plan::allocator::{self, networks_of};
use crate::plan::obstacle::{Refusal, claim, explain, obstacle};
use crate::state::State;
use crate::time::Revision;

mod queue;

pub(super) fn run(draft: &mut Draft<'_>) {
    let ready = |task: &&Arc<Task>| is_ready(draft.state(), task);
    let mut waiting: Vec<_> = allocator::waiting(draft.state()).filter(ready).cloned().collect();
    if waiting.is_empty() {
        return;
    }
    waiting.sort_by_key(|task| (task.service, task.slot, task.id));
    let mut queues: BTreeMap<Kind, Queue> = BTreeMap::new();
    let mut left = Vec::new();
    for task in waiting {
        if draft.is_full() {
            return;
        }
        let (state, now) = (draft.state(), draft.now());
        let found = match task.slot {
            Slot::Node(node) => Some(node).filter(|node| can_take(state, *node, &task)),
            Slot::Replica(_) => {
                let queue = queues.entry(kind(&task));
                queue.or_insert_with(|| Queue::of(state, &task, now)).best(state, &task)
            }
        };
        // Why not is told when the rest is placed.
        let Some(node) = found else {
            left.push(task);
            continue;
        };
        let given = claim(state, node, &task).unwrap_or_default();
        assign(draft, &task, node, given);
        let of_service = (task.service, Revision(0), None)..;
        let same = queues.range_mut(of_service).take_while(|(kind, _)| kind.0 == task.service);
        same.for_each(|(_, queue)| queue.note(node));
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

/// Whether a node, if there is one of that id, can take a task.
fn can_take(state: &State, node: NodeId, task: &Task) -> bool {
    state.nodes.get(&node).is_some_and(|node| obstacle(state, node, task).is_none())
}

/// Why each node cannot take a task; `None` if one can.
pub(super) fn refusals<'a>(state: &'a State, task: &'a Task) -> Option<Vec<Refusal<'a>>> {
    let refusal = |node: &'a Arc<Node>| {
        obstacle(state, node, task).map(|obstacle| Refusal { node, obstacle })
    };
    candidates(state, task).into_iter().map(refusal).collect()
}

/// The nodes that come into question: all, or the one of a global task's slot.
fn candidates<'a>(state: &'a State, task: &Task) -> Vec<&'a Arc<Node>> {
    match task.slot {
        Slot::Replica(_) => state.nodes.values().collect(),
        Slot::Node(node) => state.nodes.get(&node).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests;
