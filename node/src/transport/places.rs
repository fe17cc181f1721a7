//! Places of members' connections: so many for each node, so that one of them, or who has stolen
//! its key, cannot keep the others out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cluster::id::NodeId;

/// Connections of one node at one time, on one listener: four lanes, and followers of logs.
const OF_ONE_NODE_MAX: usize = 32;

/// The places of a listener. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    by_node: BTreeMap<NodeId, usize>,
    total: usize,
}

/// One place; it is free when this value is gone.
pub(super) struct Place {
    all: Places,
    node: NodeId,
}

impl Places {
    /// A place for one more connection of a node, if it has not too many, and not all nodes
    /// together more than `all`.
    pub(super) fn take(&self, node: NodeId, all: usize) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_node.get(&node).copied().unwrap_or_default();
        if own >= OF_ONE_NODE_MAX || taken.total >= all {
            return None;
        }
        taken.by_node.insert(node, own + 1);
        taken.total += 1;
        Some(Place { all: self.clone(), node })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(own) = taken.by_node.get_mut(&self.node) {
            *own -= 1;
            if *own == 0 {
                taken.by_node.remove(&self.node);
            }
        }
    }
}

#[test]
fn one_node_cannot_take_all_places() {
    let (places, all) = (Places::default(), 2 * OF_ONE_NODE_MAX);
    let greedy: Vec<Place> = (0..all).filter_map(|_| places.take(NodeId(1), all)).collect();
    assert_eq!(greedy.len(), OF_ONE_NODE_MAX);
    let other = places.take(NodeId(2), all);
    assert!(other.is_some());
    assert!(places.take(NodeId(3), OF_ONE_NODE_MAX).is_none(), "all together have too many");
    drop((greedy, other));
    drop(places.take(NodeId(1), all).expect("there is room again"));
    let taken = places.0.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(taken.by_node.is_empty() && taken.total == 0);
}
