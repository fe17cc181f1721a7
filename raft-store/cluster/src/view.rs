//! What gossip tells the data plane: which endpoints and VTEPs are up, and who is alive.
//!
//! gossip produces a [`View`], netprog consumes it; the two do not know each other. A row repeats
//! the addresses so that a node whose assignment is older than the row can serve it at once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::id::{NetworkId, NodeId, TaskId};
use crate::net::{Addresses, MacAddr};
use crate::time::Revision;

/// SWIM's opinion of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Liveness {
    /// Answers probes.
    Alive,
    /// Missed probes: gets no new flows; its entries stay.
    Suspect,
    /// Declared down: like suspect, until Raft drops its tasks.
    Down,
}

/// Whose endpoint of a network it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EndpointOwner {
    /// A task's `ethN`.
    Task(TaskId),
    /// A node's own `ing0` on the ingress network.
    Node(NodeId),
}

/// Names an endpoint: one attachment of an owner to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointKey {
    /// The network.
    pub network: NetworkId,
    /// Task or node.
    pub owner: EndpointOwner,
}

/// How an endpoint is, as its node says. Encoded as the number of the variant, so that the first
/// two are what `false` and `true` were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Its health check has not passed yet, or fails: no VIP, no DNS.
    Unhealthy,
    /// VIP and DNS may use it.
    Ready,
    /// It runs without a health check, and nothing is known to listen in it yet: DNS may use it,
    /// and a VIP while no other is ready.
    Young,
}

/// An endpoint that is up, as the node that runs it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// The node that runs it: the row's single writer.
    pub node: NodeId,
    /// Its addresses on the network.
    pub addresses: Addresses,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Who may use it.
    pub condition: Condition,
    /// Revision of the assignment that the row was made from.
    pub revision: Revision,
}

/// Where a node receives VXLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VtepRow {
    /// Underlay address.
    pub address: IpAddr,
}

/// Everything gossip knows that the data plane may use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct View {
    /// Endpoint rows of every known owner, hidden or not: see `liveness`.
    pub endpoints: BTreeMap<EndpointKey, EndpointRow>,
    /// VTEPs by node.
    pub vteps: BTreeMap<NodeId, VtepRow>,
    /// Opinions; a node that is absent here is unknown and treated as down.
    pub liveness: BTreeMap<NodeId, Liveness>,
    /// Whether this node's own rows are known and one full anti-entropy exchange has finished since
    /// start, or there is no peer.
    /// Before it, absence of a row proves nothing and nothing may be deleted for it.
    pub complete: bool,
}

impl View {
    /// Whether new flows may go to endpoints of this node.
    #[must_use]
    pub fn is_alive(&self, node: NodeId) -> bool {
        self.liveness.get(&node) == Some(&Liveness::Alive)
    }
}
