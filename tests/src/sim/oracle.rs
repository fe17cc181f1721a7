//! The oracle: what must be true once all is calm, and what must be true at every moment.
//!
//! It asks the state what should be, the machines what is, and compares: tasks, views, kernels.

mod kernel;

use std::collections::{BTreeMap, BTreeSet};

use cluster::id::{NodeId, TaskId};
use cluster::object::TaskState;
use cluster::spec::{Replicated, ServiceMode};
use cluster::view::{EndpointKey, EndpointRow, Liveness, View, VtepRow};

use super::Members;
use super::network::address;
use super::raft::same_content;
use super::world::World;

/// Complaints that are printed; the others are more of the same.
const COMPLAINTS_MAX: usize = 12;

impl World {
    /// All that is not as the state says; empty if all is well.
    pub(super) fn complaints(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        self.compare_services(&mut found);
        self.compare_tasks(&mut found);
        self.compare_workers(&mut found);
        self.compare_descriptions(&mut found);
        self.compare_views(&mut found);
        if self.members == Members::Changing {
            self.complain_of_managers(&mut found);
            self.complain_of_keys(&mut found);
        }
        if found.is_empty() {
            self.compare_kernels(&mut found);
        }
        found.truncate(COMPLAINTS_MAX);
        found
    }

    /// Tasks whose programs run, with their nodes.
    pub(super) fn running_tasks(&self) -> BTreeMap<TaskId, NodeId> {
        let tasks = self.hosts.values().flat_map(|host| {
            let running = host.executor.tasks.iter().filter(|(_, task)| task.runs());
            running.map(|(id, _)| (*id, host.id))
        });
        tasks.collect()
    }

    /// At every moment: a task that runs is not taken for ended, or its addresses would be given
    /// to another, unless its node was declared down.
    pub(super) fn check_tasks_that_run(&mut self) {
        for (id, node) in self.running_tasks() {
            if self.leader.let_go.contains(&id) {
                continue;
            }
            let known = self.leader.state.tasks.get(&id);
            if known.is_none_or(|task| task.status.state.is_terminal()) {
                let what = known.map_or("unknown", |task| task.status.state.name());
                self.problems.push(format!("task {id} runs on node {} and is {what}", node.0));
            }
        }
    }

    /// Every service has the tasks that it should have.
    fn compare_services(&self, found: &mut Vec<String>) {
        let state = &self.leader.state;
        for service in state.services.values() {
            if service.removed {
                found.push(format!("service {} is not forgotten", service.spec.name));
                continue;
            }
            if service.update_status.as_ref().is_some_and(|status| status.state.is_running()) {
                found.push(format!("service {} is being updated", service.spec.name));
            }
            let running = state.tasks_of(service.id).filter(|task| {
                task.desired <= TaskState::Running && task.status.state == TaskState::Running
            });
            let expected = match service.spec.mode {
                ServiceMode::Replicated(Replicated { replicas, .. }) => replicas.unwrap_or(1),
                ServiceMode::Global(_) => {
                    self.hosts.values().filter(|host| host.powered).count() as u64
                }
            };
            let running = running.count() as u64;
            if running != expected {
                let (name, status) = (&service.spec.name, &service.update_status);
                let what = format!("has {running} running tasks of {expected}");
                found.push(format!("service {name} {what}; update: {status:?}"));
            }
        }
    }

    /// Every task that should run runs where it should, and no other.
    fn compare_tasks(&self, found: &mut Vec<String>) {
        let running = self.running_tasks();
        let state = &self.leader.state;
        let wanted = state.tasks.values().filter(|task| task.is_wanted());
        let wanted: BTreeMap<TaskId, Option<NodeId>> =
            wanted.map(|task| (task.id, task.node)).collect();
        for (id, node) in &wanted {
            if *node != running.get(id).copied() {
                let status = state.tasks.get(id).map(|task| &task.status);
                found.push(format!("task {id} should run on {node:?}: {status:?}"));
            }
        }
        for task in state.tasks.values().filter(|task| !task.is_wanted() && !task.is_over()) {
            found.push(format!("task {} is still to stop: {:?}", task.id, task.status));
        }
        for (id, node) in running.iter().filter(|(id, _)| !wanted.contains_key(id)) {
            let known = state.tasks.get(id).map(|task| (task.desired, task.status.state));
            found.push(format!("task {id} runs on node {}, in the state: {known:?}", node.0));
        }
    }

    /// Every worker has the newest assignment, its kernel too, and has told all it knows.
    fn compare_workers(&mut self, found: &mut Vec<String>) {
        let live = self.live_nodes();
        for node in live {
            let newest = self.leader.assignment(node, self.now);
            let Some(daemon) = self.daemon(node) else {
                found.push(format!("node {} has no daemon", node.0));
                continue;
            };
            let held = daemon.agent.worker().assignment();
            if let (Some((_, newest)), Some(held)) = (&newest, held)
                && !same_content(newest, held)
            {
                found.push(format!("node {} has an old assignment", node.0));
            }
            if daemon.agent.last_report().applied != newest.map(|(digest, _)| digest) {
                found.push(format!("node {} has not applied its assignment", node.0));
            }
            let statuses = daemon.agent.worker().statuses();
            if !statuses.is_empty() {
                found.push(format!("node {} has news: {statuses:?}", node.0));
            }
        }
    }

    /// The state has every live node as it is, and where it is.
    fn compare_descriptions(&self, found: &mut Vec<String>) {
        let live = self.hosts.values().filter(|host| host.powered);
        for (host, known) in live.filter_map(|host| {
            let known = self.leader.state.nodes.get(&host.id)?;
            Some((host, known))
        }) {
            let id = host.id.0;
            if known.description != host.description {
                let (told, own) = (&known.description, &host.description);
                found.push(format!("node {id} is not as the state has it: {own:?}, {told:?}"));
            }
            let (told, own) = (&known.status.address, address(host.id).ip());
            if *told != own.to_string() {
                found.push(format!("node {id} is at {own}, and in the state at {told:?}"));
            }
        }
    }

    pub(super) fn live_nodes(&self) -> Vec<NodeId> {
        self.hosts.values().filter(|host| host.powered).map(|host| host.id).collect()
    }

    /// Every view shows the rows of every live node as that node states them, and who is alive.
    fn compare_views(&self, found: &mut Vec<String>) {
        let truth = self.true_view();
        let live: BTreeSet<NodeId> = truth.vteps.keys().copied().collect();
        for host in self.hosts.values() {
            let Some(daemon) = &host.daemon else { continue };
            let (node, view) = (host.id.0, &daemon.view);
            if !view.complete {
                found.push(format!("the view of node {node} is not complete"));
            }
            for (id, liveness) in &truth.liveness {
                if view.liveness.get(id).copied().unwrap_or(Liveness::Down) != *liveness {
                    let opinion = view.liveness.get(id);
                    found.push(format!("node {node} holds node {} for {opinion:?}", id.0));
                }
            }
            if live.iter().any(|id| view.vteps.get(id) != truth.vteps.get(id)) {
                found.push(format!("node {node} knows wrong VTEPs: {:?}", view.vteps));
            }
            // Rows of dead nodes are hidden and not deleted.
            let shown = view.endpoints.iter().filter(|(_, row)| live.contains(&row.node));
            let shown: BTreeMap<EndpointKey, EndpointRow> =
                shown.map(|(key, row)| (*key, row.clone())).collect();
            for (key, row) in
                truth.endpoints.iter().filter(|(key, row)| shown.get(*key) != Some(*row))
            {
                found.push(format!("node {node} should see {key:?} {row:?}: {:?}", shown.get(key)));
            }
            let members = &self.leader.state.nodes;
            for (key, row) in view.endpoints.iter().filter(|(_, r)| !members.contains_key(&r.node))
            {
                found.push(format!("node {node} sees {key:?} of node {}, removed", row.node.0));
            }
            for key in shown.keys().filter(|key| !truth.endpoints.contains_key(*key)) {
                found.push(format!("node {node} still sees {key:?}"));
            }
        }
    }

    /// The view of one who knows all: what every live worker states now.
    pub(super) fn true_view(&self) -> View {
        let mut view = View { complete: true, ..View::default() };
        for host in self.hosts.values() {
            let liveness = if host.powered { Liveness::Alive } else { Liveness::Down };
            view.liveness.insert(host.id, liveness);
            let Some(daemon) = &host.daemon else { continue };
            view.vteps.insert(host.id, VtepRow { address: address(host.id).ip() });
            view.endpoints.extend(daemon.agent.worker().own_rows().unwrap_or_default());
        }
        view
    }
}
