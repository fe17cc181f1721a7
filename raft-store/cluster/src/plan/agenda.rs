//! What belongs on the agenda: each change of an object is followed by what planners say of it and
//! of what depends on it.
//!
//! The agenda follows from the objects alone: a new leader, or one that left something for later,
//! finds all of it here. It may name an object that turns out to need nothing, never the other way
//! around: planners on everything would plan the same (`laws.rs`).

use imbl::OrdSet;

use super::{allocator, drain, orchestrator, reaper, slots};
use crate::id::{NetworkId, NodeId, ServiceId, TaskId};
use crate::object::{Node, Service, Slot, Task};
use crate::spec::ServiceMode;
use crate::state::{Agenda, State, Taken};
use crate::transaction::{Key, Object};

impl Agenda {
    /// That of a state, from nothing.
    pub(crate) fn of(state: &State) -> Self {
        let mut agenda = Self::default();
        for object in state.objects() {
            agenda.revise(state, object.key(), None, Some(&object));
        }
        agenda
    }

    /// What concerns one service alone.
    pub(super) fn of_service(&self, state: &State, id: ServiceId) -> Self {
        let only = |set: &OrdSet<ServiceId>| set.get(&id).into_iter().copied().collect();
        let tasks = |set: &OrdSet<TaskId>| {
            let own = state.tasks_of(id).map(|task| task.id);
            own.filter(|task| set.contains(task)).collect()
        };
        let crowded = (id, Slot::Replica(0))..=(id, Slot::Node(NodeId(u128::MAX)));
        Self {
            restless: only(&self.restless),
            gaps: self.gaps.clone(),
            globals: self.globals.clone(),
            leaving: only(&self.leaving),
            crowded: self.crowded.range(crowded).copied().collect(),
            adrift: tasks(&self.adrift),
            lost: tasks(&self.lost),
            waiting: tasks(&self.waiting),
            removed_networks: OrdSet::new(),
            misplaced: OrdSet::new(),
            lacking: only(&self.lacking),
        }
    }

    /// How many objects planners have to look at.
    #[cfg(test)]
    pub(crate) fn to_do(&self) -> usize {
        let services = self.restless.len() + self.leaving.len() + self.lacking.len();
        let tasks = self.adrift.len() + self.lost.len() + self.waiting.len();
        let others = self.crowded.len() + self.removed_networks.len() + self.misplaced.len();
        services + tasks + others
    }

    /// Every object, whether there is something to do for it or not.
    #[cfg(test)]
    pub(crate) fn of_everything(state: &State) -> Self {
        let live = state.live_services().map(|service| service.id);
        let live: OrdSet<ServiceId> = live.collect();
        let open = state.tasks.values().filter(|task| !task.status.state.is_terminal());
        let lost = state.tasks.values().filter(|task| reaper::is_lost(task));
        let waiting = state.tasks.values().filter(|task| allocator::waits_for_node(task));
        let slots = state.tasks.values().map(|task| (task.service, task.slot));
        Self {
            restless: live.clone(),
            lacking: live.clone(),
            crowded: slots.filter(|(service, _)| live.contains(service)).collect(),
            adrift: open.map(|task| task.id).collect(),
            lost: lost.map(|task| task.id).collect(),
            waiting: waiting.map(|task| task.id).collect(),
            misplaced: state.nodes.keys().copied().collect(),
            ..state.agenda.clone()
        }
    }

    /// Follows a change of one object, which the state already has.
    pub(crate) fn revise(
        &mut self,
        state: &State,
        key: Key,
        before: Option<&Object>,
        after: Option<&Object>,
    ) {
        match key {
            Key::Cluster => {
                if history(before) != history(after) {
                    let tasks = state.tasks.values();
                    tasks.for_each(|task| self.revise_slot(state, task.service, task.slot));
                }
            }
            Key::Node(id) => self.revise_node(state, id, node(before), node(after)),
            Key::Network(id) => self.revise_network(state, id, before, after),
            Key::Service(id) => self.revise_service(state, id, service(before), service(after)),
            Key::Task(id) => {
                let task = before.or(after).and_then(task);
                let Some((service, slot)) = task.map(|task| (task.service, task.slot)) else {
                    return;
                };
                self.revise_task(state, id);
                self.revise_slot(state, service, slot);
                self.revise_rest(state, service);
            }
        }
    }

    fn revise_node(
        &mut self,
        state: &State,
        id: NodeId,
        before: Option<&Node>,
        after: Option<&Node>,
    ) {
        note(
            &mut self.misplaced,
            id,
            after.is_some_and(|node| allocator::is_misplaced(state, node)),
        );
        for task in state.index.open_on_node.of(id) {
            self.revise_task(state, task);
        }
        for service in self.globals.clone() {
            self.revise_gap(state, service, id);
            self.revise_rest(state, service);
        }
        let stays = |node: Option<&Node>| node.is_some_and(|node| !node.has_left());
        if stays(before) != stays(after) {
            self.revise_publishing(state);
        }
        if before.is_some() != after.is_some() {
            for service in state.index.services_with_slot(Slot::Node(id)) {
                self.revise_slot(state, service, Slot::Node(id));
            }
        }
    }

    fn revise_network(
        &mut self,
        state: &State,
        id: NetworkId,
        before: Option<&Object>,
        after: Option<&Object>,
    ) {
        let (removed_before, ingress_before) = network(before);
        let (removed, ingress) = network(after);
        note(&mut self.removed_networks, id, removed);
        if (removed_before, ingress_before) != (removed, ingress) && (ingress || ingress_before) {
            for node in state.nodes.values() {
                note(&mut self.misplaced, node.id, allocator::is_misplaced(state, node));
            }
            self.revise_publishing(state);
        }
    }

    fn revise_service(
        &mut self,
        state: &State,
        id: ServiceId,
        before: Option<&Service>,
        after: Option<&Service>,
    ) {
        let live = after.filter(|service| !service.removed);
        note(&mut self.leaving, id, after.is_some_and(|service| service.removed));
        note(&mut self.lacking, id, live.is_some_and(|live| allocator::lacks(state, live)));
        let is_global = |live: &Service| matches!(live.spec.mode, ServiceMode::Global(_));
        let global = live.is_some_and(is_global);
        if global || self.globals.contains(&id) {
            note(&mut self.globals, id, global);
            let nodes = self.gaps.range((id, NodeId(0))..=(id, NodeId(u128::MAX)));
            let nodes: Vec<NodeId> = nodes.map(|(_, node)| *node).collect();
            for node in nodes.into_iter().chain(state.nodes.keys().copied()) {
                self.revise_gap(state, id, node);
            }
        }
        self.revise_rest(state, id);
        let lives = |service: Option<&Service>| service.is_some_and(|service| !service.removed);
        if lives(before) != lives(after) || before.is_some() != after.is_some() {
            for task in state.tasks_of(id) {
                self.revise_task(state, task.id);
                self.revise_slot(state, id, task.slot);
            }
        }
    }

    fn revise_publishing(&mut self, state: &State) {
        for id in state.index.ports.on_every_node() {
            let Some(service) = state.services.get(&id) else { continue };
            note(&mut self.lacking, id, allocator::lacks(state, service));
        }
    }

    fn revise_task(&mut self, state: &State, id: TaskId) {
        let task = state.tasks.get(&id);
        note(&mut self.adrift, id, task.is_some_and(|task| drain::concerns(state, task)));
        note(&mut self.lost, id, task.is_some_and(|task| reaper::is_lost(task)));
        note(&mut self.waiting, id, task.is_some_and(|task| allocator::waits_for_node(task)));
        if let Some(Task { service, slot: Slot::Node(node), .. }) = task.map(|task| &**task) {
            self.revise_gap(state, *service, *node);
        }
    }

    fn revise_slot(&mut self, state: &State, service: ServiceId, slot: Slot) {
        note(&mut self.crowded, (service, slot), reaper::is_crowded(state, service, slot));
        if let Slot::Node(node) = slot {
            self.revise_gap(state, service, node);
        }
    }

    fn revise_gap(&mut self, state: &State, service: ServiceId, node: NodeId) {
        let gap = match (state.services.get(&service), state.nodes.get(&node)) {
            (Some(found), Some(node)) if self.globals.contains(&service) => {
                orchestrator::is_gap(state, found, node)
            }
            _gone => false,
        };
        note(&mut self.gaps, (service, node), gap);
    }

    fn revise_rest(&mut self, state: &State, id: ServiceId) {
        let live = state.services.get(&id).filter(|service| !service.removed);
        let mut gaps = self.gaps.range((id, NodeId(0))..=(id, NodeId(u128::MAX)));
        let has_gap = gaps.next().is_some();
        let restless = live.is_some_and(|live| has_gap || !slots::is_at_rest(state, live));
        drop(gaps);
        note(&mut self.restless, id, restless);
    }
}

/// Changes that the agenda follows at once.
impl State {
    /// Stores an object and takes what it holds. On `Err` the index keeps the first holder and the
    /// caller throws this state away.
    pub(crate) fn put(&mut self, object: Object) -> Result<(), Taken> {
        let (key, after) = (object.key(), object.clone());
        let before = self.get(key);
        let taken = self.replace(key, Some(object));
        self.revise(key, before.as_ref(), Some(&after));
        taken
    }

    /// Forgets an object and frees what it held.
    pub(crate) fn remove(&mut self, key: Key) {
        let before = self.get(key);
        // Nothing is taken.
        let _ = self.replace(key, None);
        self.revise(key, before.as_ref(), None);
    }

    /// Has the agenda follow a change that [`State::replace`] made.
    pub(crate) fn revise(&mut self, key: Key, before: Option<&Object>, after: Option<&Object>) {
        let mut agenda = std::mem::take(&mut self.agenda);
        agenda.revise(self, key, before, after);
        self.agenda = agenda;
    }
}

fn note<T: Ord + Clone>(set: &mut OrdSet<T>, item: T, is_in: bool) {
    if is_in {
        set.insert(item);
    } else {
        set.remove(&item);
    }
}

fn node(object: Option<&Object>) -> Option<&Node> {
    match object? {
        Object::Node(node) => Some(node),
        Object::Cluster(_) | Object::Network(_) | Object::Service(_) | Object::Task(_) => None,
    }
}

/// Whether it is a network that is being removed, and whether it is to be the ingress network.
fn network(object: Option<&Object>) -> (bool, bool) {
    match object {
        Some(Object::Network(network)) => (network.removed, network.spec.ingress),
        _other => (false, false),
    }
}

fn service(object: Option<&Object>) -> Option<&Service> {
    match object? {
        Object::Service(service) => Some(service),
        Object::Cluster(_) | Object::Node(_) | Object::Network(_) | Object::Task(_) => None,
    }
}

fn task(object: &Object) -> Option<&Task> {
    match object {
        Object::Task(task) => Some(task),
        Object::Cluster(_) | Object::Node(_) | Object::Network(_) | Object::Service(_) => None,
    }
}

/// The cluster's limit on history.
fn history(object: Option<&Object>) -> Option<usize> {
    match object? {
        Object::Cluster(cluster) => Some(reaper::history_limit(cluster)),
        Object::Node(_) | Object::Network(_) | Object::Service(_) | Object::Task(_) => None,
    }
}
