//! What is found without a look at all objects: who holds what is given out once, and which
//! objects belong to another. It holds exactly what the objects say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use imbl::{OrdMap, OrdSet};

use super::load::Loads;
use super::pairs::Pairs;
use super::ports::Ports;
use super::prefixes::Prefixes;
use crate::id::{Id, NetworkId, NodeId, ServiceId, TaskId};
use crate::net::{Addresses, Subnet, Vni};
use crate::object::{
    Attachment, CaDigest, KeyDigest, Network, Node, Service, Slot, Task, TaskState,
};
use crate::time::Revision;
use crate::transaction::Object;

/// Who holds an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// The network's own bridge.
    Gateway,
    /// A service: its virtual address.
    Service(ServiceId),
    /// A task.
    Task(TaskId),
    /// A node: its `ing0`.
    Node(NodeId),
}

/// An address that two objects claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) network: NetworkId,
    pub(crate) address: IpAddr,
    pub(crate) by: Holder,
}

type Claim = (NetworkId, IpAddr);

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Index {
    addresses: OrdMap<Claim, Holder>,
    pub(crate) tasks: Pairs<ServiceId, TaskId>,
    /// Tasks that are not known to have ended.
    pub(crate) open_on_node: Pairs<NodeId, TaskId>,
    pub(crate) open_on_network: Pairs<NetworkId, TaskId>,
    /// Those of them that are to stop.
    pub(crate) stopping: Pairs<NodeId, TaskId>,
    /// Nodes that take part in a network, and by how many places and open tasks.
    pub(crate) taking_part: OrdMap<(NetworkId, NodeId), u64>,
    /// Tasks of which nothing more will come.
    pub(crate) over: Pairs<ServiceId, TaskId>,
    pub(crate) in_slot: Pairs<(Slot, ServiceId), TaskId>,
    /// Tasks that could not be run at all.
    pub(crate) rejected: Pairs<ServiceId, TaskId>,
    /// Services with a virtual address or a name on the network, removed ones too.
    pub(crate) services: Pairs<NetworkId, ServiceId>,
    /// Of live networks.
    pub(crate) network_names: Pairs<String, NetworkId>,
    /// Of live services.
    pub(crate) service_names: Pairs<String, ServiceId>,
    pub(crate) ports: Ports,
    pub(crate) vnis: Pairs<Vni, NetworkId>,
    pub(crate) raft_ids: Pairs<u64, NodeId>,
    pub(crate) node_keys: Pairs<KeyDigest, NodeId>,
    /// Of nodes that have not left: what their programs read.
    pub(crate) schemas: Pairs<u32, NodeId>,
    /// Of the same: who signed their certificates, as far as they tell.
    pub(crate) issuers: Pairs<Option<CaDigest>, NodeId>,
    /// Live networks that are the ingress network.
    pub(crate) ingress: OrdSet<NetworkId>,
    /// Of all networks.
    pub(crate) subnets: Prefixes<NetworkId>,
    /// Of all nodes, but for default routes.
    pub(crate) routes: Prefixes<NodeId>,
    pub(crate) tallies: OrdMap<ServiceId, Tally>,
    pub(crate) loads: Loads,
}

/// How many tasks of a service are in which way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Wanted ones, by the version of the spec that they were made from.
    pub(crate) wanted: BTreeMap<Revision, u64>,
    /// Those that are neither wanted nor over and asked to shut down: something follows from them.
    pub(crate) unsettled: u64,
}

impl Index {
    pub(crate) fn holder(&self, network: NetworkId, address: IpAddr) -> Option<Holder> {
        self.addresses.get(&(network, address)).copied()
    }

    /// Takes all that the object holds. A claim on a held address leaves it with its holder and is
    /// returned as the error; so is an object that claims one address twice.
    pub(crate) fn take(&mut self, object: &Object) -> Result<(), Taken> {
        let mut result = Ok(());
        for (claim, holder) in claims(object) {
            if let Some(by) = self.addresses.get(&claim) {
                result = Err(Taken { network: claim.0, address: claim.1, by: *by });
            } else {
                self.addresses.insert(claim, holder);
            }
        }
        self.note(object, true);
        result
    }

    /// The inverse of `take`.
    pub(crate) fn release(&mut self, object: &Object) {
        for (claim, holder) in claims(object) {
            if self.addresses.get(&claim) == Some(&holder) {
                self.addresses.remove(&claim);
            }
        }
        self.note(object, false);
    }

    /// Services with a task in that slot.
    pub(crate) fn services_with_slot(&self, slot: Slot) -> Vec<ServiceId> {
        let keys = self.in_slot.keys((slot, ServiceId::MIN), (slot, ServiceId::MAX));
        let mut found: Vec<_> = keys.map(|(_, id)| *id).collect();
        found.dedup();
        found
    }

    fn note(&mut self, object: &Object, held: bool) {
        match object {
            Object::Cluster(_) => {}
            Object::Node(node) => self.note_node(node, held),
            Object::Network(network) => self.note_network(network, held),
            Object::Service(service) => self.note_service(service, held),
            Object::Task(task) => self.note_task(task, held),
        }
    }

    fn note_node(&mut self, node: &Node, held: bool) {
        self.ports.note_node(node, held);
        self.loads.note_node(node, held);
        if let Some(place) = node.raft() {
            self.raft_ids.note(place.raft_id, node.id, held);
        }
        if let Some(key) = node.key {
            self.node_keys.note(key, node.id, held);
        }
        if !node.has_left() {
            self.schemas.note(node.description.schema, node.id, held);
            let issuer = node.description.trust.as_ref().map(|trust| trust.issuer);
            self.issuers.note(issuer, node.id, held);
        }
        if let Some(place) = &node.ingress {
            self.take_part(place.network, node.id, held);
        }
        for route in routes(node) {
            if held {
                self.routes.insert(*route, node.id);
            } else {
                self.routes.remove(*route, node.id);
            }
        }
    }

    fn note_network(&mut self, network: &Network, held: bool) {
        self.vnis.note(network.vni, network.id, held);
        for subnet in network.subnets.iter() {
            if held {
                self.subnets.insert(subnet, network.id);
            } else {
                self.subnets.remove(subnet, network.id);
            }
        }
        if network.removed {
            return;
        }
        self.network_names.note(network.spec.name.clone(), network.id, held);
        if network.spec.ingress && held {
            self.ingress.insert(network.id);
        } else {
            self.ingress.remove(&network.id);
        }
    }

    fn note_service(&mut self, service: &Service, held: bool) {
        let named = &service.spec.terms().networks;
        for network in service.vips.keys().chain(named) {
            self.services.note(*network, service.id, held);
        }
        if service.removed {
            return;
        }
        self.service_names.note(service.spec.name.clone(), service.id, held);
        self.ports.note_service(service, held);
    }

    fn note_task(&mut self, task: &Task, held: bool) {
        self.tasks.note(task.service, task.id, held);
        if !task.status.state.is_terminal() {
            if let Some(node) = task.node {
                self.open_on_node.note(node, task.id, held);
                for attachment in &task.attachments {
                    self.take_part(attachment.network, node, held);
                }
                if task.desired > TaskState::Running {
                    self.stopping.note(node, task.id, held);
                }
            }
            for attachment in &task.attachments {
                self.open_on_network.note(attachment.network, task.id, held);
            }
        }
        self.in_slot.note((task.slot, task.service), task.id, held);
        if task.is_over() {
            self.over.note(task.service, task.id, held);
        }
        if task.status.state == TaskState::Rejected {
            self.rejected.note(task.service, task.id, held);
        }
        self.loads.note(task, held);
        self.count(task, held);
    }

    fn take_part(&mut self, network: NetworkId, node: NodeId, held: bool) {
        let known = self.taking_part.get(&(network, node)).copied().unwrap_or(0);
        let count = if held { known + 1 } else { known.saturating_sub(1) };
        if count == 0 {
            self.taking_part.remove(&(network, node));
        } else {
            self.taking_part.insert((network, node), count);
        }
    }

    fn count(&mut self, task: &Task, held: bool) {
        let mut tally = self.tallies.get(&task.service).cloned().unwrap_or_default();
        if task.is_wanted() {
            let count = tally.wanted.entry(task.spec_version).or_default();
            *count = if held { *count + 1 } else { count.saturating_sub(1) };
            tally.wanted.retain(|_, count| *count > 0);
        } else if !(task.is_over() && task.desired == TaskState::Shutdown) {
            let count = &mut tally.unsettled;
            *count = if held { *count + 1 } else { count.saturating_sub(1) };
        }
        if tally == Tally::default() {
            self.tallies.remove(&task.service);
        } else {
            self.tallies.insert(task.service, tally);
        }
    }
}

/// Prefixes that a node has routes to; a default route is to no network.
pub(crate) fn routes(node: &Node) -> impl Iterator<Item = &Subnet> {
    node.description.routes.iter().filter(|route| route.prefix_len() > 0)
}

/// The addresses that an object holds.
fn claims(object: &Object) -> Vec<(Claim, Holder)> {
    match object {
        Object::Cluster(_) => Vec::new(),
        Object::Node(node) => attached(&node.ingress, Holder::Node(node.id)),
        Object::Network(network) => {
            let gateways = network.subnets.gateways();
            claimed(std::iter::once((network.id, &gateways)), Holder::Gateway)
        }
        Object::Service(service) => {
            let held = service.vips.iter().map(|(network, vips)| (*network, vips));
            claimed(held, Holder::Service(service.id))
        }
        Object::Task(task) if task.holds_addresses() => {
            attached(&task.attachments, Holder::Task(task.id))
        }
        Object::Task(_) => Vec::new(),
    }
}

fn attached<'a>(
    attachments: impl IntoIterator<Item = &'a Attachment>,
    holder: Holder,
) -> Vec<(Claim, Holder)> {
    claimed(attachments.into_iter().map(|held| (held.network, &held.addresses)), holder)
}

fn claimed<'a>(
    held: impl Iterator<Item = (NetworkId, &'a Addresses)>,
    holder: Holder,
) -> Vec<(Claim, Holder)> {
    let each = held.flat_map(|(network, addresses)| addresses.iter().map(move |a| (network, a)));
    each.map(|claim| (claim, holder)).collect()
}
