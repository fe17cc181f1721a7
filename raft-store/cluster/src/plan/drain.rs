//! Takes tasks off nodes that cannot or should not hold them, and follows removals.

use crate::constraint::unmet;
use crate::draft::Draft;
use crate::generic;
use crate::object::{Node, NodeState, Task, TaskState};
use crate::plan::slots::retire;
use crate::spec::Availability;
use crate::state::State;

/// What becomes of a task where it is.
enum Fate {
    Stays,
    /// It is asked to stop.
    Stops(TaskState),
    /// Nobody can say: its addresses are free, its replacement need not wait.
    Released(TaskState),
    /// Its node is no longer of the cluster, and nobody will tell more of it.
    Ended {
        desired: TaskState,
        state: TaskState,
        why: &'static str,
    },
}

/// Whether there is something to do for the task.
pub(super) fn concerns(state: &State, task: &Task) -> bool {
    let asked = |desired| task.desired >= desired && (task.node.is_some() || task.is_over());
    !task.status.state.is_terminal()
        && match fate(state, task) {
            Fate::Stays => false,
            Fate::Stops(desired) => !asked(desired),
            Fate::Released(desired) => !(asked(desired) && task.released),
            Fate::Ended { .. } => true,
        }
}

pub(super) fn run(draft: &mut Draft<'_>) {
    for id in draft.state().agenda.adrift.clone() {
        let Some(task) = draft.state().tasks.get(&id).cloned() else { continue };
        if draft.is_full() {
            return;
        }
        let now = draft.now();
        match fate(draft.state(), &task) {
            Fate::Stays => {}
            Fate::Stops(desired) => retire(draft, task.id, desired),
            Fate::Released(desired) => {
                retire(draft, task.id, desired);
                draft.edit_task(task.id, |task| task.released = true);
            }
            Fate::Ended { desired, state, why } => {
                retire(draft, task.id, desired);
                draft.edit_task(task.id, |task| {
                    task.released = true;
                    task.status.state = state;
                    task.status.at = now;
                    why.clone_into(&mut task.status.message);
                });
            }
        }
    }
}

fn fate(state: &State, task: &Task) -> Fate {
    let removed = state.services.get(&task.service).is_none_or(|service| service.removed);
    // What the task would be asked for if its node can no longer hold it.
    let desired = if removed { TaskState::Remove } else { task.desired.max(TaskState::Shutdown) };
    let Some(id) = task.node else {
        return if removed { Fate::Stops(desired) } else { Fate::Stays };
    };
    let Some(node) = state.nodes.get(&id) else {
        let (desired, state) = (TaskState::Shutdown, TaskState::Orphaned);
        let why = "Task belonged to a node that has been deleted";
        return Fate::Ended { desired, state, why };
    };
    match node.status.state {
        NodeState::Down => return Fate::Released(desired),
        // It stops its tasks when it leaves, and tells nobody more of them.
        NodeState::Disconnected => {
            let why = "the node left the swarm";
            return Fate::Ended { desired, state: TaskState::Shutdown, why };
        }
        NodeState::Ready | NodeState::Unknown => {}
    }
    if removed || (task.desired <= TaskState::Running && !may_stay(task, node)) {
        Fate::Stops(desired)
    } else {
        Fate::Stays
    }
}

fn may_stay(task: &Task, node: &Node) -> bool {
    let held = match node.spec.availability {
        Availability::Active | Availability::Pause => true,
        Availability::Drain => false,
    };
    held && unmet(&task.spec.terms().constraints, node).is_none()
        && generic::is_offered(&task.generic_resources, &node.description.generic_resources)
}
