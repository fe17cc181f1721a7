//! Why a service does not have the tasks that it should have: what waits, and for what.
//!
//! Nothing is decided here. Each answer is that of the planner which waits: the obstacles that the
//! scheduler found on each node, the progress that the updater acts on, the verdict of the restart
//! policy. What only the leader's dispatcher knows comes in as a question (`behind`).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::obstacle::{Refusal, Refused, grouped, ineligible};
use super::slots::{SlotTasks, slots};
use super::updater::{Progress, progress};
use super::{allocator, orchestrator, planned_for, reaper, restart, scheduler};
use crate::id::{NodeId, ServiceId, TaskId};
use crate::object::{Service, Slot, Task, TaskState};
use crate::rejection::{Code, Rejection};
use crate::spec::{RestartCondition, ServiceMode};
use crate::state::State;
use crate::time::Timestamp;

/// Tasks and slots that an answer lists.
const WAITING_MAX: usize = 200;
/// Names in one sentence.
const NAMES_MAX: usize = 3;

/// What a service waits for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Why {
    /// Its id.
    pub service: ServiceId,
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

/// The service, a slot or a task that waits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Waiting {
    /// `SERVICE`, `SERVICE.SLOT` or `SERVICE.SLOT.TASK`.
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
    /// The service is being removed.
    Removed,
}

/// What the service of that id, name or prefix of an id waits for, or the service of such a task.
/// `behind` names the nodes that a stopping task waits for.
pub fn why(
    state: &State,
    text: &str,
    now: Timestamp,
    behind: &dyn Fn(&Task) -> Vec<NodeId>,
) -> Result<Why, Rejection> {
    let (service, only) = find(state, text)?;
    let slots = slots(state, service.id);
    let progress = progress(&service, &slots, now);
    let (due, next_due) = planned_for(state, service.id, now);
    let running = slots.values().flat_map(|tasks| &tasks.occupants);
    let running = running.filter(|task| runs(task)).count();
    let mut asker =
        Asker { state, service: &service, now, behind, progress, places: BTreeMap::new() };
    let mut found = asker.of_service(due.changes.len());
    let mut left_out = 0;
    for (slot, tasks) in &slots {
        asker.of_slot(*slot, tasks, &mut |waiting| {
            let is_asked = only.is_none_or(|only| waiting.task == Some(only));
            if is_asked && found.len() < WAITING_MAX {
                found.push(waiting);
            } else if is_asked {
                left_out += 1;
            }
        });
    }
    Ok(Why {
        service: service.id,
        name: service.spec.name.clone(),
        running,
        waiting: found,
        left_out,
        passed_over: asker.passed_over(),
        next_due: if due.is_empty() { next_due } else { Some(now) },
        at: now,
    })
}

/// A live service, else one that is being removed, else a task.
fn find(state: &State, text: &str) -> Result<(Arc<Service>, Option<TaskId>), Rejection> {
    let missing = match state.find_service(text) {
        Ok(service) => return Ok((Arc::clone(service), None)),
        Err(rejection) if rejection.code != Code::NotFound => return Err(rejection),
        Err(rejection) => rejection,
    };
    let mut leaving = state.agenda.leaving.iter().filter_map(|id| state.services.get(id));
    let called =
        |service: &&Arc<Service>| service.spec.name == text || service.id.to_string() == text;
    if let Some(service) = leaving.find(called) {
        return Ok((Arc::clone(service), None));
    }
    match state.find_task(text) {
        Ok(task) => {
            let service = state.services.get(&task.service).cloned();
            Ok((service.ok_or(missing)?, Some(task.id)))
        }
        Err(rejection) if rejection.code == Code::NotFound => Err(missing),
        Err(rejection) => Err(rejection),
    }
}

fn runs(task: &Task) -> bool {
    task.is_wanted() && task.status.state == TaskState::Running
}

/// Answers about one service.
struct Asker<'a> {
    state: &'a State,
    service: &'a Service,
    now: Timestamp,
    behind: &'a dyn Fn(&Task) -> Vec<NodeId>,
    progress: Option<Progress>,
    /// Tasks of one kind are refused by the same nodes.
    places: BTreeMap<scheduler::Kind, Vec<Refused>>,
}

impl Asker<'_> {
    /// What the service as a whole waits for.
    fn of_service(&self, due: usize) -> Vec<Waiting> {
        let mut reasons = Vec::new();
        if due > 0 {
            let text = format!("the leader is about to change {due} objects");
            reasons.push(Reason::new(Cause::Due, text).until(self.now));
        }
        if self.service.removed {
            let open = self.state.tasks_of(self.service.id).filter(|task| !task.is_over());
            let text = format!("it is being removed: {} tasks have yet to end", open.count());
            reasons.push(Reason::new(Cause::Removed, text));
        } else if let Err(rejection) = allocator::check_service(self.state, self.service) {
            reasons.push(Reason::new(Cause::NoAddress, rejection.message));
        }
        let monitored = self.progress.as_ref().and_then(|all| all.monitored_until(self.now));
        if let Some(until) = monitored {
            let left = duration(until.since_ms(self.now));
            let text = format!("the update completes if no task fails: {left} left to watch them");
            reasons.push(Reason::new(Cause::UpdateMonitor, text).until(until));
        }
        if let Some(text) = self.paused() {
            reasons.push(Reason::new(Cause::UpdatePaused, text));
        }
        let name = self.service.spec.name.clone();
        let waiting = Waiting { name, task: None, state: None, reasons };
        Some(waiting).filter(|waiting| !waiting.reasons.is_empty()).into_iter().collect()
    }

    fn of_slot(&mut self, slot: Slot, tasks: &SlotTasks, found: &mut dyn FnMut(Waiting)) {
        let mut put = |task: &Task, reasons: Vec<Reason>| {
            if !reasons.is_empty() {
                let (id, state) = (Some(task.id), Some(task.status.state));
                found(Waiting { name: task.name(), task: id, state, reasons });
            }
        };
        for task in &tasks.occupants {
            put(task, self.of_occupant(slot, task, tasks));
        }
        for task in &tasks.leaving {
            put(task, vec![self.of_leaving(task)]);
        }
        for task in tasks.over.iter().filter(|task| reaper::is_lost(task)) {
            put(task, vec![self.of_lost(task)]);
        }
        if tasks.occupants.is_empty()
            && !self.service.removed
            && orchestrator::waits(self.service, tasks)
        {
            let old = names(tasks.leaving.iter().map(|task| task.name()));
            let text = format!("its next task is made when the old one has ended: {old}");
            let name = format!("{}.{}", self.service.spec.name, self.slot_name(slot));
            let reasons = vec![Reason::new(Cause::Predecessor, text)];
            found(Waiting { name, task: None, state: None, reasons });
        }
    }

    /// A task that stands for its slot.
    fn of_occupant(&mut self, slot: Slot, task: &Arc<Task>, tasks: &SlotTasks) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if task.is_wanted() && task.status.state < TaskState::Running {
            if task.node.is_none() {
                reasons.extend(self.unplaced(task));
            }
            match task.delayed_until(self.now) {
                Some(until) => reasons.push(self.delayed(until, tasks)),
                None => reasons.extend(task.node.map(|node| self.starting(task, node))),
            }
        }
        if task.status.state.is_terminal() {
            reasons.extend(ended(task));
        }
        if task.spec_version != self.service.spec_version {
            reasons.extend(self.out_of_date(slot, tasks));
        }
        reasons
    }

    /// What a task without a node lacks.
    fn unplaced(&mut self, task: &Arc<Task>) -> Option<Reason> {
        if let Some(text) = allocator::lacks_address(self.state, task) {
            return Some(Reason::new(Cause::NoAddress, text));
        }
        let state = self.state;
        let nodes = self.places.entry(scheduler::kind(task)).or_insert_with(|| {
            let ready = scheduler::is_ready(state, task);
            let refusals = scheduler::refusals(state, task).filter(|_| ready);
            refusals.map(|refusals| grouped(state, &refusals)).unwrap_or_default()
        });
        let each: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        let text = match each.as_slice() {
            [] => return None,
            each => format!("no suitable node: {}", each.join("; ")),
        };
        Some(Reason { nodes: nodes.clone(), ..Reason::new(Cause::NoNode, text) })
    }

    /// A task whose restart delay is not over.
    fn delayed(&self, until: Timestamp, tasks: &SlotTasks) -> Reason {
        let left = duration(until.since_ms(self.now));
        let ends = tasks.over.iter().filter(|task| task.status.state.is_own_end());
        let last = ends.max_by_key(|task| (task.meta.created_at, task.meta.version));
        let after = last.map_or_else(String::new, |task| {
            format!(", after task {} ended: {}", task.id, end(task))
        });
        Reason::new(Cause::RestartDelay, format!("its restart delay: {left} left{after}"))
            .until(until)
    }

    /// A task that its node has yet to start.
    fn starting(&self, task: &Task, node: NodeId) -> Reason {
        let since = duration(self.now.since_ms(task.status.at));
        let (node, status) = (self.node_name(node), &task.status);
        let text = match status.state {
            TaskState::Assigned => format!("node {node} has yet to accept it, for {since}"),
            state => format!("node {node} has yet to start it: {state} for {since}"),
        };
        let told = [status.message.as_str(), status.error.as_str()];
        let told: Vec<&str> = told
            .into_iter()
            .filter(|told| status.state > TaskState::Assigned && !told.is_empty())
            .collect();
        let more = if told.is_empty() { String::new() } else { format!(" ({})", told.join(": ")) };
        Reason::new(Cause::Starting, text + &more)
    }

    /// A task of another spec than the service's.
    fn out_of_date(&self, slot: Slot, tasks: &SlotTasks) -> Option<Reason> {
        let mut current = tasks.occupants.iter();
        if let Some(next) = current.find(|task| task.spec_version == self.service.spec_version) {
            let text = format!("it goes when task {} runs", next.name());
            return Some(Reason::new(Cause::Successor, text));
        }
        if self.paused().is_some() {
            let text = "it keeps its spec: the update is paused".to_owned();
            return Some(Reason::new(Cause::UpdatePaused, text));
        }
        let progress = self.progress.as_ref()?;
        let before = progress.out_of_date.iter().position(|other| *other == slot)?;
        let busy = progress.moving.iter().chain(progress.delayed.keys());
        let busy = names(busy.map(|slot| self.slot_name(*slot)));
        let text = format!(
            "its turn in the update: {before} slots are before it, {} at a time; in progress or in \
             the delay after it: {busy}",
            progress.parallelism
        );
        let reason = Reason::new(Cause::UpdateTurn, text);
        Some(Reason { until: progress.next_turn(), ..reason })
    }

    /// A task that is to stop.
    fn of_leaving(&self, task: &Task) -> Reason {
        let Some(node) = task.node else {
            return Reason::new(Cause::Due, "it is to stop, and no node has it".to_owned());
        };
        let behind = (self.behind)(task);
        if behind.is_empty() {
            let text = format!("node {} is stopping it", self.node_name(node));
            return Reason::new(Cause::Stopping, text);
        }
        let nodes = names(behind.into_iter().map(|id| self.node_name(id)));
        let text = format!("it may stop when these nodes send it no more connections: {nodes}");
        Reason::new(Cause::Drain, text)
    }

    fn of_lost(&self, task: &Task) -> Reason {
        let until = reaper::orphaned_at(task);
        let left = duration(until.since_ms(self.now));
        let node = task.node.map_or_else(String::new, |node| self.node_name(node));
        let text = format!("node {node} is down; if it stays so, the task is given up in {left}");
        Reason::new(Cause::Lost, text).until(until)
    }

    /// Why the update goes no further.
    fn paused(&self) -> Option<String> {
        let status = self.service.update_status.as_ref()?;
        let paused = status.state.is_paused() && !self.service.removed;
        paused.then(|| format!("{}; update it again or roll it back", status.message))
    }

    /// Nodes on which a global service is to have no task.
    fn passed_over(&self) -> Vec<Refused> {
        let nodes = match self.service.spec.mode {
            ServiceMode::Global(_) if !self.service.removed => Some(self.state.nodes.values()),
            ServiceMode::Global(_) | ServiceMode::Replicated(_) => None,
        };
        let refusals = nodes.into_iter().flatten().filter_map(|node| {
            let obstacle = ineligible(self.service, node)?;
            Some(Refusal { node, obstacle })
        });
        grouped(self.state, &refusals.collect::<Vec<_>>())
    }

    fn node_name(&self, id: NodeId) -> String {
        let node = self.state.nodes.get(&id);
        node.map_or_else(|| id.to_string(), |node| node.name().to_owned())
    }

    fn slot_name(&self, slot: Slot) -> String {
        match slot {
            Slot::Replica(number) => number.to_string(),
            Slot::Node(node) => self.node_name(node),
        }
    }
}

impl Reason {
    fn new(cause: Cause, text: String) -> Self {
        Self { cause, text, until: None, nodes: Vec::new() }
    }

    fn until(self, until: Timestamp) -> Self {
        Self { until: Some(until), ..self }
    }
}

/// A task that ended for good.
fn ended(task: &Task) -> Option<Reason> {
    // It was judged when it last changed.
    let restart::Verdict::Done(spent) = restart::verdict(task, task.meta.updated_at) else {
        return None;
    };
    let policy = match spent {
        restart::Spent::Condition(RestartCondition::OnFailure) => {
            "its restart policy has the condition on-failure".to_owned()
        }
        restart::Spent::Condition(RestartCondition::None | RestartCondition::Any) => {
            "its restart policy has the condition none".to_owned()
        }
        restart::Spent::Attempts(max) => {
            format!("its restart policy allows {max} attempts, and they were made")
        }
    };
    let text = format!("it ended and is not replaced: {}; {policy}", end(task));
    Some(Reason::new(Cause::Ended, text))
}

/// How a task ended.
fn end(task: &Task) -> String {
    let status = &task.status;
    if status.error.is_empty() {
        status.state.to_string()
    } else {
        format!("{} ({})", status.state, status.error)
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
