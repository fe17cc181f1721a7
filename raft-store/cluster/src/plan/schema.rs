//! Raises the schema once every node of the cluster can read the next one.
//!
//! A schema is what entries, snapshots and assignments may hold. A version of Skein reads its own
//! and all earlier ones, and writes the cluster's: so a new version can replace an old one node by
//! node, and nobody is given what it cannot read. It is never lowered.

use std::sync::Arc;

use crate::draft::Draft;
use crate::object::{Cluster, newest_schema};
use crate::state::State;
use crate::transaction::Object;

pub(crate) fn run(draft: &mut Draft<'_>) {
    let Some(next) = raised(draft.state(), newest_schema()) else { return };
    let Some(cluster) = &draft.state().cluster else { return };
    let cluster = Cluster { schema: next, ..Cluster::clone(cluster) };
    draft.put(Object::Cluster(Arc::new(cluster)));
}

/// The schema to go to, for a leader that reads up to `own`.
fn raised(state: &State, own: u32) -> Option<u32> {
    let cluster = state.cluster.as_ref().filter(|cluster| cluster.schema < own)?;
    let all = state.index.schemas.first_key()?.min(&own);
    (*all > cluster.schema).then_some(*all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::object::NodeState;

    /// A cluster of these schemas, the last node gone from it.
    fn state(cluster: u32, nodes: &[u32]) -> State {
        let mut state = State::default();
        let own = Cluster { schema: cluster, ..fixture::cluster() };
        state.put(Object::Cluster(Arc::new(own))).unwrap();
        for (number, schema) in (1..).zip(nodes) {
            let mut node = fixture::node(number, "n", None);
            node.description.schema = *schema;
            if number == nodes.len() as u128 {
                node.status.state = NodeState::Disconnected;
            }
            state.put(Object::Node(Arc::new(node))).unwrap();
        }
        state
    }

    #[test]
    fn the_schema_is_raised_when_all_that_belong_to_the_cluster_read_it() {
        assert_eq!(raised(&state(1, &[1, 1, 1]), 1), None);
        assert_eq!(raised(&state(1, &[2, 1, 2]), 2), None, "one is of the old version");
        assert_eq!(raised(&state(1, &[2, 2, 1]), 2), Some(2), "only one that left is");
        assert_eq!(raised(&state(1, &[3, 2, 1]), 3), Some(2));
        assert_eq!(raised(&state(1, &[3, 3, 1]), 2), Some(2), "the leader writes no more");
        assert_eq!(raised(&state(2, &[1, 1, 1]), 2), None, "it is never lowered");
        assert_eq!(raised(&State::default(), 2), None);
    }
}
