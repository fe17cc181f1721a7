//! Which run of each node is known and whether it is over: what exchanges compare of membership.

use std::collections::{BTreeMap, BTreeSet};

use cluster::id::NodeId;

use crate::anti_entropy::Standing;
use crate::buckets::{Buckets, bucket_of};

/// The standings of all nodes of which a run is known, this one included.
#[derive(Debug, Default)]
pub(super) struct Standings {
    of: BTreeMap<NodeId, Standing>,
    buckets: Buckets,
}

impl Standings {
    /// Notes what is known of a node.
    pub(super) fn note(&mut self, node: NodeId, now: Standing) {
        let before = self.get(node);
        if before != now {
            self.buckets.change(node, before.hash(node), now.hash(node));
            if now == Standing::default() {
                self.of.remove(&node);
            } else {
                self.of.insert(node, now);
            }
        }
    }

    pub(super) fn get(&self, node: NodeId) -> Standing {
        self.of.get(&node).copied().unwrap_or_default()
    }

    pub(super) fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    pub(super) fn nodes_in(&self, buckets: &BTreeSet<u8>) -> impl Iterator<Item = NodeId> {
        self.of.keys().copied().filter(|node| buckets.contains(&bucket_of(*node)))
    }
}
