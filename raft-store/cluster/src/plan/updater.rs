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
use crate::spec::{FailureAction, UpdateOrder, UpdateTerms};
use crate::time::Timestamp;

pub(super) use progress::Progress;
use progress::{Settled, settled_at};

mod progress;

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
    let terms = *terms(&service, &status);
    let mut slots = slots::slots(draft.state(), id);
    if let Some(failed) = failure(&service, &status, &terms, &slots) {
        match react(draft, &service, &status, terms.failure_action, failed) {
            Reaction::GoOn => {}
            Reaction::Paused => return false,
            // A rollback begins with no failures of its own, so this happens once.
            Reaction::GoneBack => return proceed(draft, id),
        }
    }
    // Whatever the order is now: an update that was start-first may have left pairs.
    retire_relieved(draft, &service, &slots);
    slots = slots::slots(draft.state(), id);
    let progress = Progress::of(&service, &status, &terms, &slots, draft.now());
    let now = draft.now();
    let wakes = progress.next_turn().into_iter().chain(progress.monitored_until(now));
    wakes.for_each(|at| draft.wake_at(at));
    let mut emptied = false;
    for slot in progress.out_of_date.iter().take(progress.room()) {
        if draft.is_full() {
            return emptied;
        }
        if terms.order == Some(UpdateOrder::StartFirst) {
            create(draft, &service, *slot, None, Restarts::default());
        } else {
            for task in slots.get(slot).into_iter().flat_map(|tasks| &tasks.occupants) {
                retire(draft, task.id, TaskState::Shutdown);
                emptied |= task.node.is_none();
            }
        }
    }
    if progress.is_over(now) {
        complete(draft, &service, &status);
    }
    emptied
}

/// How far the update of a service is; `None` if none is under way.
pub(super) fn progress(
    service: &Service,
    slots: &BTreeMap<Slot, SlotTasks>,
    now: Timestamp,
) -> Option<Progress> {
    let status = service.update_status.as_ref().filter(|status| status.state.is_running())?;
    Some(Progress::of(service, status, terms(service, status), slots, now))
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

/// Ends the update.
fn complete(draft: &mut Draft<'_>, service: &Service, status: &UpdateStatus) {
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
    terms: &UpdateTerms,
    slots: &BTreeMap<Slot, SlotTasks>,
) -> Option<TaskId> {
    let failed_in = |tasks: &SlotTasks| {
        let all = tasks.occupants.iter().chain(&tasks.leaving).chain(&tasks.over);
        let current = all.filter(|task| task.spec_version == service.spec_version);
        let mut ends = current.filter_map(|task| task.first_run());
        ends.find(|first| has_failed(status, terms, first))
    };
    let failed: Vec<FirstRun> = slots.values().filter_map(failed_in).collect();
    #[expect(clippy::cast_precision_loss, reason = "a service has 10,000 slots at most")]
    let too_many = failed.len() as f64 > terms.max_failure_ratio * slots.len() as f64;
    failed.first().map(|first| first.task).filter(|_| too_many)
}

/// Whether a task that the update made ended while it was watched.
fn has_failed(status: &UpdateStatus, terms: &UpdateTerms, first: &FirstRun) -> bool {
    let watched = |ran_at: Timestamp| first.ended_at <= ran_at.plus(terms.monitor);
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
    action: Option<FailureAction>,
    failed: TaskId,
) -> Reaction {
    let cause = format!("due to failure or early termination of task {failed}");
    let back = status.state == UpdateState::RollbackStarted;
    match action {
        Some(FailureAction::Continue) => return Reaction::GoOn,
        Some(FailureAction::Rollback) if !back => {
            let message = format!("update rolled back {cause}");
            if go_back(draft, service.id, &message, false).is_ok() {
                return Reaction::GoneBack;
            }
            // What the previous spec needs is gone: pausing is all that is left.
        }
        Some(FailureAction::Rollback | FailureAction::Pause) | None => {}
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

fn terms<'a>(service: &'a Service, status: &UpdateStatus) -> &'a UpdateTerms {
    match status.state {
        UpdateState::RollbackStarted
        | UpdateState::RollbackPaused
        | UpdateState::RollbackCompleted => &service.spec.terms().rollback,
        UpdateState::Updating | UpdateState::Paused | UpdateState::Completed => {
            &service.spec.terms().update
        }
    }
}

#[cfg(test)]
mod tests;
