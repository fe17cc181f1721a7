//! From the state to what one worker must realise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::assignment::{
    AssignedNetwork, AssignedNode, AssignedService, AssignedTask, Assignment, OwnTask,
};
use crate::decide::MTU_OPTION;
use crate::id::{NetworkId, NodeId, TaskId};
use crate::object::{Attachment, Network, Node, NodeState, Service, Task, TaskState};
use crate::state::{Holder, State};
use crate::template::{self, Context};

/// Everything that one node must realise at the state's revision; `None` if there is no cluster or
/// the node is not of it.
#[must_use]
pub fn assignment_for(state: &State, node: NodeId) -> Option<Assignment> {
    let cluster = state.cluster.as_ref()?;
    let member = state.nodes.get(&node).filter(|node| !node.has_left())?;
    let own = own_tasks(state, node);
    let networks = networks(state, &own);
    let tasks = tasks(state, &own, &networks);
    Some(Assignment {
        revision: state.revision,
        cluster: cluster.id,
        node,
        schema: cluster.schema,
        data_path_port: cluster.data_path_port,
        gossip_keys: cluster.gossip_keys.clone(),
        nodes: members(state).map(|node| (node.id, assigned_node(node))).collect(),
        removed: removed(state),
        raft_id: member.raft().map(|place| place.raft_id),
        trust: cluster.trust(),
        services: services(state, &networks, &tasks),
        networks: networks.into_iter().map(|(id, n)| (id, assigned_network(n))).collect(),
        tasks,
        own: own.iter().map(|task| (task.id, own_task(task, member))).collect(),
    })
}

/// The nodes that have not left.
fn members(state: &State) -> impl Iterator<Item = &Arc<Node>> {
    state.nodes.values().filter(|node| !node.has_left())
}

/// Those that are members no more: removed, or left.
fn removed(state: &State) -> BTreeSet<NodeId> {
    let left = state.nodes.values().filter(|node| node.has_left()).map(|node| node.id);
    let removed = state.cluster.iter().flat_map(|cluster| cluster.removed.keys().copied());
    left.chain(removed).collect()
}

/// The node's own tasks that are not known to have ended, stopping ones too.
fn own_tasks(state: &State, node: NodeId) -> Vec<&Arc<Task>> {
    state.index.open_on_node.of(node).filter_map(|id| state.tasks.get(&id)).collect()
}

/// The networks of its own tasks, and ingress always: a published port answers on every node.
fn networks<'a>(state: &'a State, own: &[&Arc<Task>]) -> BTreeMap<NetworkId, &'a Network> {
    let attached = own.iter().flat_map(|task| task.attachments.iter().map(|held| held.network));
    let ingress = state.ingress_network().map(|network| network.id);
    let ids: BTreeSet<NetworkId> = attached.chain(ingress).collect();
    let known = |id: NetworkId| state.networks.get(&id).map(|network| (id, &**network));
    ids.into_iter().filter_map(known).collect()
}

fn tasks(
    state: &State,
    own: &[&Arc<Task>],
    networks: &BTreeMap<NetworkId, &Network>,
) -> BTreeMap<TaskId, AssignedTask> {
    let on_networks = networks.keys().flat_map(|network| state.index.open_on_network.of(*network));
    let others = on_networks.filter_map(|id| state.tasks.get(&id)).filter(|task| !task.released);
    let assigned = |task: &Arc<Task>| Some((task.id, assigned_task(task, task.node?, networks)));
    let mut tasks: BTreeMap<_, _> = others.filter_map(assigned).collect();
    for task in own {
        if holds_all(state, task) {
            tasks.extend(assigned(task));
        } else {
            tasks.remove(&task.id);
        }
    }
    tasks
}

/// Whether no other task was given one of its addresses since it was released.
fn holds_all(state: &State, task: &Task) -> bool {
    let own = |held: &Attachment| match state.holder(held.network, held.address) {
        Some(Holder::Task(holder)) => holder == task.id,
        Some(Holder::Gateway | Holder::Service(_) | Holder::Node(_)) => false,
        None => true,
    };
    task.attachments.iter().all(own)
}

/// The attachments are those that the node shares: nobody else's business is told.
fn assigned_task(
    task: &Task,
    node: NodeId,
    networks: &BTreeMap<NetworkId, &Network>,
) -> AssignedTask {
    let shared = task.attachments.iter().filter(|held| networks.contains_key(&held.network));
    AssignedTask {
        service: task.service,
        name: task.name(),
        slot: task.slot,
        node,
        attachments: shared.cloned().collect(),
        draining: task.desired > TaskState::Running,
    }
}

/// Services with a virtual address, a name or a task on those networks.
fn services(
    state: &State,
    networks: &BTreeMap<NetworkId, &Network>,
    tasks: &BTreeMap<TaskId, AssignedTask>,
) -> BTreeMap<crate::id::ServiceId, AssignedService> {
    let with_tasks = tasks.values().map(|task| task.service);
    let on_networks = networks.keys().flat_map(|network| state.index.services.of(*network));
    let concerned: BTreeSet<_> = with_tasks.chain(on_networks).collect();
    concerned
        .into_iter()
        .filter_map(|id| state.services.get(&id))
        .map(|service| (service.id, assigned_service(service, networks)))
        .collect()
}

fn targets(service: &Service) -> impl Iterator<Item = (NetworkId, &Vec<String>)> {
    let targets = service.spec.network_targets().iter();
    targets.filter_map(|target| Some((target.target.parse().ok()?, &target.aliases)))
}

fn assigned_service(
    service: &Service,
    networks: &BTreeMap<NetworkId, &Network>,
) -> AssignedService {
    let on = |network: &NetworkId| networks.contains_key(network);
    let vips = service.vips.iter().filter(|(network, _)| on(network));
    let vips = vips.map(|(network, vip)| (*network, *vip)).collect();
    if service.removed {
        // Open flows through its virtual addresses go on; its name and ports may be another's.
        return AssignedService {
            name: String::new(),
            vips,
            aliases: BTreeMap::new(),
            ports: Vec::new(),
        };
    }
    let aliases = targets(service).filter(|(network, names)| on(network) && !names.is_empty());
    AssignedService {
        name: service.spec.name.clone(),
        vips,
        aliases: aliases.map(|(network, names)| (network, names.clone())).collect(),
        ports: service.ports.clone(),
    }
}

fn own_task(task: &Task, node: &Node) -> OwnTask {
    let mut spec = task.spec.clone();
    template::expand(&mut spec.container_spec, &Context::of(task, node));
    OwnTask {
        spec,
        desired: task.desired,
        observed: task.status.state,
        start_after: task.start_after,
        service_name: task.service_name.clone(),
        service_labels: task.service_labels.clone(),
        ports: task.ports.clone(),
    }
}

fn assigned_node(node: &Node) -> AssignedNode {
    let up = match node.status.state {
        NodeState::Unknown | NodeState::Ready => true,
        NodeState::Down | NodeState::Disconnected => false,
    };
    AssignedNode {
        name: node.name().to_owned(),
        gossip: node.description.gossip,
        proof_key: node.description.proof_key,
        vtep: node.description.vtep,
        manager: node.manager.as_ref().map(|manager| manager.address),
        ingress: node.ingress.clone(),
        up,
        underlay_mtu: node.description.underlay_mtu,
    }
}

fn assigned_network(network: &Network) -> AssignedNetwork {
    AssignedNetwork {
        name: network.spec.name.clone(),
        created_at: network.meta.created_at,
        vni: network.vni,
        subnet: network.subnet,
        gateway: network.gateway,
        internal: network.spec.internal,
        ingress: network.spec.ingress,
        underlay_mtu: network.spec.options.get(MTU_OPTION).and_then(|mtu| mtu.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use crate::script;

    #[test]
    fn assignment_story() {
        let file = expect_file!["../testdata/assignment.script"];
        file.assert_eq(&script::run(&file.data()));
    }
}
