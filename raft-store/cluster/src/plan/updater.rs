//! Brings a service's tasks to its present spec, some at a time, and stops when that fails.
//!
//! All that it needs to know is in the state: which tasks have another spec version, which of the
//! new ones run and since when, which ended. So it goes on after a change of leader.
//!
//! What counts is Docker's (swarmkit's updater): a slot is dealt with once its first new task ran
//! or ended. That task failed if it ended by itself, whatever its exit status, before it ran or
//! within the monitoring period after. What the restart policy makes of the slot later does not
//! count, so an update that tolerates its failures completes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decide::service::go_back;
use crate::draft::Draft;
use crate::id::{ServiceId, TaskId};
use crate::object::{
    FirstRun, Restarts, Service, Slot, Task, TaskState, UpdateState, UpdateStatus,
};
use crate::plan::slots::{self, SlotTasks, create, retire};
use crate::spec::UpdateConfig;
use crate::time::Timestamp;

/// Docker's default of `Monitor`.
const MONITOR_MS: u64 = 5_000;

/// One step; whether it ended a task that no node had got, so that the next step may follow at
/// once.
pub(super) fn run(draft: &mut Draft<'_>, id: ServiceId) -> bool {
    let Some(service) = draft.state().services.get(&id).cloned() else { return false };
    let slots = slots::slots(draft.state(), id);
    let Some(status) = &service.update_status else {
        if slots.values().any(|tasks| is_dirty(&service, tasks)) {
            start(draft, id);
            return proceed(draft, id);
        }
        return false;
    };
    if status.state.is_running() {
        return proceed(draft, id);
    }
    // No further slot is touched, but one that has two tasks would keep them for ever.
    retire_relieved(draft, &service, &slots);
    let untouched = |tasks: &SlotTasks| matches!(settled_at(&service, tasks), Settled::OutOfDate);
    if status.state.is_paused() || !slots.values().any(untouched) {
        return false;
    }
    start(draft, id);
    proceed(draft, id)
}

fn start(draft: &mut Draft<'_>, id: ServiceId) {
    let status = UpdateStatus {
        state: UpdateState::Updating,
        started_at: draft.now(),
        completed_at: None,
        message: "update in progress".to_owned(),
    };
    draft.edit_service(id, |service| service.update_status = Some(status));
}

/// One step of an update that is under way, as [`run`].
fn proceed(draft: &mut Draft<'_>, id: ServiceId) -> bool {
    let Some(service) = draft.state().services.get(&id).cloned() else { return false };
    let Some(status) = service.update_status.clone() else { return false };
    let config = config(&service, &status);
    let mut slots = slots::slots(draft.state(), id);
    if let Some(failed) = failure(&service, &status, &config, &slots) {
        match react(draft, &service, &status, &config, failed) {
            Reaction::GoOn => {}
            Reaction::Paused => return false,
            // A rollback begins with no failures of its own, so this happens once.
            Reaction::GoneBack => return proceed(draft, id),
        }
    }
    let start_first = config.order == "start-first";
    // Whatever the order is now: an update that was start-first may have left pairs.
    retire_relieved(draft, &service, &slots);
    slots = slots::slots(draft.state(), id);
    let delay_ms = config.delay / 1_000_000;
    let mut busy = 0_u64;
    for tasks in slots.values() {
        match settled_at(&service, tasks) {
            Settled::OutOfDate => {}
            Settled::Not => busy += 1,
            Settled::Since { at, .. } if draft.now().since_ms(at) < delay_ms => {
                draft.wake_at(at.plus_ms(delay_ms));
                busy += 1;
            }
            Settled::Since { .. } | Settled::Empty => {}
        }
    }
    let mut emptied = false;
    let limit = if config.parallelism == 0 { u64::MAX } else { config.parallelism };
    for (slot, tasks) in &slots {
        if !matches!(settled_at(&service, tasks), Settled::OutOfDate) {
            continue;
        }
        if busy >= limit || draft.is_full() {
            return emptied;
        }
        busy += 1;
        if start_first {
            create(draft, &service, *slot, None, Restarts::default());
        } else {
            for task in &tasks.occupants {
                retire(draft, task.id, TaskState::Shutdown);
                emptied |= task.node.is_none();
            }
        }
    }
    complete(draft, &service, &status, &config, &slots);
    emptied
}

/// How far a slot is.
enum Settled {
    /// Only tasks of other spec versions stand for it.
    OutOfDate,
    /// On its way: its task is being stopped, made, moved or started.
    Not,
    /// Its first task of the present version, which was made then, runs or ended since.
    Since { made_at: Timestamp, at: Timestamp },
    /// Nothing is to stand for it.
    Empty,
}

fn settled_at(service: &Service, tasks: &SlotTasks) -> Settled {
    let current = tasks.occupants.iter().find(|task| task.spec_version == service.spec_version);
    match current {
        None if tasks.occupants.is_empty() => {
            if tasks.waits_for_old(service) {
                Settled::Not
            } else {
                Settled::Empty
            }
        }
        None => Settled::OutOfDate,
        Some(task) => match task.first_run() {
            Some(first) => Settled::Since { made_at: first.made_at, at: first.ended_at },
            None if task.status.state == TaskState::Running
                || task.desired == TaskState::Complete =>
            {
                Settled::Since { made_at: task.meta.created_at, at: task.status.at }
            }
            None => Settled::Not,
        },
    }
}

fn is_dirty(service: &Service, tasks: &SlotTasks) -> bool {
    tasks.occupants.iter().any(|task| task.spec_version != service.spec_version)
}

/// Where several tasks stand for a slot, as with start-first: the others go when that of the
/// present spec runs. Where none is of the present spec, since one update was followed by the next
/// before it had reached this slot, the newest of those that run is enough.
fn retire_relieved(draft: &mut Draft<'_>, service: &Service, slots: &BTreeMap<Slot, SlotTasks>) {
    for tasks in slots.values() {
        if draft.is_full() {
            return;
        }
        if tasks.is_current(service) {
            let is_current = |task: &Arc<Task>| task.spec_version == service.spec_version;
            if tasks.occupants.iter().any(|task| is_current(task) && stands(task)) {
                let old = tasks.occupants.iter().filter(|task| !is_current(task));
                old.for_each(|task| retire(draft, task.id, TaskState::Shutdown));
            }
        } else {
            let mut standing: Vec<_> = tasks.occupants.iter().filter(|task| stands(task)).collect();
            standing.sort_by_key(|task| (task.meta.created_at, task.id));
            standing.pop();
            standing.iter().for_each(|task| retire(draft, task.id, TaskState::Shutdown));
        }
    }
}

/// Whether a task may take the place of an older one: it runs, or ran and is not to be replaced.
/// One that could not be run replaces none.
fn stands(task: &Task) -> bool {
    let ran = task.ran_at.is_some();
    task.status.state == TaskState::Running || (task.desired == TaskState::Complete && ran)
}

/// Ends the update when every slot is at the present spec and has been watched for long enough.
fn complete(
    draft: &mut Draft<'_>,
    service: &Service,
    status: &UpdateStatus,
    config: &UpdateConfig,
    slots: &BTreeMap<Slot, SlotTasks>,
) {
    let mut watched_until = status.started_at;
    for tasks in slots.values() {
        match settled_at(service, tasks) {
            Settled::OutOfDate | Settled::Not => return,
            // A task that was there before the update began is not watched.
            Settled::Since { made_at, at } if made_at >= status.started_at => {
                watched_until = watched_until.max(at.plus_ms(monitor_ms(config)));
            }
            Settled::Since { .. } | Settled::Empty => {}
        }
    }
    if draft.now() < watched_until {
        draft.wake_at(watched_until);
        return;
    }
    let (state, message) = match status.state {
        UpdateState::RollbackStarted => (UpdateState::RollbackCompleted, "rollback completed"),
        UpdateState::Updating
        | UpdateState::Paused
        | UpdateState::Completed
        | UpdateState::RollbackPaused
        | UpdateState::RollbackCompleted => (UpdateState::Completed, "update completed"),
    };
    let now = draft.now();
    draft.edit_service(service.id, |service| {
        if let Some(status) = &mut service.update_status {
            status.state = state;
            status.completed_at = Some(now);
            message.clone_into(&mut status.message);
        }
    });
}

/// The task to blame if more slots failed than the update tolerates.
fn failure(
    service: &Service,
    status: &UpdateStatus,
    config: &UpdateConfig,
    slots: &BTreeMap<Slot, SlotTasks>,
) -> Option<TaskId> {
    let failed_in = |tasks: &SlotTasks| {
        let all = tasks.occupants.iter().chain(&tasks.leaving).chain(&tasks.over);
        let current = all.filter(|task| task.spec_version == service.spec_version);
        let mut ends = current.filter_map(|task| task.first_run());
        ends.find(|first| has_failed(status, config, first))
    };
    let failed: Vec<FirstRun> = slots.values().filter_map(failed_in).collect();
    #[expect(clippy::cast_precision_loss, reason = "a service has 10,000 slots at most")]
    let too_many = failed.len() as f64 > config.max_failure_ratio * slots.len() as f64;
    failed.first().map(|first| first.task).filter(|_| too_many)
}

/// Whether a task that the update made ended while it was watched.
fn has_failed(status: &UpdateStatus, config: &UpdateConfig, first: &FirstRun) -> bool {
    let watched = |ran_at| first.ended_at.since_ms(ran_at) <= monitor_ms(config);
    first.made_at >= status.started_at && first.ran_at.is_none_or(watched)
}

/// What follows from a failure.
enum Reaction {
    GoOn,
    Paused,
    GoneBack,
}

fn react(
    draft: &mut Draft<'_>,
    service: &Service,
    status: &UpdateStatus,
    config: &UpdateConfig,
    failed: TaskId,
) -> Reaction {
    let cause = format!("due to failure or early termination of task {failed}");
    let back = status.state == UpdateState::RollbackStarted;
    match config.failure_action.as_str() {
        "continue" => return Reaction::GoOn,
        "rollback" if !back => {
            let message = format!("update rolled back {cause}");
            if go_back(draft, service.id, &message, false).is_ok() {
                return Reaction::GoneBack;
            }
            // What the previous spec needs is gone: pausing is all that is left.
        }
        _ => {}
    }
    let (state, what) = if back {
        (UpdateState::RollbackPaused, "rollback")
    } else {
        (UpdateState::Paused, "update")
    };
    draft.edit_service(service.id, |service| {
        if let Some(status) = &mut service.update_status {
            status.state = state;
            status.message = format!("{what} paused {cause}");
        }
    });
    Reaction::Paused
}

fn config(service: &Service, status: &UpdateStatus) -> UpdateConfig {
    let config = match status.state {
        UpdateState::RollbackStarted
        | UpdateState::RollbackPaused
        | UpdateState::RollbackCompleted => &service.spec.rollback_config,
        UpdateState::Updating | UpdateState::Paused | UpdateState::Completed => {
            &service.spec.update_config
        }
    };
    config.clone().unwrap_or_default()
}

fn monitor_ms(config: &UpdateConfig) -> u64 {
    if config.monitor == 0 { MONITOR_MS } else { config.monitor / 1_000_000 }
}

#[cfg(test)]
mod tests;
