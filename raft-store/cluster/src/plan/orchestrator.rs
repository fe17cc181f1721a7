//! Holds the number of a service's tasks: one for each replica, or one on each eligible node.

use std::collections::{BTreeMap, BTreeSet};

use crate::draft::Draft;
use crate::id::{NodeId, ServiceId};
use crate::object::{Node, Restarts, Service, Slot, TaskState};
use crate::plan::obstacle::ineligible;
use crate::plan::restart::{self, Verdict};
use crate::plan::slots::{SlotTasks, create, retire, slots};
use crate::spec::{Replicated, ServiceMode};
use crate::state::State;

pub(super) fn run(draft: &mut Draft<'_>, id: ServiceId) {
    let Some(service) = draft.state().services.get(&id).cloned() else { return };
    match &service.spec.mode {
        ServiceMode::Replicated(Replicated { replicas, .. }) => {
            scale_down(draft, &service, replicas.unwrap_or(1));
            judge_ended(draft, &service);
            scale_up(draft, &service, replicas.unwrap_or(1));
        }
        ServiceMode::Global(_) => {
            judge_ended(draft, &service);
            cover_nodes(draft, &service);
        }
    }
}

/// Replaces tasks that ended by themselves, as the restart policy says.
fn judge_ended(draft: &mut Draft<'_>, service: &Service) {
    for (slot, tasks) in slots(draft.state(), service.id) {
        for task in &tasks.occupants {
            let judged = task.desired == TaskState::Complete;
            if judged || !task.status.state.is_terminal() {
                continue;
            }
            if draft.is_full() {
                return;
            }
            let verdict = restart::verdict(task, draft.now());
            match verdict {
                Verdict::Done(_) => retire(draft, task.id, TaskState::Complete),
                Verdict::Replace { start_after, restarts } => {
                    retire(draft, task.id, TaskState::Shutdown);
                    let same_spec = task.spec_version == service.spec_version;
                    // With start-first another one may stand for the slot already.
                    let relieved = !same_spec && tasks.is_current(service);
                    if relieved || !may_refill(draft, service, slot) {
                        continue;
                    }
                    let restarts = if same_spec { restarts } else { Restarts::default() };
                    create(draft, service, slot, start_after, restarts);
                }
            }
        }
    }
}

fn may_refill(draft: &Draft<'_>, service: &Service, slot: Slot) -> bool {
    match slot {
        Slot::Replica(_) => true,
        Slot::Node(node) => {
            draft.state().nodes.get(&node).is_some_and(|node| is_eligible(service, node))
        }
    }
}

/// Whether the slot counts: it has an occupant, or will have one as soon as the old one has ended.
fn counts(service: &Service, tasks: &SlotTasks) -> bool {
    !tasks.occupants.is_empty() || waits(service, tasks)
}

/// Whether a slot gets its next task when the old one has ended.
pub(super) fn waits(service: &Service, tasks: &SlotTasks) -> bool {
    // A task to be removed will not be followed by another.
    tasks.waits_for_old(service)
        && tasks.leaving.iter().all(|task| task.desired < TaskState::Remove)
}

fn scale_up(draft: &mut Draft<'_>, service: &Service, replicas: u64) {
    let slots = slots(draft.state(), service.id);
    let taken: BTreeSet<u64> = slots
        .iter()
        .filter(|(_, tasks)| counts(service, tasks))
        .filter_map(|(slot, _)| match slot {
            Slot::Replica(number) => Some(*number),
            Slot::Node(_) => None,
        })
        .collect();
    let missing = replicas.saturating_sub(taken.len() as u64);
    let missing = usize::try_from(missing).unwrap_or(usize::MAX);
    let free = (1..=u64::MAX).filter(|number| !taken.contains(number)).take(missing);
    for number in free {
        if draft.is_full() {
            return;
        }
        create(draft, service, Slot::Replica(number), None, Restarts::default());
    }
}

/// Removes slots: first those that do not run, then from the node that has most of them, then the
/// newest.
fn scale_down(draft: &mut Draft<'_>, service: &Service, replicas: u64) {
    let slots = slots(draft.state(), service.id);
    let mut counted: Vec<(Slot, &SlotTasks)> =
        slots.iter().filter(|(_, t)| counts(service, t)).map(|(slot, t)| (*slot, t)).collect();
    let mut crowd: BTreeMap<NodeId, u64> = BTreeMap::new();
    for node in counted.iter().filter_map(|(_, tasks)| node_of(tasks)) {
        *crowd.entry(node).or_default() += 1;
    }
    while counted.len() as u64 > replicas && !draft.is_full() {
        let worst = counted.iter().enumerate().max_by_key(|(_, (slot, tasks))| {
            let runs = tasks.occupants.iter().any(|t| t.status.state == TaskState::Running);
            let crowd = node_of(tasks).and_then(|node| crowd.get(&node)).copied().unwrap_or(0);
            (!runs, crowd, *slot)
        });
        let Some((at, _)) = worst else { return };
        let (_, tasks) = counted.swap_remove(at);
        if let Some(count) = node_of(tasks).and_then(|node| crowd.get_mut(&node)) {
            *count = count.saturating_sub(1);
        }
        for task in tasks.occupants.iter().chain(&tasks.leaving).chain(&tasks.over) {
            retire(draft, task.id, TaskState::Remove);
        }
    }
}

fn node_of(tasks: &SlotTasks) -> Option<NodeId> {
    tasks.occupants.iter().find_map(|task| task.node)
}

/// One task on each eligible node.
fn cover_nodes(draft: &mut Draft<'_>, service: &Service) {
    let slots = slots(draft.state(), service.id);
    let eligible: Vec<NodeId> = {
        let nodes = draft.state().nodes.values();
        nodes.filter(|node| is_eligible(service, node)).map(|node| node.id).collect()
    };
    for node in eligible {
        let slot = Slot::Node(node);
        if slots.get(&slot).is_some_and(|tasks| counts(service, tasks)) {
            continue;
        }
        if draft.is_full() {
            return;
        }
        create(draft, service, slot, None, Restarts::default());
    }
}

/// Whether a global service is to have a task on a node and has none of its present spec.
pub(super) fn is_gap(state: &State, service: &Service, node: &Node) -> bool {
    let covers = |id| {
        let task = state.tasks.get(&id);
        task.is_some_and(|t| t.is_wanted() && t.spec_version == service.spec_version)
    };
    is_eligible(service, node)
        && !state.index.in_slot.of((Slot::Node(node.id), service.id)).any(covers)
}

fn is_eligible(service: &Service, node: &Node) -> bool {
    ineligible(service, node).is_none()
}
