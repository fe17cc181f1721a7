//! Forgets what is over: removed tasks, services and networks, and history beyond its limit.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::draft::Draft;
use crate::id::{NetworkId, ServiceId};
use crate::object::{Cluster, Service, Slot, Task, TaskState};
use crate::plan::slots;
use crate::state::State;
use crate::time::Timestamp;
use crate::transaction::Key;

/// Docker's default for `TaskHistoryRetentionLimit`.
const HISTORY: u64 = 5;
/// Docker's wait before a task on a node that is down counts as orphaned.
const ORPHAN_MS: u64 = 24 * 60 * 60 * 1_000;

pub(super) fn run(draft: &mut Draft<'_>) {
    give_up(draft);
    for service in draft.state().agenda.leaving.clone() {
        if draft.is_full() {
            return;
        }
        forget_service(draft, service);
    }
    for (service, slot) in draft.state().agenda.crowded.clone() {
        if draft.is_full() {
            return;
        }
        for task in surplus(draft.state(), service, slot) {
            draft.remove(Key::Task(task.id));
        }
    }
    forget_networks(draft);
}

/// Tasks of nodes that have been down for a day will not be heard of again.
fn give_up(draft: &mut Draft<'_>) {
    let now = draft.now();
    for id in draft.state().agenda.lost.clone() {
        let since = draft.base().tasks.get(&id).filter(|before| before.released);
        let due = since.map_or(now.plus_ms(ORPHAN_MS), |before| orphaned_at(before));
        if now < due {
            draft.wake_at(due);
        } else if !draft.is_full() {
            draft.edit_task(id, |task| {
                task.status.state = TaskState::Orphaned;
                task.status.at = now;
                "its node has been down for a day".clone_into(&mut task.status.message);
            });
        }
    }
}

fn forget_service(draft: &mut Draft<'_>, id: ServiceId) {
    let over: Vec<_> = draft.state().index.over.of(id).collect();
    for task in over {
        if draft.is_full() {
            return;
        }
        draft.remove(Key::Task(task));
    }
    if draft.state().tasks_of(id).next().is_none() {
        draft.remove(Key::Service(id));
    }
}

/// Whether a task's node may still tell of it, but has been silent for too long to be waited for.
pub(super) fn is_lost(task: &Task) -> bool {
    task.released && !task.status.state.is_terminal()
}

/// When the task that is lost counts as orphaned.
pub(super) fn orphaned_at(lost: &Task) -> Timestamp {
    lost.meta.updated_at.plus_ms(ORPHAN_MS)
}

/// Whether a slot of a live service has more history than is kept.
pub(super) fn is_crowded(state: &State, service: ServiceId, slot: Slot) -> bool {
    state.services.get(&service).is_some_and(|service| !service.removed)
        && !surplus(state, service, slot).is_empty()
}

/// How many tasks of a slot are kept, those that stand for it included.
pub(super) fn history_limit(cluster: &Cluster) -> usize {
    let limit = cluster.spec.orchestration.task_history_retention_limit;
    usize::try_from(limit.unwrap_or(HISTORY)).unwrap_or(usize::MAX)
}

/// The tasks of a slot to be forgotten: as in Docker, those that stand for it count too.
fn surplus(state: &State, service: ServiceId, slot: Slot) -> Vec<Arc<Task>> {
    let tasks = slots::slot(state, service, slot);
    let gone = match slot {
        Slot::Node(node) => !state.nodes.contains_key(&node),
        Slot::Replica(_) => false,
    };
    if gone {
        let all = tasks.over.iter().chain(&tasks.occupants);
        return all.filter(|task| task.is_over()).cloned().collect();
    }
    let limit = state.cluster.as_ref().map_or(usize::MAX, |cluster| history_limit(cluster));
    let (removed, mut kept): (Vec<_>, Vec<_>) =
        tasks.over.iter().cloned().partition(|task| task.desired == TaskState::Remove);
    // Of those made in one millisecond the one that changed last is the newest.
    kept.sort_by_key(|task| Reverse((task.meta.created_at, task.meta.version, task.id)));
    let room = limit.saturating_sub(tasks.occupants.len() + tasks.leaving.len());
    kept.into_iter().skip(room).chain(removed).collect()
}

/// A removed network stays while a task is on it or a service has an address there: nodes still
/// hold its devices.
fn forget_networks(draft: &mut Draft<'_>) {
    for id in draft.state().agenda.removed_networks.clone() {
        if !is_used(draft.state(), id) {
            draft.remove(Key::Network(id));
        }
    }
}

fn is_used(state: &State, network: NetworkId) -> bool {
    tasks_on(state, network).next().is_some() || services_at(state, network).next().is_some()
}

/// Tasks that a network waits for before it goes.
pub(super) fn tasks_on(state: &State, network: NetworkId) -> impl Iterator<Item = &Arc<Task>> {
    let open = state.index.open_on_network.of(network).filter_map(|id| state.tasks.get(&id));
    open.filter(|task| !task.is_over())
}

/// Services that it waits for: they have an address there.
pub(super) fn services_at(
    state: &State,
    network: NetworkId,
) -> impl Iterator<Item = &Arc<Service>> {
    state.services_on(network).filter(move |service| service.vips.contains_key(&network))
}
