//! From the state to what one worker must realise.
//!
//! An assignment is put together from parts: what every node is told, what every node on a network
//! is told, and a node's own. Nodes share the first two, so a leader that serves many of them makes
//! each once per change ([`Parts`]); a node puts its assignment together from them ([`Held`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::assignment::{
    AssignedNetwork, AssignedNode, AssignedService, AssignedTask, Assignment, OwnTask,
};
use crate::decide::MTU_OPTION;
use crate::generic;
use crate::id::{ClusterId, NetworkId, NodeId, ServiceId, TaskId};
use crate::object::Trust;
use crate::object::{GossipKey, Network, Node, NodeState, Service, Task, TaskState};
use crate::spec::TaskSpec;
use crate::state::{Holder, State};
use crate::template::{self, Context};
use crate::time::Revision;

mod held;
mod parts;

pub use self::held::{Hash, Held, Kept, PartError};
pub use self::parts::{Followed, List, Parts};

/// What every node is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Common {
    cluster: ClusterId,
    schema: u32,
    data_path_port: u16,
    gossip_keys: Vec<GossipKey>,
    nodes: BTreeMap<NodeId, AssignedNode>,
    removed: BTreeSet<NodeId>,
    trust: Option<Trust>,
}

/// What every node on a network knows of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OnNetwork {
    id: NetworkId,
    network: AssignedNetwork,
    services: BTreeMap<ServiceId, AssignedService>,
    /// With their attachments to this network alone.
    tasks: BTreeMap<TaskId, AssignedTask>,
}

/// What only one node is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Own {
    node: NodeId,
    raft_id: Option<u64>,
    /// Those that it is on, in the order of their ids.
    networks: BTreeSet<NetworkId>,
    /// Of its tasks without a network.
    services: BTreeMap<ServiceId, AssignedService>,
    tasks: BTreeMap<TaskId, AssignedTask>,
    own: BTreeMap<TaskId, OwnTask>,
}

/// Everything that one node must realise at the state's revision; `None` if there is no cluster or
/// the node is not of it.
#[must_use]
pub fn assignment_for(state: &State, node: NodeId) -> Option<Assignment> {
    let common = Common::of(state)?;
    let own = Own::of(state, node)?;
    let networks: Vec<OnNetwork> =
        own.networks.iter().filter_map(|id| OnNetwork::of(state, *id)).collect();
    Some(assemble(state.revision, &common, &networks.iter().collect::<Vec<_>>(), &own))
}

/// The assignment that consists of these parts.
fn assemble(revision: Revision, common: &Common, networks: &[&OnNetwork], own: &Own) -> Assignment {
    let mut services = own.services.clone();
    let mut tasks = BTreeMap::new();
    for part in networks {
        for (id, service) in &part.services {
            join_service(&mut services, *id, service);
        }
        for (id, task) in &part.tasks {
            join_task(&mut tasks, *id, task);
        }
    }
    // In the order of their attachments.
    tasks.extend(own.tasks.iter().map(|(id, task)| (*id, task.clone())));
    Assignment {
        revision,
        cluster: common.cluster,
        node: own.node,
        schema: common.schema,
        data_path_port: common.data_path_port,
        gossip_keys: common.gossip_keys.clone(),
        nodes: common.nodes.clone(),
        removed: common.removed.clone(),
        raft_id: own.raft_id,
        trust: common.trust.clone(),
        networks: networks.iter().map(|part| (part.id, part.network.clone())).collect(),
        services,
        tasks,
        own: own.own.clone(),
    }
}

fn join_service(
    services: &mut BTreeMap<ServiceId, AssignedService>,
    id: ServiceId,
    service: &AssignedService,
) {
    match services.get_mut(&id) {
        Some(known) => {
            known.vips.extend(&service.vips);
            known.aliases.extend(service.aliases.clone());
        }
        None => {
            services.insert(id, service.clone());
        }
    }
}

fn join_task(tasks: &mut BTreeMap<TaskId, AssignedTask>, id: TaskId, task: &AssignedTask) {
    match tasks.get_mut(&id) {
        Some(known) => known.attachments.extend(task.attachments.iter().cloned()),
        None => {
            tasks.insert(id, task.clone());
        }
    }
}

impl Common {
    fn of(state: &State) -> Option<Self> {
        let cluster = state.cluster.as_ref()?;
        Some(Self {
            cluster: cluster.id,
            schema: cluster.schema,
            data_path_port: cluster.data_path_port,
            gossip_keys: cluster.gossip_keys.clone(),
            nodes: members(state).map(|node| (node.id, assigned_node(node))).collect(),
            removed: removed(state),
            trust: cluster.trust(),
        })
    }
}

impl OnNetwork {
    fn of(state: &State, id: NetworkId) -> Option<Self> {
        let network = assigned_network(state.networks.get(&id)?);
        let open = state.index.open_on_network.of(id).filter_map(|id| state.tasks.get(&id));
        let shown = open.filter(|task| !task.released);
        let assigned = |task: &Arc<Task>| {
            Some((task.id, assigned_task(task, task.node?, |other| other == id)))
        };
        let tasks: BTreeMap<_, _> = shown.filter_map(assigned).collect();
        let with_tasks = tasks.values().map(|task| task.service);
        let ids: BTreeSet<_> = with_tasks.chain(state.index.services.of(id)).collect();
        let services = ids.iter().filter_map(|id| state.services.get(id));
        let services =
            services.map(|service| (service.id, assigned_service(service, |other| other == id)));
        Some(Self { id, network, services: services.collect(), tasks })
    }
}

impl Own {
    fn of(state: &State, node: NodeId) -> Option<Self> {
        state.cluster.as_ref()?;
        let member = state.nodes.get(&node).filter(|node| !node.has_left())?;
        let open: Vec<&Arc<Task>> = {
            let open = state.index.open_on_node.of(node);
            open.filter_map(|id| state.tasks.get(&id)).collect()
        };
        let attached = open.iter().flat_map(|task| task.attachments.iter().map(|a| a.network));
        // A published port answers on every node.
        let ingress = state.ingress_network().map(|network| network.id);
        let exists = |id: &NetworkId| state.networks.contains_key(id);
        let networks: BTreeSet<_> = attached.chain(ingress).filter(exists).collect();
        let held = open.iter().filter(|task| holds_all(state, task));
        let tasks: BTreeMap<_, _> = held
            .map(|task| (task.id, assigned_task(task, node, |id| networks.contains(&id))))
            .collect();
        let apart = tasks.values().filter(|task| task.attachments.is_empty());
        let services = apart.filter_map(|task| state.services.get(&task.service));
        Some(Self {
            node,
            raft_id: member.raft().map(|place| place.raft_id),
            services: services.map(|s| (s.id, assigned_service(s, |_| false))).collect(),
            own: open.iter().map(|task| (task.id, own_task(task, member))).collect(),
            tasks,
            networks,
        })
    }
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

/// Whether no other task was given one of its addresses since it was released.
fn holds_all(state: &State, task: &Task) -> bool {
    let own = |network, address| match state.holder(network, address) {
        Some(Holder::Task(holder)) => holder == task.id,
        Some(Holder::Gateway | Holder::Service(_) | Holder::Node(_)) => false,
        None => true,
    };
    task.attachments.iter().all(|held| held.addresses.iter().all(|a| own(held.network, a)))
}

/// The attachments are those to networks that the node is on: nobody else's business is told.
fn assigned_task(task: &Task, node: NodeId, on: impl Fn(NetworkId) -> bool) -> AssignedTask {
    let shared = task.attachments.iter().filter(|held| on(held.network));
    AssignedTask {
        service: task.service,
        name: task.name(),
        slot: task.slot,
        node,
        attachments: shared.cloned().collect(),
        draining: task.desired > TaskState::Running,
    }
}

fn targets(service: &Service) -> impl Iterator<Item = (NetworkId, &Vec<String>)> {
    let targets = service.spec.network_targets().iter();
    targets.filter_map(|target| Some((target.target.parse().ok()?, &target.aliases)))
}

/// What it has on the networks that the node is on.
fn assigned_service(service: &Service, on: impl Fn(NetworkId) -> bool) -> AssignedService {
    let vips = service.vips.iter().filter(|(network, _)| on(**network));
    let vips = vips.map(|(network, vips)| (*network, *vips)).collect();
    if service.removed {
        // Open flows through its virtual addresses go on; its name and ports may be another's.
        return AssignedService {
            name: String::new(),
            vips,
            aliases: BTreeMap::new(),
            ports: Vec::new(),
        };
    }
    let aliases = targets(service).filter(|(network, names)| on(*network) && !names.is_empty());
    AssignedService {
        name: service.spec.name.clone(),
        vips,
        aliases: aliases.map(|(network, names)| (network, names.clone())).collect(),
        ports: service.ports.clone(),
    }
}

fn own_task(task: &Task, node: &Node) -> OwnTask {
    let mut spec = TaskSpec::clone(&task.spec);
    let context = Context::of(task, node);
    template::expand(&mut spec.container_spec, &context);
    if let Some(driver) = &mut spec.log_driver {
        template::expand_tag(driver, &context);
    }
    // The last of a name wins.
    spec.container_spec.env.extend(generic::variables(&task.generic_resources));
    OwnTask {
        spec,
        desired: task.desired,
        observed: task.status.state,
        start_after: task.start_after,
        name: task.name(),
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
        subnets: network.subnets,
        internal: network.spec.internal,
        ingress: network.spec.ingress,
        underlay_mtu: network.spec.options.get(MTU_OPTION).and_then(|mtu| mtu.parse().ok()),
    }
}

/// Encoding plain maps and numbers cannot fail; no bytes would be refused by the node.
fn bytes(part: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(part).unwrap_or_default()
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
