//! Which nodes lag behind on a network, and how far.
//!
//! A node lags until its kernel holds the newest part of the network. Of one that does not, the
//! newest state is known which gave the part that it holds, or whose whole assignment it held: in
//! that state it may not have been on the network. A task that stops drains in every part of a
//! state that is not older than its last change, so that it is out of all balancers once no node
//! lags behind that.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster::id::{NetworkId, NodeId};
use cluster::object::NodeState;
use cluster::time::Revision;

use super::Dispatcher;

/// The live nodes on a network that lag behind.
#[derive(Debug, Default)]
pub(super) struct Lag {
    nodes: BTreeMap<NodeId, Option<Revision>>,
    /// The same, those that lag most first.
    ordered: BTreeSet<(Option<Revision>, NodeId)>,
}

impl Lag {
    /// Whether every node on the network has this state's part.
    pub(super) fn is_past(&self, revision: Revision) -> bool {
        self.before(revision).next().is_none()
    }

    /// The nodes that are not known to have this state's part.
    pub(super) fn before(&self, revision: Revision) -> impl Iterator<Item = NodeId> + use<'_> {
        let late = self.ordered.range(..(Some(revision), NodeId(0)));
        late.map(|(_, node)| *node)
    }

    fn slowest(&self) -> Option<Option<Revision>> {
        self.ordered.first().map(|(at, _)| *at)
    }

    fn put(&mut self, node: NodeId, at: Option<Revision>) {
        self.take(node);
        self.nodes.insert(node, at);
        self.ordered.insert((at, node));
    }

    fn take(&mut self, node: NodeId) {
        if let Some(at) = self.nodes.remove(&node) {
            self.ordered.remove(&(at, node));
        }
    }
}

impl Dispatcher {
    /// Looks at the nodes on the network if it changed since it was last asked for.
    pub(super) fn lag(&mut self, network: NetworkId) -> &Lag {
        if !self.lags.contains_key(&network) {
            let mut lag = Lag::default();
            let nodes = self.parts.state().nodes_on(network);
            let live = nodes.filter(|node| node.status.state == NodeState::Ready);
            for node in live.map(|node| node.id).collect::<Vec<_>>() {
                match self.at(node, network) {
                    Some(at) if at == self.parts.state().revision => {}
                    at => {
                        lag.put(node, at);
                        self.lagging.entry(node).or_default().insert(network);
                    }
                }
            }
            self.lags.insert(network, lag);
        }
        self.lags.entry(network).or_default()
    }

    pub(super) fn forget_lag(&mut self, network: NetworkId) {
        let Some(lag) = self.lags.remove(&network) else { return };
        for node in lag.nodes.into_keys() {
            self.no_longer_lags(node, network);
        }
    }

    fn no_longer_lags(&mut self, node: NodeId, network: NetworkId) {
        if let Entry::Occupied(mut networks) = self.lagging.entry(node) {
            networks.get_mut().remove(&network);
            if networks.get().is_empty() {
                networks.remove();
            }
        }
    }

    /// A node acknowledged something: it lags less. True if others wait for that.
    pub(super) fn catch_up(&mut self, node: NodeId, before: Option<Revision>) -> bool {
        let mut rings = self.turns_key() && self.applied(node) != before;
        let newest = Some(self.parts.state().revision);
        for network in self.lagging.get(&node).cloned().unwrap_or_default() {
            let at = self.at(node, network);
            let Some(lag) = self.lags.get_mut(&network) else { continue };
            let slowest = lag.slowest();
            if at == newest {
                lag.take(node);
            } else {
                lag.put(node, at);
            }
            rings |= lag.slowest() != slowest;
            if at == newest {
                self.no_longer_lags(node, network);
            }
        }
        rings
    }

    /// The newest state whose part of the network is known to be in the node's kernel.
    pub(super) fn at(&mut self, node: NodeId, network: NetworkId) -> Option<Revision> {
        let held = self.sessions.get(&node)?.held().map(|held| Arc::clone(&held.parts));
        let part = held.and_then(|held| self.parts.newest_of(network, &held));
        part.max(self.applied(node))
    }
}
