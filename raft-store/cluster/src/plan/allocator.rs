//! Gives out addresses: `ing0` of each node, virtual addresses and ingress ports of services, and
//! the attachments of tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::decide::ports;
use crate::draft::Draft;
use crate::id::{NetworkId, NodeId, TaskId};
use crate::ipam::{self, NoAddress};
use crate::net::MacAddr;
use crate::object::{Attachment, Node, Service, Task, TaskState};
use crate::rejection::{Code, Rejection};
use crate::spec::{PublishMode, ResolutionMode};
use crate::state::State;

pub(super) fn run(draft: &mut Draft<'_>) {
    attach_nodes(draft);
    for id in draft.state().agenda.lacking.clone() {
        let Some(service) = draft.state().services.get(&id).cloned() else { continue };
        if draft.is_full() {
            return;
        }
        give_vips(draft, &service);
        give_ingress_ports(draft, &service);
    }
    let mut waiting: Vec<_> = waiting(draft.state()).cloned().collect();
    // In the order in which people read them.
    waiting.sort_by_key(|task| (task.service, task.slot, task.id));
    for task in waiting {
        if draft.is_full() {
            return;
        }
        attach_task(draft, &task);
    }
}

/// Whether a task still wants what the allocator and the scheduler give.
pub(super) fn waits_for_node(task: &Task) -> bool {
    task.is_wanted() && task.node.is_none() && task.status.state < TaskState::Assigned
}

/// The tasks that do.
pub(super) fn waiting(state: &State) -> impl Iterator<Item = &Arc<Task>> {
    state.agenda.waiting.iter().filter_map(|id| state.tasks.get(id))
}

/// Whether a node's place on the ingress network is not what it should be.
pub(super) fn is_misplaced(state: &State, node: &Node) -> bool {
    node.ingress.as_ref().map(|held| held.network) != wanted_place(state, node)
}

/// The ingress network, if the node is to have a place there.
fn wanted_place(state: &State, node: &Node) -> Option<NetworkId> {
    state.ingress_network().filter(|_| !node.has_left()).map(|network| network.id)
}

/// Whether the virtual addresses or the ingress ports of a service are not what they should be.
pub(super) fn lacks(state: &State, service: &Service) -> bool {
    let covers = |port: &crate::object::PublishedPort| {
        let mut nodes = ingress_nodes(state);
        let held = port.ingress_ports.keys();
        held.eq(nodes.by_ref().map(|node| &node.id))
    };
    !service.vips.keys().eq(&vip_networks(state, service)) || !ingress_ports(service).all(covers)
}

/// The networks that a task attaches to, in order, with its further names there.
pub(super) fn networks_of(state: &State, task: &Task) -> Vec<(NetworkId, Vec<String>)> {
    let attached = task.spec.attached();
    let mut networks: Vec<_> = attached.map(|(id, names)| (id, names.to_vec())).collect();
    if let Some(ingress) = state.ingress_network().filter(|_| task.is_on_ingress()) {
        networks.push((ingress.id, Vec::new()));
    }
    networks
}

/// What is missing of what a service holds itself, in words for the user.
pub(crate) fn check_service(state: &State, service: &Service) -> Result<(), Rejection> {
    if publishes(service) && state.ingress_network().is_none() {
        return Err(Rejection::new(
            Code::FailedPrecondition,
            "service needs ingress network, but no ingress network is present: create one with \
             docker network create --ingress",
        ));
    }
    for id in vip_networks(state, service) {
        let Some(network) = state.networks.get(&id) else { continue };
        if !service.vips.contains_key(&id) {
            let NoAddress { code, why, remedy } = ipam::no_address(network);
            return Err(Rejection::new(code, format!("{why}: {remedy}")));
        }
    }
    if !publishes(service) {
        return Ok(());
    }
    let nodes = ingress_nodes(state).count();
    if ingress_ports(service).any(|port| port.ingress_ports.len() < nodes) {
        return Err(Rejection::new(
            Code::Exhausted,
            format!(
                "service {} publishes too many ports for {nodes} nodes: {} ingress ports are all",
                service.spec.name,
                ports::INGRESS_PORTS.len()
            ),
        ));
    }
    Ok(())
}

fn ingress_ports(service: &Service) -> impl Iterator<Item = &crate::object::PublishedPort> {
    service.ports.iter().filter(|port| port.mode == PublishMode::Ingress)
}

fn publishes(service: &Service) -> bool {
    ingress_ports(service).next().is_some()
}

/// Nodes that have a place on the ingress network: all that did not leave.
fn ingress_nodes(state: &State) -> impl Iterator<Item = &Arc<Node>> {
    state.nodes.values().filter(|node| !node.has_left())
}

fn attach_nodes(draft: &mut Draft<'_>) {
    for id in draft.state().agenda.misplaced.clone() {
        let Some(node) = draft.state().nodes.get(&id) else { continue };
        if !is_misplaced(draft.state(), node) {
            continue;
        }
        let wanted = wanted_place(draft.state(), node);
        if draft.is_full() {
            return;
        }
        let attachment = wanted
            .and_then(|network| Some((network, next(draft, network)?)))
            .map(|(network, address)| attachment(network, address, Vec::new()));
        draft.edit_node(id, |node| node.ingress = attachment);
    }
}

fn attachment(network: NetworkId, address: IpAddr, aliases: Vec<String>) -> Attachment {
    let mac = MacAddr::for_address(address);
    Attachment { network, addresses: address.into(), mac, aliases }
}

/// The next free address of a network; the search goes on behind it. Nobody holds it until an
/// object that does is put.
fn next(draft: &mut Draft<'_>, id: NetworkId) -> Option<IpAddr> {
    let network = draft.state().networks.get(&id)?;
    let (address, behind) = ipam::next_address(draft.state(), network)?;
    draft.edit_network(id, |network| network.next_address = behind);
    Some(address)
}

/// The networks on which a service has a virtual address.
fn vip_networks(state: &State, service: &Service) -> BTreeSet<NetworkId> {
    let mut networks = BTreeSet::new();
    if service.spec.endpoint_spec.mode == ResolutionMode::Vip {
        networks.extend(&service.spec.terms().networks);
    }
    if publishes(service) {
        networks.extend(state.ingress_network().map(|network| network.id));
    }
    networks
}

fn give_vips(draft: &mut Draft<'_>, service: &Service) {
    let wanted = vip_networks(draft.state(), service);
    let mut vips = service.vips.clone();
    vips.retain(|network, _| wanted.contains(network));
    for network in wanted {
        if !vips.contains_key(&network)
            && let Some(address) = next(draft, network)
        {
            vips.insert(network, address.into());
        }
    }
    draft.edit_service(service.id, |service| service.vips = vips);
}

fn give_ingress_ports(draft: &mut Draft<'_>, service: &Service) {
    if !publishes(service) {
        return;
    }
    let nodes: BTreeSet<NodeId> = ingress_nodes(draft.state()).map(|node| node.id).collect();
    let mut used = ports::ingress_ports_in_use(&service.ports);
    let numbers: BTreeMap<usize, BTreeMap<NodeId, u16>> = service
        .ports
        .iter()
        .enumerate()
        .filter(|(_, port)| port.mode == PublishMode::Ingress)
        .filter_map(|(at, port)| Some((at, ports::cover(port, &nodes, &mut used)?)))
        .collect();
    draft.edit_service(service.id, |service| {
        for (at, numbers) in numbers {
            if let Some(port) = service.ports.get_mut(at) {
                port.ingress_ports = numbers;
            }
        }
    });
}

/// What a task is to be attached to, and the networks on which it gets an address for that: each
/// with the address after which the next search begins.
type Places = (Vec<Attachment>, Vec<(NetworkId, u64)>);

/// All addresses of a task, those that it lacks among them, or on which network they ran out.
fn places(state: &State, task: &Task) -> Result<Places, String> {
    let mut attachments = Vec::new();
    let mut fresh = Vec::new();
    for (id, aliases) in networks_of(state, task) {
        if let Some(held) = task.attachments.iter().find(|held| held.network == id) {
            attachments.push(held.clone());
            continue;
        }
        let network = state.networks.get(&id).ok_or_else(|| format!("network {id} not found"))?;
        let found = ipam::next_address(state, network);
        let (address, behind) = found.ok_or_else(|| ipam::no_address(network).why)?;
        attachments.push(attachment(id, address, aliases));
        fresh.push((id, behind));
    }
    Ok((attachments, fresh))
}

/// Why a task does not get its addresses; `None` if it can have them.
pub(super) fn lacks_address(state: &State, task: &Task) -> Option<String> {
    places(state, task).err()
}

/// Gives a task all addresses that it lacks, or none and says on which network they ran out.
fn attach_task(draft: &mut Draft<'_>, task: &Task) {
    let (attachments, fresh) = match places(draft.state(), task) {
        Ok(places) => places,
        Err(error) => return wait(draft, task.id, error),
    };
    let changed = !fresh.is_empty() || task.status.state < TaskState::Pending;
    for (id, behind) in fresh {
        draft.edit_network(id, |network| network.next_address = behind);
    }
    draft.edit_task(task.id, |task| task.attachments = attachments);
    if changed {
        wait(draft, task.id, String::new());
    }
}

/// The task is pending, and here is why.
fn wait(draft: &mut Draft<'_>, id: TaskId, error: String) {
    let now = draft.now();
    draft.edit_task(id, |task| {
        if task.status.state < TaskState::Pending {
            task.status.state = TaskState::Pending;
            task.status.at = now;
        }
        "pending task scheduling".clone_into(&mut task.status.message);
        task.status.error = error;
    });
}
