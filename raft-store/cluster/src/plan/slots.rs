//! The slots of a service and the tasks in them.
//!
//! A slot's *occupant* is the task that stands for it: wanted to run, or ended and not yet judged
//! by the restart policy, or ended for good (desired `Complete`). Every other task of the slot is
//! on its way out or history. Which is which follows from desired states alone, never from times:
//! the clocks of leaders differ.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::draft::Draft;
use crate::id::{ServiceId, TaskId};
use crate::object::{PublishedPort, Restarts, Service, Slot, Task, TaskState, TaskStatus};
use crate::spec::{CheckedTask, Driver, Replicated, ServiceMode, TaskSpec};
use crate::state::{State, Tally};
use crate::time::Timestamp;

/// The tasks of one slot.
#[derive(Debug, Default)]
pub(super) struct SlotTasks {
    /// One, or with start-first two for a while.
    pub(super) occupants: Vec<Arc<Task>>,
    /// On their way out: asked to stop and not yet seen to have ended.
    pub(super) leaving: Vec<Arc<Task>>,
    /// Nothing more will come of them.
    pub(super) over: Vec<Arc<Task>>,
}

pub(super) fn slots(state: &State, service: ServiceId) -> BTreeMap<Slot, SlotTasks> {
    let mut slots: BTreeMap<Slot, SlotTasks> = BTreeMap::new();
    for task in state.tasks_of(service) {
        slots.entry(task.slot).or_default().add(task);
    }
    slots
}

/// The tasks of one slot of a service.
pub(super) fn slot(state: &State, service: ServiceId, slot: Slot) -> SlotTasks {
    let mut found = SlotTasks::default();
    for id in state.index.in_slot.of((slot, service)) {
        state.tasks.get(&id).into_iter().for_each(|task| found.add(task));
    }
    found
}

/// Whether a service plainly has the tasks that it should have, so that nobody needs to look at
/// its slots: most services, most of the time. History does not matter. A global service may lack
/// some on nodes ([`Agenda`](crate::state::Agenda)).
pub(super) fn is_at_rest(state: &State, service: &Service) -> bool {
    if service.update_status.as_ref().is_some_and(|status| status.state.is_running()) {
        return false;
    }
    let none = Tally::default();
    let tally = state.index.tallies.get(&service.id).unwrap_or(&none);
    let mut others = tally.wanted.keys().filter(|version| **version != service.spec_version);
    if tally.unsettled > 0 || others.next().is_some() {
        return false;
    }
    match &service.spec.mode {
        ServiceMode::Global(_) => true,
        ServiceMode::Replicated(Replicated { replicas, .. }) => {
            let running = tally.wanted.get(&service.spec_version).copied().unwrap_or(0);
            running == replicas.unwrap_or(1)
        }
    }
}

impl SlotTasks {
    fn add(&mut self, task: &Arc<Task>) {
        let list = if task.desired <= TaskState::Complete {
            &mut self.occupants
        } else if task.is_over() {
            &mut self.over
        } else {
            &mut self.leaving
        };
        list.push(Arc::clone(task));
    }

    /// Whether the slot waits for an out-of-date task to end before the next one is made, so that
    /// the two never run side by side (stop-first).
    pub(super) fn waits_for_old(&self, service: &Service) -> bool {
        self.leaving.iter().any(|task| task.spec_version != service.spec_version)
    }

    /// Whether a task of the current spec stands for the slot.
    pub(super) fn is_current(&self, service: &Service) -> bool {
        self.occupants.iter().any(|task| task.spec_version == service.spec_version)
    }
}

/// Asks a task to stop. One that no node has got yet is over at once; nobody would report it.
pub(super) fn retire(draft: &mut Draft<'_>, id: TaskId, desired: TaskState) {
    let now = draft.now();
    draft.edit_task(id, |task| {
        if task.desired < desired {
            task.desired = desired;
        }
        if task.node.is_none() && !task.status.state.is_terminal() {
            task.status.state = TaskState::Shutdown;
            task.status.at = now;
            "never started".clone_into(&mut task.status.message);
            task.status.error.clear();
        }
    });
}

/// Makes a task for a slot, from the service's present spec. It gets addresses and a node from the
/// planners that follow.
pub(super) fn create(
    draft: &mut Draft<'_>,
    service: &Service,
    slot: Slot,
    start_after: Option<Timestamp>,
    restarts: Restarts,
) {
    let id = TaskId(draft.draw());
    let port =
        |port: &PublishedPort| PublishedPort { ingress_ports: BTreeMap::new(), ..port.clone() };
    let task = Task {
        id,
        meta: draft.new_meta(),
        service: service.id,
        service_name: service.spec.name.clone(),
        service_labels: service.spec.labels.clone(),
        slot,
        node: None,
        spec: spec_of_task(draft.state(), service),
        spec_version: service.spec_version,
        ports: service.ports.iter().map(port).collect(),
        attachments: Vec::new(),
        desired: TaskState::Running,
        status: TaskStatus {
            state: TaskState::New,
            at: draft.now(),
            message: "created".to_owned(),
            error: String::new(),
            pid: None,
            exit_code: None,
            healthy: false,
        },
        start_after,
        released: false,
        restarts,
        ran_at: None,
        generic_resources: Vec::new(),
    };
    draft.put(crate::transaction::Object::Task(Arc::new(task)));
}

/// The template of the service, with the cluster's log driver if it names none.
fn spec_of_task(state: &State, service: &Service) -> CheckedTask {
    let spec = service.spec.task();
    let own = spec.log_driver.as_ref().filter(|driver| **driver != Driver::default());
    let cluster = state.cluster.as_ref().filter(|_| own.is_none());
    match cluster.and_then(|cluster| cluster.spec.log_driver().ok().flatten()) {
        Some(driver) => {
            CheckedTask::of(TaskSpec { log_driver: Some(driver), ..TaskSpec::clone(&spec) })
        }
        None => spec,
    }
}
