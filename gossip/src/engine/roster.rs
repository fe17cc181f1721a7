//! Which nodes belong to the cluster, as the assignment says, and whom to announce ourselves to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use cluster::id::NodeId;

use crate::Now;
use crate::identity::Identity;

/// Nodes announced to in one round of the join loop.
pub const ANNOUNCE_MAX: usize = 8;
/// A node that the assignment has never named, but that talks with the cluster's key, may have
/// joined a moment ago. If it stays unnamed and is not active for this long, it is forgotten.
pub const STRANGER_GRACE: Duration = Duration::from_secs(60);
/// Removed nodes whose datagrams and rows are refused; node ids are never reused.
pub const GONE_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Roster {
    node: NodeId,
    peers: Option<BTreeMap<NodeId, SocketAddr>>, // invariant: without ourselves
    gone: BTreeSet<NodeId>,
    strangers: BTreeMap<NodeId, Now>,
    announced: Option<NodeId>,
}

impl Roster {
    pub(super) fn new(node: NodeId) -> Self {
        let (gone, strangers) = (BTreeSet::new(), BTreeMap::new());
        Self { node, peers: None, gone, strangers, announced: None }
    }

    /// Takes the whole set of nodes; returns those that were in it before and are no longer.
    pub(super) fn set(&mut self, mut peers: BTreeMap<NodeId, SocketAddr>) -> Vec<NodeId> {
        peers.remove(&self.node);
        self.gone.retain(|node| !peers.contains_key(node));
        self.strangers.retain(|node, _| !peers.contains_key(node));
        let before = self.peers.replace(peers).unwrap_or_default();
        let removed: Vec<NodeId> = (before.into_keys())
            .filter(|node| self.peers.as_ref().is_some_and(|now| !now.contains_key(node)))
            .collect();
        removed.iter().for_each(|node| self.mark_gone(*node));
        removed
    }

    fn mark_gone(&mut self, node: NodeId) {
        self.gone.insert(node);
        if self.gone.len() > GONE_MAX {
            self.gone.pop_first();
        }
    }

    /// Whether the node was removed from the cluster.
    pub(super) fn is_gone(&self, node: NodeId) -> bool {
        self.gone.contains(&node)
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
            later.chain(earlier).take(ANNOUNCE_MAX).map(|(node, at)| (*node, *at)).collect();
        self.announced = batch.last().map(|(node, _)| *node);
        batch
    }

    /// Ages the known nodes that the assignment does not name; returns those to forget.
    pub(super) fn sweep(
        &mut self,
        known: &BTreeSet<NodeId>,
        active: &BTreeMap<NodeId, Identity>,
        now: Now,
    ) -> Vec<NodeId> {
        let Some(peers) = &self.peers else { return Vec::new() };
        let strange = |node: &NodeId| {
            *node != self.node && !peers.contains_key(node) && !active.contains_key(node)
        };
        self.strangers.retain(|node, _| known.contains(node) && strange(node));
        for node in known.iter().filter(|node| strange(node)) {
            self.strangers.entry(*node).or_insert(now);
        }
        let is_old = |since: &Now| now >= *since + STRANGER_GRACE;
        let strangers = self.strangers.iter().filter(|(_, since)| is_old(since));
        let old: Vec<NodeId> = strangers.map(|(node, _)| *node).collect();
        for node in &old {
            self.strangers.remove(node);
            self.mark_gone(*node);
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(nodes: impl IntoIterator<Item = u128>) -> BTreeMap<NodeId, SocketAddr> {
        let address = "192.0.2.1:7946".parse().unwrap();
        nodes.into_iter().map(|node| (NodeId(node), address)).collect()
    }

    #[test]
    fn who_drops_out_is_gone_until_named_again() {
        let mut roster = Roster::new(NodeId(1));
        assert_eq!(roster.set(peers([1, 2, 3])), []);
        assert_eq!(roster.peers(), Some([NodeId(2), NodeId(3)].into()));
        assert_eq!(roster.set(peers([1, 2])), [NodeId(3)]);
        assert!(roster.is_gone(NodeId(3)) && !roster.is_gone(NodeId(2)));
        assert_eq!(roster.set(peers([2, 3])), []);
        assert!(!roster.is_gone(NodeId(3)));
    }

    #[test]
    fn everybody_is_announced_to_in_turn() {
        let mut roster = Roster::new(NodeId(1));
        roster.set(peers(1..=12));
        let active = BTreeMap::new();
        let mut batch = || -> Vec<u128> {
            roster.next_announced(&active).iter().map(|(node, _)| node.0).collect()
        };
        assert_eq!(batch(), (2..=9).collect::<Vec<_>>());
        assert_eq!(batch(), [10, 11, 12, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_stranger_is_forgotten_after_its_grace_unless_it_is_active_or_named() {
        let mut roster = Roster::new(NodeId(1));
        let known = [NodeId(1), NodeId(2), NodeId(8), NodeId(9)].into();
        let address = "192.0.2.9:7946".parse().unwrap();
        let active = [(NodeId(9), Identity::unknown(NodeId(9), address))].into();
        let none = BTreeMap::new();
        assert_eq!(roster.sweep(&known, &none, STRANGER_GRACE * 9), [], "no assignment yet");
        roster.set(peers([1, 2]));
        assert_eq!(roster.sweep(&known, &active, Now::ZERO), []);
        assert_eq!(roster.sweep(&known, &active, STRANGER_GRACE), [NodeId(8)]);
        assert!(roster.is_gone(NodeId(8)));
        assert_eq!(roster.sweep(&known, &none, STRANGER_GRACE), []);
        assert!(!roster.is_gone(NodeId(9)));
    }
}
