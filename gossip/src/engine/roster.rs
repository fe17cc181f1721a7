//! Which nodes belong to the cluster, as the assignment says, and whom to announce ourselves to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use cluster::id::NodeId;
use cluster::object::ProofKey;

use crate::identity::Identity;

/// Nodes announced to in one round of the join loop.
pub const ANNOUNCE_MAX: usize = 8;

/// A node as the managers know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Where it receives gossip.
    pub address: SocketAddr,
    /// What its proofs are verified with; a node without one is not heard.
    pub key: Option<ProofKey>,
}

#[derive(Debug)]
pub(super) struct Roster {
    node: NodeId,
    own: Peer,
    peers: Option<BTreeMap<NodeId, Peer>>, // invariant: without ourselves
    announced: Option<NodeId>,
}

impl Roster {
    pub(super) fn new(node: NodeId, own: Peer) -> Self {
        Self { node, own, peers: None, announced: None }
    }

    /// Takes the whole set of nodes; returns those of which nothing that was heard counts any more:
    /// they are no longer in it, or have another key.
    pub(super) fn set(&mut self, mut peers: BTreeMap<NodeId, Peer>) -> Vec<NodeId> {
        peers.remove(&self.node);
        let before = self.peers.replace(peers).unwrap_or_default();
        let is_other = |(node, old): &(NodeId, Peer)| {
            self.get(*node).is_none_or(|peer| old.key.is_some() && peer.key != old.key)
        };
        before.into_iter().filter(is_other).map(|(node, _)| node).collect()
    }

    /// A node of the cluster, this one too; `None` for one that was removed or that joined after
    /// the assignment was made.
    pub(super) fn get(&self, node: NodeId) -> Option<&Peer> {
        if node == self.node { Some(&self.own) } else { self.peers.as_ref()?.get(&node) }
    }

    /// The other nodes of the cluster; `None` until the assignment was heard.
    pub(super) fn peers(&self) -> Option<BTreeSet<NodeId>> {
        self.peers.as_ref().map(|peers| peers.keys().copied().collect())
    }

    /// Nodes that are not active members, a batch at a time, in turn.
    pub(super) fn next_announced(
        &mut self,
        active: &BTreeMap<NodeId, Identity>,
    ) -> Vec<(NodeId, SocketAddr)> {
        let Some(peers) = &self.peers else { return Vec::new() };
        let missing = || peers.iter().filter(|(node, _)| !active.contains_key(node));
        let after = self.announced;
        let later = missing().filter(|(node, _)| after.is_none_or(|after| **node > after));
        let earlier = missing().filter(|(node, _)| after.is_some_and(|after| **node <= after));
        let batch: Vec<_> =
            later.chain(earlier).take(ANNOUNCE_MAX).map(|(node, at)| (*node, at.address)).collect();
        self.announced = batch.last().map(|(node, _)| *node);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(nodes: impl IntoIterator<Item = u128>) -> BTreeMap<NodeId, Peer> {
        let peer = Peer { address: "192.0.2.1:7946".parse().unwrap(), key: None };
        nodes.into_iter().map(|node| (NodeId(node), peer)).collect()
    }

    fn roster() -> Roster {
        Roster::new(NodeId(1), peers([1])[&NodeId(1)])
    }

    #[test]
    fn who_drops_out_is_told_once_and_nobody_is_listed_before_the_assignment() {
        let mut roster = roster();
        assert!(roster.get(NodeId(1)).is_some() && roster.get(NodeId(2)).is_none());
        assert_eq!(roster.set(peers([1, 2, 3])), []);
        assert_eq!(roster.peers(), Some([NodeId(2), NodeId(3)].into()));
        assert_eq!(roster.set(peers([1, 2])), [NodeId(3)]);
        assert!(roster.get(NodeId(3)).is_none() && roster.get(NodeId(2)).is_some());
        assert_eq!(roster.set(peers([2, 3])), []);
        assert!(roster.get(NodeId(3)).is_some() && roster.get(NodeId(1)).is_some());
        let keyed = |key| {
            let mut peers = peers([2, 3]);
            peers.insert(NodeId(3), Peer { key: Some(ProofKey([key; 32])), ..peers[&NodeId(3)] });
            peers
        };
        assert_eq!(roster.set(keyed(1)), [], "it had none, so nothing of it was heard");
        assert_eq!((roster.set(keyed(1)), roster.set(keyed(2))), (vec![], vec![NodeId(3)]));
    }

    #[test]
    fn everybody_is_announced_to_in_turn() {
        let mut roster = roster();
        roster.set(peers(1..=12));
        let active = BTreeMap::new();
        let mut batch = || -> Vec<u128> {
            roster.next_announced(&active).iter().map(|(node, _)| node.0).collect()
        };
        assert_eq!(batch(), (2..=9).collect::<Vec<_>>());
        assert_eq!(batch(), [10, 11, 12, 2, 3, 4, 5, 6]);
    }
}
