//! Brings a service's tasks to its present spec, some at a time, and stops when that fails.
//!
//! All that it needs to know is in the state: which tasks have another spec version, which of the
//! new ones run and since when, which failed. So it goes on after a change of leader.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decide::service::go_back;
use crate::draft::Draft;
use crate::id::ServiceId;
use crate::object::{Restarts, Service, Slot, Task, TaskState, UpdateState, UpdateStatus};
use crate::plan::slots::{self, SlotTasks, create, retire};
use crate::spec::UpdateConfig;

/// Docker's default of `Monitor`.
const MONITOR_MS: u64 = 5_000;

pub(super) fn run(draft: &mut Draft<'_>, id: ServiceId) {
    let Some(service) = draft.state().services.get(&id).cloned() else { return };
    let slots = slots::slots(draft.state(), id);
    let dirty = slots.values().any(|tasks| is_dirty(&service, tasks));
    let Some(status) = &service.update_status else {
        if dirty {
            start(draft, id);
            proceed(draft, id);
        }
        return;
    };
    if status.state.is_running() {
        proceed(draft, id);
    } else if status.state.is_paused() {
        // No further slot is touched, but one that has two tasks would keep them for ever.
        retire_relieved(draft, &service, &slots);
    } else if dirty {
        start(draft, id);
        proceed(draft, id);
    }
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

/// One step of an update that is under way.
fn proceed(draft: &mut Draft<'_>, id: ServiceId) {
    let Some(service) = draft.state().services.get(&id).cloned() else { return };
    let Some(status) = service.update_status.clone() else { return };
    let config = config(&service, &status);
    let mut slots = slots::slots(draft.state(), id);
    if let Some(failed) = failure(&service, &status, &config, &slots) {
        match react(draft, &service, &status, &config, failed) {
            Reaction::GoOn => {}
            Reaction::Paused => return,
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
            Settled::Since(task) if draft.now().since_ms(task.status.at) < delay_ms => {
                draft.wake_at(task.status.at.plus_ms(delay_ms));
                busy += 1;
            }
            Settled::Since(_) | Settled::Done => {}
        }
    }
    let limit = if config.parallelism == 0 { u64::MAX } else { config.parallelism };
    for (slot, tasks) in &slots {
        if !matches!(settled_at(&service, tasks), Settled::OutOfDate) {
            continue;
        }
        if busy >= limit || draft.is_full() {
            return;
        }
        busy += 1;
        if start_first {
            create(draft, &service, *slot, None, Restarts::default());
        } else {
            for task in &tasks.occupants {
                retire(draft, task.id, TaskState::Shutdown);
            }
        }
    }
    complete(draft, &service, &status, &config, &slots);
}

/// How far a slot is.
enum Settled<'a> {
    /// A task of another spec version stands for it alone.
    OutOfDate,
    /// On its way: its task is being stopped, made, moved or started.
    Not,
    /// This task of the present version has run since its status changed.
    Since(&'a Task),
    /// Its task of the present version ended for good.
    Done,
}

fn settled_at<'a>(service: &Service, tasks: &'a SlotTasks) -> Settled<'a> {
    let current = tasks.occupants.iter().find(|task| task.spec_version == service.spec_version);
    match current {
        None if tasks.occupants.is_empty() => {
            if tasks.waits_for_old(service) {
                Settled::Not
            } else {
                Settled::Done
            }
        }
        None => Settled::OutOfDate,
        Some(task) if task.desired == TaskState::Complete => Settled::Done,
        Some(task) if task.status.state == TaskState::Running => Settled::Since(task),
        Some(_) => Settled::Not,
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
        if tasks.is_current(service) {
            if let Settled::Since(_) | Settled::Done = settled_at(service, tasks) {
                let old = tasks.occupants.iter().filter(|t| t.spec_version != service.spec_version);
                old.for_each(|task| retire(draft, task.id, TaskState::Shutdown));
            }
        } else {
            let stands = |task: &&Arc<Task>| {
                task.desired == TaskState::Complete || task.status.state == TaskState::Running
            };
            let mut standing: Vec<_> = tasks.occupants.iter().filter(stands).collect();
            standing.sort_by_key(|task| (task.meta.created_at, task.id));
            standing.pop();
            standing.iter().for_each(|task| retire(draft, task.id, TaskState::Shutdown));
        }
    }
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
        if is_dirty(service, tasks) {
            return;
        }
        match settled_at(service, tasks) {
            Settled::OutOfDate | Settled::Not => return,
            Settled::Done => {}
            // A task that was there before the update began is not watched.
            Settled::Since(task) if task.meta.created_at >= status.started_at => {
                let until = task.status.at.plus_ms(monitor_ms(config));
                watched_until = watched_until.max(until);
            }
            Settled::Since(_) => {}
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

/// The task to blame if more slots failed than the update bears.
fn failure<'a>(
    service: &Service,
    status: &UpdateStatus,
    config: &UpdateConfig,
    slots: &'a BTreeMap<Slot, SlotTasks>,
) -> Option<&'a Task> {
    let failed: Vec<&Task> = slots
        .values()
        .filter_map(|tasks| {
            let all = tasks.occupants.iter().chain(&tasks.leaving).chain(&tasks.over);
            all.map(|task| &**task).find(|task| has_failed(service, status, config, task))
        })
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "a service has 10,000 slots at most")]
    let too_many = failed.len() as f64 > config.max_failure_ratio * slots.len() as f64;
    failed.first().copied().filter(|_| too_many)
}

/// Whether a task that the update made failed while it was watched.
fn has_failed(
    service: &Service,
    status: &UpdateStatus,
    config: &UpdateConfig,
    task: &Task,
) -> bool {
    let started = task.start_after.map_or(task.meta.created_at, |at| at.max(task.meta.created_at));
    task.spec_version == service.spec_version
        && task.meta.created_at >= status.started_at
        && matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
        && task.status.at.since_ms(started) <= monitor_ms(config)
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
    failed: &Task,
) -> Reaction {
    let cause = format!("due to failure or early termination of task {}", failed.id);
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
