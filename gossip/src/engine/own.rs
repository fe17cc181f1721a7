//! The rows of which this node is the single writer.

use std::collections::BTreeMap;

use cluster::view::{EndpointKey, EndpointRow, VtepRow};

use crate::Now;
use crate::proof::{Author, Statement};
use crate::row::{EndpointValue, Record, Row, RowKey, Version};
use crate::table::{Merged, Table};

/// What peers hold of this node that should not be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stale {
    /// Ours, or one that our newer row or our floor will replace.
    No,
    /// A row of this run that we no longer have: it must be said again that it is dead.
    Ghost,
    /// From a run with a greater generation than ours, or of a later write of this one.
    Ahead,
}

pub(super) struct Own {
    author: Author,
    version: Version,
    asserted: bool, // the whole set has been given once
}

impl Own {
    pub(super) fn new(author: Author, generation: u64) -> Self {
        Self { author, version: Version { generation, counter: 0 }, asserted: false }
    }

    /// Whether the whole set has been given once.
    pub(super) fn is_asserted(&self) -> bool {
        self.asserted
    }

    pub(super) fn generation(&self) -> u64 {
        self.version.generation
    }

    fn write(&mut self, table: &mut Table, record: Record, now: Now) -> Option<RowKey> {
        self.version.counter += 1;
        let key = record.key();
        let proof = self.author.prove(Statement::Row(self.version, &record));
        let row = Row { version: self.version, record, proof };
        (table.merge(self.author.node, row, now) == Merged::News).then_some(key)
    }

    /// Makes the table hold exactly this set for us; returns the keys that changed.
    pub(super) fn assert(
        &mut self,
        table: &mut Table,
        endpoints: &BTreeMap<EndpointKey, EndpointRow>,
        vtep: VtepRow,
        now: Now,
    ) -> Vec<RowKey> {
        let mut wanted: BTreeMap<RowKey, Record> = (endpoints.iter())
            // A row that names another node is not ours to write.
            .filter(|(_, row)| row.node == self.author.node)
            .map(|(key, row)| {
                (RowKey::Endpoint(*key), Record::Endpoint(*key, Some(EndpointValue::from(row))))
            })
            .collect();
        wanted.insert(RowKey::Vtep, Record::Vtep(Some(vtep)));
        let gone = (table.rows_of(self.author.node))
            .filter(|row| row.record.is_live() && !wanted.contains_key(&row.record.key()))
            .map(|row| Record::tombstone(row.record.key()));
        let mut writes: Vec<Record> = gone.collect();
        writes.extend(wanted.into_iter().filter_map(|(key, record)| {
            let same = table.get(self.author.node, &key).is_some_and(|held| held.record == record);
            (!same).then_some(record)
        }));
        let changed =
            writes.into_iter().filter_map(|record| self.write(table, record, now)).collect();
        if !self.asserted {
            self.asserted = true;
            table.raise(self.author.node, self.version.generation);
        }
        changed
    }

    /// Judges a row under our name that a peer holds.
    pub(super) fn judge(&self, table: &Table, row: &Row) -> Stale {
        if row.version > self.version {
            return Stale::Ahead;
        }
        let ours = row.version.generation == self.version.generation;
        let unknown = table.get(self.author.node, &row.record.key()).is_none();
        if ours && unknown && row.record.is_live() { Stale::Ghost } else { Stale::No }
    }

    /// Says again that a row is dead.
    pub(super) fn bury(&mut self, table: &mut Table, key: RowKey, now: Now) -> Option<RowKey> {
        self.write(table, Record::tombstone(key), now)
    }

    /// Writes all our rows again in a generation above `seen`; returns their keys.
    pub(super) fn outrun(&mut self, table: &mut Table, seen: u64, now: Now) -> Vec<RowKey> {
        let generation = seen.max(self.version.generation).saturating_add(1);
        self.version = Version { generation, counter: 0 };
        let live: Vec<Record> = (table.rows_of(self.author.node))
            .filter(|row| row.record.is_live())
            .map(|row| row.record.clone())
            .collect();
        let keys = live.into_iter().filter_map(|record| self.write(table, record, now)).collect();
        if self.asserted {
            table.raise(self.author.node, generation);
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::{Proof, ProofSecret};
    use cluster::id::{ClusterId, NetworkId, NodeId, TaskId};
    use cluster::net::{Addresses, MacAddr};
    use cluster::time::Revision;
    use cluster::view::{Condition, EndpointOwner};

    const US: NodeId = NodeId(1);

    fn own(generation: u64) -> (Own, Table) {
        let secret = ProofSecret::from_seed(&[1; 32]).unwrap();
        let author = Author { cluster: ClusterId(1), node: US, secret };
        (Own::new(author, generation), Table::default())
    }

    fn key(task: u128) -> EndpointKey {
        EndpointKey { network: NetworkId(1), owner: EndpointOwner::Task(TaskId(task)) }
    }

    fn endpoint(node: NodeId) -> EndpointRow {
        let addresses = Addresses::V4([10, 0, 0, 9].into());
        let mac = MacAddr::for_address(addresses.first());
        EndpointRow { node, addresses, mac, condition: Condition::Ready, revision: Revision(1) }
    }

    fn vtep() -> VtepRow {
        VtepRow { address: std::net::Ipv4Addr::new(192, 0, 2, 1).into() }
    }

    fn given(tasks: &[u128]) -> BTreeMap<EndpointKey, EndpointRow> {
        tasks.iter().map(|task| (key(*task), endpoint(US))).collect()
    }

    fn live(table: &Table) -> Vec<RowKey> {
        let rows = table.rows_of(US).filter(|row| row.record.is_live());
        rows.map(|row| row.record.key()).collect()
    }

    #[test]
    fn the_same_set_twice_writes_nothing_and_a_change_writes_only_itself() {
        let (mut own, mut table) = own(1);
        let now = Now::ZERO;
        assert_eq!(own.assert(&mut table, &given(&[1, 2]), vtep(), now).len(), 3);
        assert_eq!(own.assert(&mut table, &given(&[1, 2]), vtep(), now), []);
        let changed = own.assert(&mut table, &given(&[2, 3]), vtep(), now);
        assert_eq!(changed, [1, 3].map(|task| RowKey::Endpoint(key(task))));
        assert_eq!(
            live(&table),
            [RowKey::Endpoint(key(2)), RowKey::Endpoint(key(3)), RowKey::Vtep]
        );
        assert_eq!(table.digest(US).floor, 1);
    }

    #[test]
    fn a_row_that_names_another_node_is_not_written() {
        let (mut own, mut table) = own(1);
        let foreign = [(key(1), endpoint(NodeId(2)))].into();
        own.assert(&mut table, &foreign, vtep(), Now::ZERO);
        assert_eq!(live(&table), [RowKey::Vtep]);
    }

    #[test]
    fn rows_of_ours_that_a_peer_holds_are_judged() {
        let (mut own, mut table) = own(2);
        own.assert(&mut table, &given(&[1]), vtep(), Now::ZERO);
        let value = EndpointValue::from(&endpoint(US));
        let row = |generation, counter, task, live: bool| Row {
            version: Version { generation, counter },
            record: Record::Endpoint(key(task), live.then(|| value.clone())),
            proof: Proof::default(),
        };
        let table_of_cases = [
            (row(2, 1, 1, true), Stale::No),
            (row(1, 9, 7, true), Stale::No), // below the floor
            (row(2, 1, 7, true), Stale::Ghost),
            (row(2, 1, 7, false), Stale::No),
            (row(2, 3, 7, true), Stale::Ahead),
            (row(3, 0, 1, true), Stale::Ahead),
        ];
        for (row, expected) in table_of_cases {
            assert_eq!(own.judge(&table, &row), expected, "{row:?}");
        }
        own.bury(&mut table, RowKey::Endpoint(key(7)), Now::ZERO);
        assert_eq!(own.judge(&table, &row(2, 1, 7, true)), Stale::No);
        assert_eq!(own.outrun(&mut table, 5, Now::ZERO).len(), 2);
        assert_eq!((own.generation(), table.digest(US).floor), (6, 6));
        assert_eq!(live(&table), [RowKey::Endpoint(key(1)), RowKey::Vtep]);
    }
}
