//! What one service waits for, slot by slot.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Behind, Cause, Reason, Waiting, duration, leaving, names, node_name};
use crate::id::NodeId;
use crate::object::{Service, Slot, Task, TaskState};
use crate::plan::obstacle::{Refusal, Refused, grouped, ineligible};
use crate::plan::slots::SlotTasks;
use crate::plan::updater::Progress;
use crate::plan::{allocator, orchestrator, reaper, restart, scheduler};
use crate::spec::{RestartCondition, ServiceMode};
use crate::state::State;
use crate::time::Timestamp;

/// Answers about one service.
pub(super) struct Asker<'a> {
    pub(super) state: &'a State,
    pub(super) service: &'a Service,
    pub(super) now: Timestamp,
    pub(super) behind: Behind<'a>,
    pub(super) progress: Option<Progress>,
    /// Tasks of one kind are refused by the same nodes.
    pub(super) places: BTreeMap<scheduler::Kind, Vec<Refused>>,
}

impl Asker<'_> {
    /// What the service as a whole waits for.
    pub(super) fn of_service(&self, due: usize) -> Vec<Waiting> {
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

    pub(super) fn of_slot(
        &mut self,
        slot: Slot,
        tasks: &SlotTasks,
        found: &mut dyn FnMut(Waiting),
    ) {
        let mut put = |task: &Task, reasons: Vec<Reason>| {
            if !reasons.is_empty() {
                found(Waiting::of(task, reasons));
            }
        };
        for task in &tasks.occupants {
            put(task, self.of_occupant(slot, task, tasks));
        }
        for task in &tasks.leaving {
            put(task, vec![leaving(self.state, self.behind, task)]);
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
        let (node, status) = (node_name(self.state, node), &task.status);
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

    fn of_lost(&self, task: &Task) -> Reason {
        let until = reaper::orphaned_at(task);
        let left = duration(until.since_ms(self.now));
        let node = task.node.map_or_else(String::new, |node| node_name(self.state, node));
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
    pub(super) fn passed_over(&self) -> Vec<Refused> {
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

    fn slot_name(&self, slot: Slot) -> String {
        match slot {
            Slot::Replica(number) => number.to_string(),
            Slot::Node(node) => node_name(self.state, node),
        }
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
