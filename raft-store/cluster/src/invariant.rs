//! What must hold of every state. Tests and the simulator check it after every apply; a violation
//! is a bug in Skein, never a mistake of the user.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use crate::generic::GenericResource;
use crate::id::{NetworkId, ServiceId};
use crate::net::Addresses;
use crate::object::{Network, PublishedPort, Service, Slot, Task, TaskState};
use crate::spec::PublishMode;
use crate::state::{ANSWERS_MAX, Agenda, Index, State};
use crate::transaction::Object;

/// Something that must not be, in words for developers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All violations of a state that was made by `decide` and `plan`; empty if all is well.
#[must_use]
pub fn check(state: &State) -> Vec<Violation> {
    let mut found = check_allocations(state);
    check_references(state, &mut found);
    check_tasks(state, &mut found);
    found
}

/// Violations that no transaction whatever can cause, because `apply` rejects it: things that are
/// given out twice, and an index that is not what the objects say.
#[must_use]
pub fn check_allocations(state: &State) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut index = Index::default();
    let objects = all_objects(state);
    for object in &objects {
        if let Err(taken) = index.take(object) {
            found.push(Violation(format!(
                "{} and {:?} hold {} on network {}",
                object.key(),
                taken.by,
                taken.address,
                taken.network
            )));
        }
    }
    if index != state.index {
        found.push(Violation("the index is not what the objects say".to_owned()));
    }
    if Agenda::of(state) != state.agenda {
        found.push(Violation("the agenda is not what the objects say".to_owned()));
    }
    if state.answers.len() > ANSWERS_MAX {
        found.push(Violation(format!("{} answers are kept", state.answers.len())));
    }
    let networks = || state.networks.values();
    unique(&mut found, "VNI", networks().map(|n| (n.vni.to_string(), n.id.to_string())));
    let live = state.live_networks();
    unique(&mut found, "name", live.map(|n| (n.spec.name.clone(), n.id.to_string())));
    let live = state.live_services();
    unique(&mut found, "name", live.map(|s| (s.spec.name.clone(), s.id.to_string())));
    let managers = state.nodes.values().filter_map(|node| {
        node.raft().map(|place| (place.raft_id.to_string(), node.id.to_string()))
    });
    unique(&mut found, "Raft id", managers);
    check_published(state, &mut found);
    let live: Vec<_> = state.live_networks().collect();
    for (at, network) in live.iter().enumerate() {
        let of_other =
            |subnet| live[..at].iter().find(|n| n.subnets.overlapping(&subnet).is_some());
        if let Some(other) = network.subnets.iter().find_map(of_other) {
            found.push(Violation(format!(
                "subnets of networks {} and {} overlap",
                network.id, other.id
            )));
        }
    }
    for service in state.services.values() {
        check_ingress_ports(service, &mut found);
    }
    found
}

fn all_objects(state: &State) -> Vec<Object> {
    let nodes = state.nodes.values().cloned().map(Object::Node);
    let networks = state.networks.values().cloned().map(Object::Network);
    let services = state.services.values().cloned().map(Object::Service);
    let tasks = state.tasks.values().cloned().map(Object::Task);
    nodes.chain(networks).chain(services).chain(tasks).collect()
}

fn unique(found: &mut Vec<Violation>, what: &str, held: impl Iterator<Item = (String, String)>) {
    let mut holders: BTreeMap<String, String> = BTreeMap::new();
    for (value, holder) in held {
        if let Some(other) = holders.insert(value.clone(), holder.clone()) {
            found.push(Violation(format!("{other} and {holder} hold {what} {value}")));
        }
    }
}

/// No node has two services for one call.
fn check_published(state: &State, found: &mut Vec<Violation>) {
    let mut held: BTreeMap<_, Vec<(ServiceId, &PublishedPort)>> = BTreeMap::new();
    for service in state.live_services() {
        for port in service.ports.iter().filter(|port| port.mode == PublishMode::Ingress) {
            let others = held.entry((port.protocol, port.published)).or_default();
            for (holder, _) in others.iter().filter(|(_, other)| port.overlaps(other)) {
                found.push(Violation(format!("{holder} and {} hold port {port}", service.id)));
            }
            others.push((service.id, port));
        }
    }
}

fn check_ingress_ports(service: &Service, found: &mut Vec<Violation>) {
    let ports = service.ports.iter().filter(|port| port.mode == PublishMode::Ingress);
    let numbers = ports.flat_map(|port| port.ingress_ports.values());
    let holder = || service.id.to_string();
    unique(found, "ingress port", numbers.map(|number| (number.to_string(), holder())));
}

/// Every address lies in its network and is one that may be given out; every name leads somewhere.
fn check_references(state: &State, found: &mut Vec<Violation>) {
    for service in state.services.values() {
        for (network, vips) in &service.vips {
            check_addresses(state, *network, vips, &format!("service {}", service.id), found);
        }
    }
    for node in state.nodes.values() {
        if let Some(held) = &node.ingress {
            let holder = format!("node {}", node.id);
            check_addresses(state, held.network, &held.addresses, &holder, found);
        }
    }
    for task in state.tasks.values() {
        if !state.services.contains_key(&task.service) {
            found.push(Violation(format!("task {} has no service", task.id)));
        }
        if task.is_over() {
            continue;
        }
        for held in &task.attachments {
            let holder = format!("task {}", task.id);
            check_addresses(state, held.network, &held.addresses, &holder, found);
        }
        if task.node.is_some_and(|node| !state.nodes.contains_key(&node)) {
            found.push(Violation(format!("task {} is on a node that does not exist", task.id)));
        }
    }
}

fn check_addresses(
    state: &State,
    network: NetworkId,
    addresses: &Addresses,
    holder: &str,
    found: &mut Vec<Violation>,
) {
    let Some(network) = state.networks.get(&network) else {
        found.push(Violation(format!("{holder} is on network {network}, which is gone")));
        return;
    };
    for address in addresses.iter().filter(|address| !may_be_given(network, *address)) {
        found.push(Violation(format!(
            "{holder} holds {address}, which network {} ({}) does not give out",
            network.spec.name, network.subnets
        )));
    }
}

fn may_be_given(network: &Network, address: IpAddr) -> bool {
    let Some(subnet) = network.subnets.like(address) else { return false };
    subnet.contains(address)
        && !network.subnets.gateways().contains(address)
        && subnet.address(0) != Some(address)
        && subnet.last() != address
}

/// A slot has one task that stands for it, or two of different specs while it is updated.
fn check_tasks(state: &State, found: &mut Vec<Violation>) {
    let mut occupants: BTreeSet<_> = BTreeSet::new();
    for task in state.tasks.values() {
        if task.desired <= TaskState::Complete
            && !occupants.insert((task.service, task.slot, task.spec_version))
        {
            found.push(Violation(format!("two tasks stand for the slot of {}", task.name())));
        }
        if let (Slot::Node(slot), Some(node)) = (task.slot, task.node)
            && slot != node
        {
            found.push(Violation(format!("global task {} is on another node", task.name())));
        }
        check_placed(task, found);
    }
    check_generic_resources(state, found);
}

/// What a node has by name, one task of it holds: until it has ended, also on a lost node.
fn check_generic_resources(state: &State, found: &mut Vec<Violation>) {
    let open = state.tasks.values().filter(|task| !task.status.state.is_terminal());
    let held = open.flat_map(|task| {
        let named = task.generic_resources.iter().filter_map(|resource| match resource {
            GenericResource::Named(named) => Some(named),
            GenericResource::Discrete(_) => None,
        });
        named.map(|named| (format!("{:?} {}={}", task.node, named.kind, named.value), task.name()))
    });
    unique(found, "generic resource", held);
}

/// A task that a node has got has all its addresses.
fn check_placed(task: &Task, found: &mut Vec<Violation>) {
    let placed = task.status.state >= TaskState::Assigned && !task.is_over();
    if placed && task.node.is_none() {
        found.push(Violation(format!("task {} is placed on no node", task.name())));
    }
    if placed && task.attachments.len() < task.spec.networks.len() {
        found.push(Violation(format!("task {} is placed without its addresses", task.name())));
    }
}
