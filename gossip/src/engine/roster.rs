//! Which nodes belong to the cluster, as the assignment says, and whom to announce ourselves to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Bound;

use cluster::id::NodeId;
use cluster::object::ProofKey;

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
    missing: BTreeSet<NodeId>,             // invariant: those of `peers` that are no active members
    announced: NodeId,
}

impl Roster {
    pub(super) fn new(node: NodeId, own: Peer) -> Self {
        // Nodes that start together do not all begin with the same one.
        Self { node, own, peers: None, missing: BTreeSet::new(), announced: node }
    }

    /// Takes the whole set of nodes; returns those of which nothing that was heard counts any more:
    /// they are no longer in it, or have another key.
    pub(super) fn set(
        &mut self,
        mut peers: BTreeMap<NodeId, Peer>,
        is_active: impl Fn(NodeId) -> bool,
    ) -> Vec<NodeId> {
        peers.remove(&self.node);
        self.missing = peers.keys().copied().filter(|node| !is_active(*node)).collect();
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

    /// Notes whether a node is an active member.
    pub(super) fn note(&mut self, node: NodeId, is_active: bool) {
        if is_active {
            self.missing.remove(&node);
        } else if self.peers.as_ref().is_some_and(|peers| peers.contains_key(&node)) {
            self.missing.insert(node);
        }
    }

    /// The other nodes of the cluster; `None` until the assignment was heard.
    pub(super) fn peers(&self) -> Option<impl Iterator<Item = NodeId>> {
        self.peers.as_ref().map(|peers| peers.keys().copied())
    }

    /// Nodes that are not active members, a batch at a time, in turn.
    pub(super) fn next_announced(&mut self) -> Vec<(NodeId, SocketAddr)> {
        let later = self.missing.range((Bound::Excluded(self.announced), Bound::Unbounded));
        let batch: Vec<_> = later
            .chain(self.missing.range(..=self.announced))
            .take(ANNOUNCE_MAX)
            .filter_map(|node| Some((*node, self.peers.as_ref()?.get(node)?.address)))
            .collect();
        self.announced = batch.last().map_or(self.announced, |(node, _)| *node);
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
        let set = |roster: &mut Roster, peers| roster.set(peers, |_| false);
        assert!(roster.peers().is_none());
        assert_eq!(set(&mut roster, peers([1, 2, 3])), []);
        assert!(roster.peers().into_iter().flatten().eq([NodeId(2), NodeId(3)]));
        assert_eq!(set(&mut roster, peers([1, 2])), [NodeId(3)]);
        assert!(roster.get(NodeId(3)).is_none() && roster.get(NodeId(2)).is_some());
        assert_eq!(set(&mut roster, peers([2, 3])), []);
        assert!(roster.get(NodeId(3)).is_some() && roster.get(NodeId(1)).is_some());
        let keyed = |key| {
            let mut peers = peers([2, 3]);
            peers.insert(NodeId(3), Peer { key: Some(ProofKey([key; 32])), ..peers[&NodeId(3)] });
            peers
        };
        assert_eq!(set(&mut roster, keyed(1)), [], "it had none, so nothing of it was heard");
        assert_eq!(set(&mut roster, keyed(1)), []);
        assert_eq!(set(&mut roster, keyed(2)), [NodeId(3)]);
    }

    #[test]
    fn everybody_is_announced_to_in_turn() {
        let mut roster = roster();
        roster.set(peers(1..=13), |node| node == NodeId(13));
        let batch = |roster: &mut Roster| -> Vec<u128> {
            roster.next_announced().iter().map(|(node, _)| node.0).collect()
        };
        assert_eq!(batch(&mut roster), (2..=9).collect::<Vec<_>>());
        roster.note(NodeId(3), true);
        roster.note(NodeId(14), false);
        assert_eq!(batch(&mut roster), [10, 11, 12, 2, 4, 5, 6, 7], "not of members or strangers");
        roster.note(NodeId(13), false);
        assert_eq!(batch(&mut roster), [8, 9, 10, 11, 12, 13, 2, 4]);
    }
}
