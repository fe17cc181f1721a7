//! The replicated state: every object, an index of who holds and has what, the agenda of planners,
//! and what clients were answered.
//!
//! Invariant: index and agenda hold exactly what the objects say (`invariant::check` compares).
//! Tables are read-only outside this crate; `apply` is the one way in. All are persistent maps: a
//! clone costs nothing, a change copies the path to what it changes, and readers keep a snapshot as
//! long as they like.

use std::net::IpAddr;
use std::sync::Arc;

use crate::id::{NetworkId, NodeId, ServiceId, TaskId};
use crate::net::Subnet;
use crate::object::{Cluster, KeyDigest, Network, Node, Service, Task};
use crate::time::Revision;
use crate::transaction::{Answered, Key, Object};

pub(crate) use self::agenda::Agenda;
pub use self::answers::{ANSWERS_MAX, Answers};
pub use self::index::Holder;
pub(crate) use self::index::{Index, Taken, Tally, routes};
pub(crate) use self::load::{Load, Ranking};
pub(crate) use self::ports::{AUTO_PORTS, Port};

mod agenda;
mod answers;
mod digest;
mod index;
mod load;
mod pairs;
mod ports;
mod prefixes;
mod snapshot;
mod table;

pub use self::digest::{DIGEST_LAYOUT, Digest};
pub use self::table::Table;
#[cfg(test)]
pub(crate) use self::table::passed;

/// The replicated state at one revision.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// Log index at which it last changed.
    pub revision: Revision,
    /// The cluster, once it is created.
    pub cluster: Option<Arc<Cluster>>,
    /// Nodes.
    pub nodes: Table<NodeId, Node>,
    /// Networks, also those that are being removed.
    pub networks: Table<NetworkId, Network>,
    /// Services, also those that are being removed.
    pub services: Table<ServiceId, Service>,
    /// Tasks, also ended ones that are kept as history.
    pub tasks: Table<TaskId, Task>,
    /// What clients were answered lately.
    pub answers: Answers,
    /// Of all objects and answers: equal on all managers at one revision. A draft does not keep it.
    pub digest: Digest,
    pub(crate) index: Index,
    pub(crate) agenda: Agenda,
}

impl State {
    /// The object of that name.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<Object> {
        match key {
            Key::Cluster => self.cluster.clone().map(Object::Cluster),
            Key::Node(id) => self.nodes.get(&id).cloned().map(Object::Node),
            Key::Network(id) => self.networks.get(&id).cloned().map(Object::Network),
            Key::Service(id) => self.services.get(&id).cloned().map(Object::Service),
            Key::Task(id) => self.tasks.get(&id).cloned().map(Object::Task),
        }
    }

    /// Networks that clients see.
    pub fn live_networks(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.networks.values().filter(|network| !network.removed)
    }

    /// Services that clients see.
    pub fn live_services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().filter(|service| !service.removed)
    }

    /// The cluster's ingress network.
    #[must_use]
    pub fn ingress_network(&self) -> Option<&Arc<Network>> {
        self.index.ingress.get_min().and_then(|id| self.networks.get(id))
    }

    /// All tasks of a service, in the order of their ids.
    pub fn tasks_of(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.index.tasks.of(service).filter_map(|id| self.tasks.get(&id))
    }

    /// The live service of that name.
    #[must_use]
    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        let mut found = self.index.service_names.of(name.to_owned());
        found.next().and_then(|id| self.services.get(&id))
    }

    /// The live network of that name.
    #[must_use]
    pub fn network_named(&self, name: &str) -> Option<&Arc<Network>> {
        let mut found = self.index.network_names.of(name.to_owned());
        found.next().and_then(|id| self.networks.get(&id))
    }

    /// A node's tasks that are to stop and are not known to have ended.
    pub fn stopping_on(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.index.stopping.of(node).filter_map(|id| self.tasks.get(&id))
    }

    /// The nodes that take part in a network: with a place there, or a task that is not known to
    /// have ended.
    pub fn nodes_on(&self, network: NetworkId) -> impl Iterator<Item = &Arc<Node>> {
        let range = (network, NodeId(0))..=(network, NodeId(u128::MAX));
        let ids = self.index.taking_part.range(range).map(|((_, node), _)| node);
        ids.filter_map(|id| self.nodes.get(id))
    }

    /// Tasks that nobody can say anything of: their node is down, and their addresses may be
    /// others'.
    pub(crate) fn lost_tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.agenda.lost.iter().filter_map(|id| self.tasks.get(id))
    }

    /// Services with a virtual address or a name on a network, removed ones too.
    pub(crate) fn services_on(&self, network: NetworkId) -> impl Iterator<Item = &Arc<Service>> {
        self.index.services.of(network).filter_map(|id| self.services.get(&id))
    }

    /// Live networks whose subnets share an address with this one.
    pub(crate) fn networks_over(&self, subnet: Subnet) -> impl Iterator<Item = &Arc<Network>> {
        let found = self.index.subnets.overlapping(subnet);
        found.filter_map(|id| self.networks.get(&id)).filter(|network| !network.removed)
    }

    /// The node that joined with a key.
    pub(crate) fn node_with_key(&self, key: KeyDigest) -> Option<&Arc<Node>> {
        self.index.node_keys.of(key).next().and_then(|id| self.nodes.get(&id))
    }

    /// Nodes with a place in Raft: managers, and those on their way there.
    pub(crate) fn in_raft(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.index.raft_ids.ids().filter_map(|id| self.nodes.get(&id))
    }

    /// Who holds an address of a network, if anybody does.
    #[must_use]
    pub fn holder(&self, network: NetworkId, address: IpAddr) -> Option<Holder> {
        self.index.holder(network, address)
    }

    /// Changes an object and the index, and leaves the agenda to [`State::revise`].
    pub(crate) fn replace(&mut self, key: Key, object: Option<Object>) -> Result<(), Taken> {
        if let Some(old) = self.get(key) {
            self.index.release(&old);
        }
        let Some(object) = object else {
            match key {
                Key::Cluster => self.cluster = None,
                Key::Node(id) => self.nodes.take(&id),
                Key::Network(id) => self.networks.take(&id),
                Key::Service(id) => self.services.take(&id),
                Key::Task(id) => self.tasks.take(&id),
            }
            return Ok(());
        };
        let object = self.shared(object);
        let taken = self.index.take(&object);
        match object {
            Object::Cluster(cluster) => self.cluster = Some(cluster),
            Object::Node(node) => self.nodes.put(node.id, node),
            Object::Network(network) => self.networks.put(network.id, network),
            Object::Service(service) => self.services.put(service.id, service),
            Object::Task(task) => self.tasks.put(task.id, task),
        }
        taken
    }

    /// The object with a spec that the state has already, if that is the same.
    fn shared(&self, object: Object) -> Object {
        match object {
            Object::Task(task) => {
                let service = self.services.get(&task.service);
                let service = service.filter(|found| found.spec_version == task.spec_version);
                match service.and_then(|service| service.spec.shared(&task.spec)) {
                    Some(spec) => Object::Task(Arc::new(Task { spec, ..Task::clone(&task) })),
                    None => Object::Task(task),
                }
            }
            Object::Cluster(_) | Object::Node(_) | Object::Network(_) | Object::Service(_) => {
                object
            }
        }
    }

    /// Keeps the answer of a request that has none.
    pub(crate) fn keep_answer(&mut self, at: Revision, answered: &Answered) {
        self.digest.add_answer(at, answered);
        if let Some((at, forgotten)) = self.answers.keep(at, answered) {
            self.digest.take_answer(at, &forgotten);
        }
    }
}
