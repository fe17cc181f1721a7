//! What a client or a node asks of the cluster. Requests are forwarded from followers to the
//! leader (see `codec`), so they only grow.
//!
//! A request holds nothing that the leader has to draw: ids derive from the seed given to
//! `decide`, and secrets (tokens, keys) are drawn by the shell that makes the request.

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, NetworkId, NodeId, RequestId, ServiceId, TaskId};
use crate::net::Subnet;
use crate::object::{
    CaDigest, CaRotation, GossipKey, KeyDigest, ManagerInfo, NodeDescription, NodeState,
    TaskStatus, UnlockKey,
};
use crate::spec::{Availability, ClusterSpec, NetworkSpec, NodeSpec, Role, ServiceSpec};
use crate::time::Revision;

/// Bytes of the warnings in one recorded answer.
pub const ANSWER_TEXT_BYTES_MAX: usize = 512;
/// Stands for what is not recorded.
const NOT_REPEATED: &str = "the leader changed meanwhile, and not all warnings are repeated";

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Creates the cluster with its ingress network and its first node.
    InitCluster(Box<InitCluster>),
    /// Changes the cluster's spec, or its join tokens.
    UpdateCluster(Box<UpdateCluster>),
    /// Creates an overlay network.
    CreateNetwork {
        /// What it should be.
        spec: Box<NetworkSpec>,
    },
    /// Removes a network that no service uses.
    RemoveNetwork {
        /// Which.
        id: NetworkId,
    },
    /// Creates a service with its tasks.
    CreateService {
        /// What it should be.
        spec: Box<ServiceSpec>,
    },
    /// Replaces a service's spec.
    UpdateService {
        /// Which.
        id: ServiceId,
        /// The version that the client read.
        version: Revision,
        /// What it should be.
        spec: Box<ServiceSpec>,
    },
    /// Puts a service back to the spec before its last update.
    RollbackService {
        /// Which.
        id: ServiceId,
        /// The version that the client read.
        version: Revision,
    },
    /// Removes a service; its tasks stop.
    RemoveService {
        /// Which.
        id: ServiceId,
    },
    /// Replaces a node's spec: labels, availability, the role it should have.
    UpdateNode {
        /// Which.
        id: NodeId,
        /// The version that the client read.
        version: Revision,
        /// What it should be.
        spec: Box<NodeSpec>,
    },
    /// Forgets a node.
    RemoveNode {
        /// Which.
        id: NodeId,
        /// Although it is up.
        force: bool,
    },
    /// A node joins. One whose key is known gets the id that it has.
    JoinNode(Box<JoinNode>),
    /// A manager's log is gone: it gets it again, under another Raft id.
    ReseatManager {
        /// Which.
        id: NodeId,
        /// The Raft id whose log it had.
        lost: u64,
    },
    /// The managers are lost but for this node, which goes on alone.
    TakeOver(Box<JoinNode>),
    /// A node describes itself again.
    DescribeNode {
        /// Which.
        id: NodeId,
        /// What it says.
        description: Box<NodeDescription>,
    },
    /// A node became a voter in Raft.
    PromotedManager {
        /// Which.
        id: NodeId,
        /// Its place there.
        manager: ManagerInfo,
    },
    /// A node is no longer a voter in Raft.
    DemotedManager {
        /// Which.
        id: NodeId,
    },
    /// A node leaves on purpose; its tasks move.
    LeaveNode {
        /// Which.
        id: NodeId,
    },
    /// A node reports its tasks. Unknown tasks, tasks of other nodes and moves downwards are
    /// ignored; if nothing changes the transaction is empty and need not be proposed.
    ReportTasks {
        /// Who reports.
        node: NodeId,
        /// What it knows; `at` is replaced by the leader's time.
        statuses: Vec<(TaskId, TaskStatus)>,
    },
    /// A node's lease was won or lost.
    SetNodeState {
        /// Which.
        id: NodeId,
        /// Ready or Down.
        state: NodeState,
        /// Why.
        message: String,
        /// Address that its session came from; empty: as before.
        address: String,
    },
    /// The next step of turning the key of gossip.
    TurnGossipKey {
        /// Which.
        step: KeyStep,
    },
}

impl Request {
    /// What is asked, for the log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::InitCluster(_) => "init cluster",
            Self::UpdateCluster(_) => "update cluster",
            Self::CreateNetwork { .. } => "create network",
            Self::RemoveNetwork { .. } => "remove network",
            Self::CreateService { .. } => "create service",
            Self::UpdateService { .. } => "update service",
            Self::RollbackService { .. } => "rollback service",
            Self::RemoveService { .. } => "remove service",
            Self::UpdateNode { .. } => "update node",
            Self::RemoveNode { .. } => "remove node",
            Self::JoinNode(_) => "join node",
            Self::ReseatManager { .. } => "reseat manager",
            Self::TakeOver(_) => "take over",
            Self::DescribeNode { .. } => "describe node",
            Self::PromotedManager { .. } => "promoted manager",
            Self::DemotedManager { .. } => "demoted manager",
            Self::LeaveNode { .. } => "leave node",
            Self::ReportTasks { .. } => "report tasks",
            Self::SetNodeState { .. } => "set node state",
            Self::TurnGossipKey { .. } => "turn gossip key",
        }
    }
}

/// A step of turning the key of gossip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyStep {
    /// Nodes get a new key, which the shell drew.
    Spread {
        /// 256 bits.
        key: [u8; 32],
    },
    /// It seals.
    Seal,
    /// The one before it is forgotten.
    Forget,
}

/// The parts of a new cluster that the shell draws or the user gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InitCluster {
    /// Its id.
    pub id: ClusterId,
    /// User intent.
    pub spec: ClusterSpec,
    /// The CA's certificate, PEM.
    pub ca_certificate: String,
    /// The CA's private key, PEM.
    pub ca_key: String,
    /// Text of the token that admits workers.
    pub worker_token: String,
    /// Text of the token that admits managers.
    pub manager_token: String,
    /// The first gossip keys.
    pub gossip_keys: Vec<GossipKey>,
    /// Where subnets are taken from; empty: 10.0.0.0/8, as Docker.
    pub address_pools: Vec<Subnet>,
    /// Prefix length of a taken subnet; 0: 24, as Docker.
    pub subnet_size: u8,
    /// UDP port of VXLAN; 0: 4789.
    pub data_path_port: u16,
    /// What managers are locked with, if the spec has them locked.
    #[serde(default)]
    pub unlock_key: Option<UnlockKey>,
    /// The first node: a manager.
    pub node: JoinNode,
}

/// A node that joins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinNode {
    /// The id that it gets if its key is not known yet, drawn by the manager that admits it.
    pub id: NodeId,
    /// The key that it has proved to hold.
    #[serde(default)]
    pub key: Option<KeyDigest>,
    /// The role that its token gave it.
    pub role: Role,
    /// Whether it takes tasks from the start.
    #[serde(default)]
    pub availability: Availability,
    /// What it says of itself.
    pub description: NodeDescription,
    /// Its place in Raft, on managers.
    pub manager: Option<ManagerInfo>,
}

/// A change of the cluster itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateCluster {
    /// The version that the client read.
    pub version: Revision,
    /// What it should be.
    pub spec: ClusterSpec,
    /// A new token for workers, if it is to be rotated.
    pub worker_token: Option<String>,
    /// A new token for managers, if it is to be rotated.
    pub manager_token: Option<String>,
    /// A fresh key, for a cluster that has none and is to lock its managers.
    #[serde(default)]
    pub unlock_key: Option<UnlockKey>,
    /// Takes the fresh key although there is one.
    #[serde(default)]
    pub rotate_unlock_key: bool,
    /// What is to happen to the CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaChange>,
}

/// A change of the CA, made on the version of the cluster that [`UpdateCluster`] names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CaChange {
    /// Another CA is to take its place; `begun_at` is replaced by the leader's time.
    Rotate(Box<CaRotation>),
    /// It stays: a rotation that runs is called off.
    Keep {
        /// Names it.
        ca: CaDigest,
    },
}

/// One of the times that a request is put to a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The same each time.
    pub id: RequestId,
    /// A revision before which the request was surely not applied, if an earlier attempt may have
    /// brought it into the log.
    pub since: Option<Revision>,
}

/// What the asker gets back once the transaction is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Nothing more to say.
    Done,
    /// A network was created.
    Network {
        /// Its id.
        id: NetworkId,
        /// For the user; empty if there is nothing.
        warning: String,
    },
    /// A service was created or updated.
    Service {
        /// Its id.
        id: ServiceId,
        /// For the user.
        warnings: Vec<String>,
    },
    /// A node joined.
    Node {
        /// Its id.
        id: NodeId,
    },
}

impl Answer {
    /// What is recorded of it: what the asker has to know, and [`ANSWER_TEXT_BYTES_MAX`] of what
    /// there is to say.
    #[must_use]
    pub fn recorded(&self) -> Self {
        match self {
            Self::Done | Self::Node { .. } => self.clone(),
            Self::Network { id, warning } => {
                let fits = warning.len() <= ANSWER_TEXT_BYTES_MAX;
                let warning = if fits { warning.clone() } else { NOT_REPEATED.to_owned() };
                Self::Network { id: *id, warning }
            }
            Self::Service { id, warnings } => {
                let mut room = ANSWER_TEXT_BYTES_MAX;
                let fitting = warnings.iter().take_while(|warning| {
                    let left = room.checked_sub(warning.len());
                    room = left.unwrap_or_default();
                    left.is_some()
                });
                let mut kept: Vec<String> = fitting.cloned().collect();
                if kept.len() < warnings.len() {
                    kept.push(NOT_REPEATED.to_owned());
                }
                Self::Service { id: *id, warnings: kept }
            }
        }
    }
}
