//! Projects table and membership to the view; keeps it current key by key.

use std::collections::{BTreeMap, BTreeSet};
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

    /// Takes the opinions on all nodes; returns the nodes on which the opinion changed.
    pub(super) fn liveness(&mut self, now: &BTreeMap<NodeId, Liveness>) -> BTreeSet<NodeId> {
        if self.view.liveness == *now {
            return BTreeSet::new();
        }
        let before = &self.view.liveness;
        let changed = (before.keys().chain(now.keys()))
            .filter(|node| before.get(node) != now.get(node))
            .copied()
            .collect();
        Arc::make_mut(&mut self.view).liveness.clone_from(now);
        self.changed = true;
        changed
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
            address: value.address,
            mac: value.mac,
            healthy: value.healthy,
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
