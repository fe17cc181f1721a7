//! Why a service does not have the tasks that it should have, or a network is not gone: what waits,
//! and for what.
//!
//! Nothing is decided here. Each answer is that of the planner which waits: the obstacles that the
//! scheduler found on each node, the progress that the updater acts on, the verdict of the restart
//! policy. What only the leader's dispatcher knows comes in as a question (`behind`).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use self::service::Asker;
use super::obstacle::Refused;
use super::slots::slots;
use super::updater::progress;
use super::{Planned, planned_for, reaper};
use crate::id::{NetworkId, NodeId, ServiceId, TaskId};
use crate::object::{Network, Service, Task, TaskState};
use crate::rejection::{Code, Rejection};
use crate::state::State;
use crate::time::Timestamp;

mod service;

/// Tasks and slots that an answer lists.
const WAITING_MAX: usize = 200;
/// Names in one sentence.
const NAMES_MAX: usize = 3;

/// What a service, or a network that is being removed, waits for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Why {
    /// Its id.
    #[serde(flatten)]
    pub subject: Subject,
    /// Its name.
    pub name: String,
    /// Tasks of it that run and are to run.
    pub running: usize,
    /// What waits; empty if nothing does.
    pub waiting: Vec<Waiting>,
    /// How many more wait and are not listed.
    pub left_out: usize,
    /// Nodes on which a global service is to have no task, by reason.
    pub passed_over: Vec<Refused>,
    /// When planners have something to do for the service by time alone.
    pub next_due: Option<Timestamp>,
    /// The time of the answer, by the leader's clock.
    pub at: Timestamp,
}

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// A service, or one task of it.
    Service(ServiceId),
    /// A network that is being removed.
    Network(NetworkId),
}

/// The service, a slot, a task or the network that waits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Waiting {
    /// `SERVICE`, `SERVICE.SLOT`, `SERVICE.SLOT.TASK` or `NETWORK`.
    pub name: String,
    /// The task, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// How far that came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    /// For what; at least one.
    pub reasons: Vec<Reason>,
}

/// For what something waits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reason {
    /// Stable; programs may match on it.
    pub cause: Cause,
    /// For people.
    pub text: String,
    /// When it is over, if time alone is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Nodes that cannot take the task, by reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Refused>,
}

/// Kinds of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The leader is about to act.
    Due,
    /// No node can take the task.
    NoNode,
    /// A network has no address left, or is not there.
    NoAddress,
    /// The restart delay is not over.
    RestartDelay,
    /// The task's node has not started it yet.
    Starting,
    /// Other slots are updated first.
    UpdateTurn,
    /// Tasks that an update made are watched.
    UpdateMonitor,
    /// A failure paused the update.
    UpdatePaused,
    /// The task goes when the new one of its slot runs.
    Successor,
    /// The slot gets its next task when the old one has ended.
    Predecessor,
    /// Nodes still send connections to a task that is to stop.
    Drain,
    /// The task's node stops it.
    Stopping,
    /// The task's node is down, and nobody knows of it.
    Lost,
    /// The task ended and is not replaced.
    Ended,
    /// The service or the network is being removed.
    Removed,
}

/// Names the nodes that a stopping task waits for.
type Behind<'a> = &'a dyn Fn(&Task) -> Vec<NodeId>;

/// What the service of that id, name or prefix of an id waits for, or the service of such a task,
/// or the network of that id or name that is being removed. `behind` names the nodes that a
/// stopping task waits for.
pub fn why(
    state: &State,
    text: &str,
    now: Timestamp,
    behind: Behind<'_>,
) -> Result<Why, Rejection> {
    Ok(match find(state, text)? {
        Found::Service(service, only) => of_service(state, &service, only, now, behind),
        Found::Network(network) => of_network(state, &network, now, behind),
    })
}

enum Found {
    /// Perhaps one task of it.
    Service(Arc<Service>, Option<TaskId>),
    Network(Arc<Network>),
}

/// A live service, else a task, else what is being removed.
fn find(state: &State, text: &str) -> Result<Found, Rejection> {
    let missing = match state.find_service(text) {
        Ok(service) => return Ok(Found::Service(Arc::clone(service), None)),
        Err(rejection) if rejection.code != Code::NotFound => return Err(rejection),
        Err(rejection) => rejection,
    };
    let mut leaving = state.agenda.leaving.iter().filter_map(|id| state.services.get(id));
    let is_meant =
        |service: &&Arc<Service>| service.spec.name == text || service.id.to_string() == text;
    if let Some(service) = leaving.find(is_meant) {
        return Ok(Found::Service(Arc::clone(service), None));
    }
    let mut removed = state.agenda.removed_networks.iter().filter_map(|id| state.networks.get(id));
    let is_meant =
        |network: &&Arc<Network>| network.spec.name == text || network.id.to_string() == text;
    if let Some(network) = removed.find(is_meant) {
        return Ok(Found::Network(Arc::clone(network)));
    }
    match state.find_task(text) {
        Ok(task) => {
            let service = state.services.get(&task.service).ok_or(missing)?;
            Ok(Found::Service(Arc::clone(service), Some(task.id)))
        }
        Err(rejection) if rejection.code == Code::NotFound => Err(missing),
        Err(rejection) => Err(rejection),
    }
}

fn of_service(
    state: &State,
    service: &Service,
    only: Option<TaskId>,
    now: Timestamp,
    behind: Behind<'_>,
) -> Why {
    let slots = slots(state, service.id);
    let progress = progress(service, &slots, now);
    let Planned { transaction: due, next_due } = planned_for(state, service.id, now);
    let running = slots.values().flat_map(|tasks| &tasks.occupants);
    let running = running.filter(|task| runs(task)).count();
    let mut asker = Asker { state, service, now, behind, progress, places: BTreeMap::new() };
    let mut list = List { listed: asker.of_service(due.changes.len()), left_out: 0 };
    for (slot, tasks) in &slots {
        asker.of_slot(*slot, tasks, &mut |waiting| {
            if only.is_none_or(|only| waiting.task == Some(only)) {
                list.put(waiting);
            }
        });
    }
    Why {
        subject: Subject::Service(service.id),
        name: service.spec.name.clone(),
        running,
        waiting: list.listed,
        left_out: list.left_out,
        passed_over: asker.passed_over(),
        next_due,
        at: now,
    }
}

/// A network that is being removed: it goes with the last task and service on it.
fn of_network(state: &State, network: &Network, now: Timestamp, behind: Behind<'_>) -> Why {
    let tasks: Vec<&Arc<Task>> = reaper::tasks_on(state, network.id).collect();
    let services = reaper::services_at(state, network.id).map(|service| &service.spec.name);
    let mut text = format!("it is being removed: {} tasks on it have yet to end", tasks.len());
    let services = names(services.cloned());
    if !services.is_empty() {
        text += &format!("; these services have an address there: {services}");
    }
    let name = network.spec.name.clone();
    let reasons = vec![Reason::new(Cause::Removed, text)];
    let mut list = List::default();
    list.put(Waiting { name: name.clone(), task: None, state: None, reasons });
    for task in tasks {
        list.put(Waiting::of(task, vec![leaving(state, behind, task)]));
    }
    Why {
        subject: Subject::Network(network.id),
        name,
        running: 0,
        waiting: list.listed,
        left_out: list.left_out,
        passed_over: Vec::new(),
        next_due: None,
        at: now,
    }
}

/// At most [`WAITING_MAX`], and how many more there are.
#[derive(Default)]
struct List {
    listed: Vec<Waiting>,
    left_out: usize,
}

impl List {
    fn put(&mut self, waiting: Waiting) {
        if self.listed.len() < WAITING_MAX {
            self.listed.push(waiting);
        } else {
            self.left_out += 1;
        }
    }
}

impl Waiting {
    fn of(task: &Task, reasons: Vec<Reason>) -> Self {
        let (id, state) = (Some(task.id), Some(task.status.state));
        Self { name: task.name(), task: id, state, reasons }
    }
}

/// A task that is to stop.
fn leaving(state: &State, behind: Behind<'_>, task: &Task) -> Reason {
    let Some(node) = task.node else {
        return Reason::new(Cause::Due, "it is to stop, and no node has it".to_owned());
    };
    let behind = behind(task);
    if behind.is_empty() {
        let text = format!("node {} is stopping it", node_name(state, node));
        return Reason::new(Cause::Stopping, text);
    }
    let nodes = names(behind.into_iter().map(|id| node_name(state, id)));
    let text = format!("it may stop when these nodes send it no more connections: {nodes}");
    Reason::new(Cause::Drain, text)
}

fn node_name(state: &State, id: NodeId) -> String {
    let node = state.nodes.get(&id);
    node.map_or_else(|| id.to_string(), |node| node.name().to_owned())
}

fn runs(task: &Task) -> bool {
    task.is_wanted() && task.status.state == TaskState::Running
}

impl Reason {
    fn new(cause: Cause, text: String) -> Self {
        Self { cause, text, until: None, nodes: Vec::new() }
    }

    fn until(self, until: Timestamp) -> Self {
        Self { until: Some(until), ..self }
    }
}

/// At most [`NAMES_MAX`] of them, and how many more there are.
fn names(names: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = names.collect();
    match all.get(NAMES_MAX..) {
        Some(rest) if !rest.is_empty() => {
            format!("{} and {} more", all[..NAMES_MAX].join(", "), rest.len())
        }
        _few => all.join(", "),
    }
}

fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}.{} s", ms % 1_000 / 100),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests;
