//! Everything that one worker must realise, at one revision. It lists every task, local or
//! remote, of the networks that the node is on, and is kept on the node's disk: without a manager
//! a node that restarts comes back from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, NetworkId, NodeId, ServiceId, TaskId};
use crate::net::{Addresses, Subnets, Vni};
use crate::object::{
    Attachment, GossipKey, ProofKey, PublishedPort, Slot, TaskState, Trust, first_schema,
    is_first_schema,
};
use crate::spec::{Labels, PublishMode, TaskSpec};
use crate::time::{Revision, Timestamp};

/// Everything that one worker must realise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// State that it was made from.
    pub revision: Revision,
    /// The cluster.
    pub cluster: ClusterId,
    /// The node it is for.
    pub node: NodeId,
    /// What it may hold: the cluster's. A version that does not read it does not use it in part.
    #[serde(default = "first_schema", skip_serializing_if = "is_first_schema")]
    pub schema: u32,
    /// UDP port of VXLAN.
    pub data_path_port: u16,
    /// Keys that seal gossip; the first one seals.
    pub gossip_keys: Vec<GossipKey>,
    /// Every node of the cluster, this one too.
    pub nodes: BTreeMap<NodeId, AssignedNode>,
    /// Nodes that used to be members. A caller that shows a certificate of one is turned away. A
    /// node that is neither here nor in `nodes` joined later.
    #[serde(default)]
    pub removed: BTreeSet<NodeId>,
    /// This node's own Raft id, if it is a manager or is to become one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_id: Option<u64>,
    /// Who is to have signed this node's certificate, and whom it is to trust; none: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// The networks that this node takes part in: those of its tasks, and ingress always.
    pub networks: BTreeMap<NetworkId, AssignedNetwork>,
    /// Services with a task or a name on those networks.
    pub services: BTreeMap<ServiceId, AssignedService>,
    /// All tasks on those networks that have a node and have not ended, plus this node's own
    /// tasks without a network.
    pub tasks: BTreeMap<TaskId, AssignedTask>,
    /// What only the running node needs, for this node's own tasks.
    pub own: BTreeMap<TaskId, OwnTask>,
}

impl Assignment {
    /// Whether this node is a manager, or is to become one.
    #[must_use]
    pub fn is_of_manager(&self) -> bool {
        let own = self.nodes.get(&self.node);
        self.raft_id.is_some() || own.is_some_and(|own| own.manager.is_some())
    }
}

/// A node of the cluster as a peer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedNode {
    /// Name for people.
    pub name: String,
    /// Where gossip reaches it.
    pub gossip: SocketAddr,
    /// What its rows in gossip are verified with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_key: Option<ProofKey>,
    /// Where it receives VXLAN.
    pub vtep: IpAddr,
    /// Cluster listener, on managers.
    pub manager: Option<SocketAddr>,
    /// Its `ing0`, once the ingress network exists.
    pub ingress: Option<Attachment>,
    /// False when Raft knows it as down or left.
    pub up: bool,
    /// MTU of its underlay, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underlay_mtu: Option<u32>,
}

/// A network that the node takes part in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedNetwork {
    /// Its name.
    pub name: String,
    /// When it was created.
    #[serde(default)]
    pub created_at: Timestamp,
    /// Its VXLAN id.
    pub vni: Vni,
    /// Its prefixes, with the bridge's addresses.
    pub subnets: Subnets,
    /// No way out.
    pub internal: bool,
    /// The cluster's ingress network.
    pub ingress: bool,
    /// MTU of the underlay as the user gave it; unset: the least of all nodes'.
    pub underlay_mtu: Option<u32>,
}

/// A service as the data plane needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedService {
    /// Its name; empty once the service is removed and its tasks are stopping: DNS no longer
    /// answers for it, and another service may have the name.
    pub name: String,
    /// Virtual address by network; none with DNS round robin.
    pub vips: BTreeMap<NetworkId, Addresses>,
    /// Further names by network.
    pub aliases: BTreeMap<NetworkId, Vec<String>>,
    /// Published ports; none once the service is removed.
    pub ports: Vec<PublishedPort>,
}

/// A task, local or remote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedTask {
    /// Its service.
    pub service: ServiceId,
    /// `<service>.<slot>.<task id>`.
    pub name: String,
    /// Which slot.
    pub slot: Slot,
    /// Where it runs.
    pub node: NodeId,
    /// Its attachments.
    pub attachments: Vec<Attachment>,
    /// It is to stop: no new flows, no DNS; open flows go on.
    pub draining: bool,
}

/// What only the running node needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnTask {
    /// What it runs, its templates written out.
    pub spec: TaskSpec,
    /// What is wanted of it.
    pub desired: TaskState,
    /// How far Raft knows it came: a task that was once started is not started again.
    pub observed: TaskState,
    /// Not to be started before.
    pub start_after: Option<Timestamp>,
    /// Its name, as in [`AssignedTask::name`].
    #[serde(default)]
    pub name: String,
    /// Name of its service.
    pub service_name: String,
    /// Labels of its service.
    pub service_labels: Labels,
    /// Published ports of the spec that it was made from, as in [`Task::ports`].
    ///
    /// [`Task::ports`]: crate::object::Task::ports
    pub ports: Vec<PublishedPort>,
}

impl OwnTask {
    /// Ports that it binds on its node.
    pub fn host_ports(&self) -> impl Iterator<Item = &PublishedPort> {
        self.ports.iter().filter(|port| port.mode == PublishMode::Host)
    }
}
