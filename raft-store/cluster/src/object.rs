//! Objects of the replicated state: user intent plus the fields that the system owns.
//!
//! Objects travel in the log and in snapshots as JSON bytes inside a versioned bincode envelope
//! (see `transaction`), so they may gain fields (each new one has a serde default) but never change
//! the meaning of an old one.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::generic::GenericResource;
use crate::id::{ClusterId, NetworkId, NodeId, ServiceId};
use crate::net::{Addresses, MacAddr, Subnet, Subnets, Vni};
use crate::spec::{CheckedSpec, ClusterSpec, NetworkSpec, NodeSpec, Protocol, PublishMode, Role};
use crate::time::{Revision, Timestamp};

pub use crate::object::task::{FirstRun, Restarts, Task, TaskState, TaskStatus};
pub use crate::object::trust::{CaDigest, CaRotation, Trust};

mod task;
mod trust;

/// What every object has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meta {
    /// Revision at which the object last changed: Docker's `Version.Index`.
    pub version: Revision,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// The cluster itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// Version and times.
    pub meta: Meta,
    /// User intent.
    pub spec: ClusterSpec,
    /// The CA's certificate, PEM.
    pub ca_certificate: String,
    /// The CA's private key, PEM: every manager can sign.
    pub ca_key: String,
    /// Full text of the current tokens, `SWMTKN-1-<digest>-<secret>`.
    pub worker_token: String,
    /// The same for managers.
    pub manager_token: String,
    /// Keys that seal gossip; the first one seals, all open.
    pub gossip_keys: Vec<GossipKey>,
    /// Where subnets are taken from when a network gives none.
    pub address_pools: Vec<Subnet>,
    /// Prefix length of a taken subnet.
    pub subnet_size: u8,
    /// UDP port of VXLAN on every node.
    pub data_path_port: u16,
    /// Nodes that were removed, and when. Their certificates are refused; an id is forgotten once
    /// no certificate of it can be valid any more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<NodeId, Timestamp>,
    /// The longest life that certificates were signed for, in milliseconds; 0: that of the spec.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub certificate_ms_max: u64,
    /// How far the newest key of gossip has come.
    #[serde(default, skip_serializing_if = "KeyTurn::is_done")]
    pub key_turn: KeyTurn,
    /// When it was made; a cluster's first one is as old as the cluster.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub key_made_at: Timestamp,
    /// Managers keep their keys sealed under it (autolock).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlock_key: Option<UnlockKey>,
    /// What entries, snapshots and assignments may hold.
    #[serde(default = "first_schema", skip_serializing_if = "is_first_schema")]
    pub schema: u32,
    /// Names the CA once there was a rotation; before, nodes are not told whom to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaDigest>,
    /// The CA that is to take its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_rotation: Option<Box<CaRotation>>,
}

/// Ends with the newest schema that this version reads and writes. It grows by one with the first
/// field, object or request that the version before would not understand or would drop.
///
/// Data of the program and not a constant, so that two versions can be tested side by side: the
/// test changes the number in a copy of the program. No flag, variable or file does.
static NEWEST_SCHEMA: [u8; 28] = *b"Skein reads up to schema \0\0\x01";

/// The newest schema that this version reads and writes.
#[must_use]
pub fn newest_schema() -> u32 {
    let [.., high, middle, low] = *std::hint::black_box(&NEWEST_SCHEMA);
    u32::from_be_bytes([0, high, middle, low])
}

/// The one before there were numbers: who tells none has it.
#[must_use]
pub fn first_schema() -> u32 {
    1
}

/// Whether a number need not be told.
#[must_use]
pub fn is_first_schema(schema: &u32) -> bool {
    *schema == 1
}

/// How far the newest key of gossip has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum KeyTurn {
    /// It seals, and no other is known.
    #[default]
    Done,
    /// Nodes know it; the one before it seals.
    Spreads,
    /// It seals; the one before it opens what was sealed with it.
    Seals,
}

impl KeyTurn {
    fn is_done(&self) -> bool {
        *self == Self::Done
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_unset(at: &Timestamp) -> bool {
    at.0 == 0
}

/// SHA-256 of a public key (SubjectPublicKeyInfo, DER; RFC 5280, section 4.1). Who can sign with
/// the private key is the node: the key is its identity, name and addresses are attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyDigest(pub [u8; 32]);

/// What others verify a node's signatures in gossip with: an Ed25519 public key (RFC 8032).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProofKey(pub [u8; 32]);

/// Opens the keys of locked managers, 256 bits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlockKey(pub [u8; 32]);

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(..)")
    }
}

/// A key that seals gossip datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKey {
    /// Names the key on the wire.
    pub id: u8,
    /// 256 bits.
    pub key: [u8; 32],
}

/// A machine of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Version and times.
    pub meta: Meta,
    /// User intent.
    pub spec: NodeSpec,
    /// What the node says of itself.
    pub description: NodeDescription,
    /// Whether it holds its lease.
    pub status: NodeStatus,
    /// Set on managers.
    pub manager: Option<ManagerInfo>,
    /// Its own endpoint on the ingress network (`ing0`).
    pub ingress: Option<Attachment>,
    /// The key that it showed when it joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyDigest>,
    /// Set on workers that are on their way to be managers: their place in Raft, where they do not
    /// vote yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoting: Option<ManagerInfo>,
}

impl Node {
    /// Whether it left on purpose: it is listed until it is removed, and no member any more.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.status.state == NodeState::Disconnected
    }

    /// Its place in Raft, also while it is on its way there.
    #[must_use]
    pub fn raft(&self) -> Option<&ManagerInfo> {
        self.manager.as_ref().or(self.promoting.as_ref())
    }

    /// Name for people: the spec's, else the host's.
    #[must_use]
    pub fn name(&self) -> &str {
        if self.spec.name.is_empty() { &self.description.hostname } else { &self.spec.name }
    }

    /// The role that it really has.
    #[must_use]
    pub fn role(&self) -> Role {
        if self.manager.is_some() { Role::Manager } else { Role::Worker }
    }
}

/// What a node says of itself when it joins and when it changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// Host name.
    pub hostname: String,
    /// `linux`.
    pub os: String,
    /// `x86_64`.
    pub architecture: String,
    /// CPUs times 10^9.
    pub nano_cpus: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Skein's version.
    pub engine_version: String,
    /// Address that peers reach it at; gossip listens there.
    pub gossip: SocketAddr,
    /// Where it receives VXLAN.
    pub vtep: IpAddr,
    /// Prefixes that it has routes to: subnets of networks must not overlap them.
    pub routes: Vec<Subnet>,
    /// The balancer in use: `nft` or `ipvs`.
    pub balancer: String,
    /// Executors present: `process`, `docker`.
    pub executors: Vec<String>,
    /// Subject of the node's certificate.
    #[serde(default)]
    pub certificate_subject: String,
    /// Where its cluster listener is, or would be if it were a manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager_address: Option<SocketAddr>,
    /// The newest schema that its program reads.
    #[serde(default = "first_schema", skip_serializing_if = "is_first_schema")]
    pub schema: u32,
    /// What its rows in gossip are verified with; a node without one is not heard there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_key: Option<ProofKey>,
    /// Who signed its certificate, and whom it trusts. None of a node that has just joined, or
    /// whose version does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// MTU of the link with its VTEP in bytes; none of a node whose version does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underlay_mtu: Option<u32>,
    /// What it has of what its user named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generic_resources: Vec<GenericResource>,
}

/// Whether a node holds its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The state.
    pub state: NodeState,
    /// Why.
    pub message: String,
    /// Address that its session came from.
    pub address: String,
}

/// State of a node, Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Joined, has not reported yet.
    Unknown,
    /// Holds its lease.
    Ready,
    /// Lost its lease: its tasks move.
    Down,
    /// Left on purpose: its tasks move, it may be removed.
    Disconnected,
}

/// What a manager is in Raft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerInfo {
    /// Its Raft id: random, drawn again for each time that a node becomes a manager.
    pub raft_id: u64,
    /// host:port of its cluster listener.
    pub address: SocketAddr,
}

/// An overlay network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Version and times.
    pub meta: Meta,
    /// User intent.
    pub spec: NetworkSpec,
    /// Its VXLAN id.
    pub vni: Vni,
    /// Its prefixes, with the bridge's addresses, the same on every node.
    pub subnets: Subnets,
    /// Address after which the search for a free one begins, so that reuse is late (serial
    /// allocation, as Docker's).
    pub next_address: u64,
    /// Set by removal while tasks on it are stopping: its name and subnets are free, its VNI is
    /// not, because nodes still hold a device of that number. Clients no longer see it.
    #[serde(default)]
    pub removed: bool,
}

/// One attachment to a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network.
    pub network: NetworkId,
    /// Addresses there.
    pub addresses: Addresses,
    /// MAC address there.
    pub mac: MacAddr,
    /// Further names there.
    pub aliases: Vec<String>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Version and times.
    pub meta: Meta,
    /// User intent, defaults filled in, network targets as ids.
    pub spec: CheckedSpec,
    /// The spec before the last update.
    pub previous_spec: Option<CheckedSpec>,
    /// Names the spec as far as tasks are concerned; new whenever the spec changes in a way that a
    /// running task cannot follow, and the former one after a rollback. A task with another one is
    /// out of date.
    pub spec_version: Revision,
    /// The name of `previous_spec`.
    #[serde(default)]
    pub previous_spec_version: Revision,
    /// Virtual address by network; on the ingress network too where ports are published.
    pub vips: BTreeMap<NetworkId, Addresses>,
    /// Published ports with their numbers.
    pub ports: Vec<PublishedPort>,
    /// Progress of an update.
    pub update_status: Option<UpdateStatus>,
    /// Set by removal: its tasks are stopping, no new ones start, its name and ports are free.
    pub removed: bool,
}

/// One published port, decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// A label for people.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port that the task listens on.
    pub target: u16,
    /// Port of the nodes.
    pub published: u16,
    /// On every node, or on the task's.
    pub mode: PublishMode,
    /// The address of a node that alone takes calls; none where all of them do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port towards the ingress VIP, unique to each node, so that no two nodes can make the
    /// same flow. Empty in mode `host`.
    pub ingress_ports: BTreeMap<NodeId, u16>,
}

impl PublishedPort {
    /// Whether one node cannot have both: as with bind(2), all addresses include each.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        (self.protocol, self.published) == (other.protocol, other.published)
            && (self.address.is_none() || other.address.is_none() || self.address == other.address)
    }

    /// Whether both are one port of the nodes, published in one way, wherever each leads.
    #[must_use]
    pub fn is_same_publication(&self, other: &Self) -> bool {
        let published = |port: &Self| (port.protocol, port.published, port.mode, port.address);
        published(self) == published(other)
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}:")?;
        }
        write!(f, "{}/{}", self.published, self.protocol.name())
    }
}

/// Progress of an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// Where it stands.
    pub state: UpdateState,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// In words.
    pub message: String,
}

/// Where an update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    /// Tasks are being replaced.
    Updating,
    /// A replacement failed.
    Paused,
    /// Done.
    Completed,
    /// Tasks are being put back to the previous spec.
    RollbackStarted,
    /// A replacement failed on the way back.
    RollbackPaused,
    /// Back at the previous spec.
    RollbackCompleted,
}

impl UpdateState {
    /// Whether tasks are still to be replaced.
    #[must_use]
    pub fn is_running(self) -> bool {
        matches!(self, Self::Updating | Self::RollbackStarted)
    }

    /// Whether a failure stopped it; only a new update starts it again.
    #[must_use]
    pub fn is_paused(self) -> bool {
        matches!(self, Self::Paused | Self::RollbackPaused)
    }
}

/// Names a slot: number of a replica, or the node of a global service's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// Replica number, from 1.
    Replica(u64),
    /// The node of a global task.
    Node(NodeId),
}
