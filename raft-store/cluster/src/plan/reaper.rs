//! Forgets what is over: removed tasks, services and networks, and history beyond its limit.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::draft::Draft;
use crate::id::{NetworkId, ServiceId};
use crate::object::{Service, Slot, Task, TaskState};
use crate::plan::slots::{SlotTasks, slots};
use crate::transaction::Key;

/// Docker's default for `TaskHistoryRetentionLimit`.
const HISTORY: u64 = 5;
/// Docker's wait before a task on a node that is down counts as orphaned.
const ORPHAN_MS: u64 = 24 * 60 * 60 * 1_000;

pub(super) fn run(draft: &mut Draft<'_>) {
    give_up(draft);
    let services: Vec<_> = draft.state().services.values().cloned().collect();
    for service in services {
        if draft.is_full() {
            return;
        }
        if service.removed {
            forget_service(draft, service.id);
        } else {
            trim_history(draft, &service);
        }
    }
    forget_networks(draft);
}

/// Tasks of nodes that have been down for a day will not be heard of again.
fn give_up(draft: &mut Draft<'_>) {
    let now = draft.now();
    let lost: Vec<_> = {
        let tasks = draft.state().tasks.values();
        tasks.filter(|task| task.released && !task.status.state.is_terminal()).cloned().collect()
    };
    for task in lost {
        let since = draft.base().tasks.get(&task.id).filter(|before| before.released);
        let due = since.map_or(now, |before| before.meta.updated_at).plus_ms(ORPHAN_MS);
        if now < due {
            draft.wake_at(due);
        } else if !draft.is_full() {
            draft.edit_task(task.id, |task| {
                task.status.state = TaskState::Orphaned;
                task.status.at = now;
                "its node has been down for a day".clone_into(&mut task.status.message);
            });
        }
    }
}

fn forget_service(draft: &mut Draft<'_>, id: ServiceId) {
    let tasks: Vec<Arc<Task>> = draft.state().tasks_of(id).cloned().collect();
    let mut open = false;
    for task in tasks {
        if !task.is_over() {
            open = true;
        } else if draft.is_full() {
            return;
        } else {
            draft.remove(Key::Task(task.id));
        }
    }
    if !open {
        draft.remove(Key::Service(id));
    }
}

fn trim_history(draft: &mut Draft<'_>, service: &Service) {
    let limit = draft
        .state()
        .cluster
        .as_ref()
        .and_then(|cluster| cluster.spec.orchestration.task_history_retention_limit);
    let limit = usize::try_from(limit.unwrap_or(HISTORY)).unwrap_or(usize::MAX);
    for (slot, tasks) in slots(draft.state(), service.id) {
        if draft.is_full() {
            return;
        }
        for task in surplus(draft, slot, &tasks, limit) {
            draft.remove(Key::Task(task.id));
        }
    }
}

/// The tasks of a slot to be forgotten: as in Docker, those that stand for it count too.
fn surplus(draft: &Draft<'_>, slot: Slot, tasks: &SlotTasks, limit: usize) -> Vec<Arc<Task>> {
    let gone = match slot {
        Slot::Node(node) => !draft.state().nodes.contains_key(&node),
        Slot::Replica(_) => false,
    };
    if gone {
        let all = tasks.over.iter().chain(&tasks.occupants);
        return all.filter(|task| task.is_over()).cloned().collect();
    }
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
    let state = draft.state();
    let removed: Vec<NetworkId> = state
        .networks
        .values()
        .filter(|network| network.removed)
        .map(|network| network.id)
        .collect();
    if removed.is_empty() {
        return;
    }
    let open = state.tasks.values().filter(|task| !task.is_over());
    let mut used: BTreeSet<NetworkId> =
        open.flat_map(|task| task.attachments.iter().map(|held| held.network)).collect();
    used.extend(state.services.values().flat_map(|service| service.vips.keys().copied()));
    for id in removed.into_iter().filter(|id| !used.contains(id)) {
        draft.remove(Key::Network(id));
    }
}
