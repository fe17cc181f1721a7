//! Projects table and membership to the view; keeps it current key by key.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::id::NodeId;
use cluster::view::{EndpointKey, EndpointRow, Liveness, View};

use crate::row::{Record, RowKey};
use crate::table::Table;

/// The view and whether it changed since it was last asked about.
#[derive(Debug, Default)]
pub(super) struct Projection {
    view: Arc<View>,
    changed: bool,
}

impl Projection {
    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    pub(super) fn has_changed(&self) -> bool {
        self.changed
    }

    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Brings one fact up to date.
    pub(super) fn row(&mut self, table: &Table, owner: NodeId, key: RowKey) {
        match key {
            RowKey::Endpoint(key) => {
                let row = endpoint(table, owner, self.view.endpoints.get(&key), key);
                if self.view.endpoints.get(&key) != row.as_ref() {
                    set(&mut Arc::make_mut(&mut self.view).endpoints, key, row);
                    self.changed = true;
                }
            }
            RowKey::Vtep => {
                let row = table.get(owner, &RowKey::Vtep).and_then(|row| match &row.record {
                    Record::Vtep(value) => *value,
                    Record::Endpoint(..) => None,
                });
                if self.view.vteps.get(&owner) != row.as_ref() {
                    set(&mut Arc::make_mut(&mut self.view).vteps, owner, row);
                    self.changed = true;
                }
            }
        }
    }

    /// Takes the opinion on a node; returns whether it changed.
    pub(super) fn liveness(&mut self, node: NodeId, now: Option<Liveness>) -> bool {
        if self.view.liveness.get(&node).copied() == now {
            return false;
        }
        set(&mut Arc::make_mut(&mut self.view).liveness, node, now);
        self.changed = true;
        true
    }

    pub(super) fn complete(&mut self, complete: bool) {
        if self.view.complete != complete {
            Arc::make_mut(&mut self.view).complete = complete;
            self.changed = true;
        }
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

/// The row of an endpoint. An endpoint has one owner, for a task runs on one node; should two
/// claim it, the newer assignment is right, and then the smaller node, so that all nodes agree.
fn endpoint(
    table: &Table,
    owner: NodeId,
    shown: Option<&EndpointRow>,
    key: EndpointKey,
) -> Option<EndpointRow> {
    let of = |node: NodeId| match &table.get(node, &RowKey::Endpoint(key))?.record {
        Record::Endpoint(_, Some(value)) => Some(EndpointRow {
            node,
            addresses: value.addresses,
            mac: value.mac,
            condition: value.condition,
            revision: value.revision,
        }),
        Record::Endpoint(_, None) | Record::Vtep(_) => None,
    };
    match shown {
        // Nobody else claims it, or it would be shown.
        None => of(owner),
        Some(_) => (table.owners().filter_map(of))
            .max_by_key(|row| (row.revision, std::cmp::Reverse(row.node))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Now;
    use crate::proof::Proof;
    use crate::row::{EndpointValue, Row, Version};
    use cluster::id::{NetworkId, TaskId};
    use cluster::net::{Addresses, MacAddr};
    use cluster::time::Revision;
    use cluster::view::{Condition, EndpointOwner};

    fn key() -> EndpointKey {
        EndpointKey { network: NetworkId(1), owner: EndpointOwner::Task(TaskId(1)) }
    }

    fn write(projection: &mut Projection, table: &mut Table, owner: u128, row: (u64, Option<u64>)) {
        let (counter, revision) = row;
        let value = revision.map(|revision| EndpointValue {
            addresses: Addresses::V4([10, 0, 0, 1].into()),
            mac: MacAddr([2; 6]),
            condition: Condition::Ready,
            revision: Revision(revision),
        });
        let version = Version { generation: 1, counter };
        let record = Record::Endpoint(key(), value);
        let row = Row { version, record, proof: Proof::default() };
        table.merge(NodeId(owner), row, Now::ZERO);
        projection.row(table, NodeId(owner), RowKey::Endpoint(key()));
    }

    #[test]
    fn of_two_claims_the_newer_revision_is_shown_then_the_smaller_node() {
        let (mut projection, mut table) = (Projection::default(), Table::default());
        let script = [
            (2, (1, Some(5)), Some(2)),
            (3, (1, Some(5)), Some(2)),
            (1, (1, Some(4)), Some(2)),
            (3, (2, Some(6)), Some(3)),
            (3, (3, None), Some(2)),
            (2, (2, None), Some(1)),
            (1, (2, None), None),
        ];
        for (owner, row, shown) in script {
            write(&mut projection, &mut table, owner, row);
            let view = projection.view();
            let node = view.endpoints.get(&key()).map(|row| row.node.0);
            assert_eq!(node, shown, "after {owner} {row:?}");
        }
    }

    #[test]
    fn a_view_that_was_handed_out_does_not_change_and_only_news_counts_as_change() {
        let (mut projection, mut table) = (Projection::default(), Table::default());
        let before = projection.view();
        write(&mut projection, &mut table, 1, (1, Some(1)));
        assert!(before.endpoints.is_empty());
        assert!(projection.take_changed());
        write(&mut projection, &mut table, 1, (2, Some(1)));
        assert!(!projection.take_changed(), "a new version of the same fact");
        assert!(projection.liveness(NodeId(1), Some(Liveness::Alive)));
        assert!(!projection.liveness(NodeId(1), Some(Liveness::Alive)));
        assert!(projection.liveness(NodeId(1), None));
        assert!(projection.view().liveness.is_empty());
    }
}
