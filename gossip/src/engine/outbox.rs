//! News on its way out: coalesced by key, packed into datagrams, each to a fan-out of peers.
//!
//! A datagram that is full goes at once. One with room left goes at once as well, as long as there
//! are few of them: in a storm of small changes they wait for each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use cluster::id::NodeId;

use crate::Now;
use crate::anti_entropy::Bundle;
use crate::codec::{self, PAYLOAD_BYTES_MAX};
use crate::engine::PUSH_GAP;
use crate::row::{Row, RowKey};
use crate::table::Table;

/// Rows that wait to be pushed. What does not fit is left to anti-entropy.
pub const PUSH_ROWS_MAX: usize = 4096;
/// Datagrams' worth of rows pushed in one step; the rest waits for the next.
pub const PUSH_PACKETS_MAX: usize = 32;
/// Datagrams with room left that go at once; further ones wait for [`PARTIAL_GAP`] each.
pub const PARTIALS_MAX: u32 = 16;
/// In a storm of changes a datagram with room left goes this often.
pub const PARTIAL_GAP: Duration = Duration::from_millis(50);
/// Bytes of a bundle around its rows, at their longest encoding: owner, floor, count.
const BUNDLE_BYTES: usize = 17 + 1 + 5;

/// Rows for the datagrams of one step.
pub(super) struct Packet {
    pub(super) to: Vec<SocketAddr>,
    pub(super) bundles: Vec<Bundle>,
}

/// The queue: which rows, and from whom we have them, for that peer needs no telling.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    rows: BTreeMap<(NodeId, Option<NodeId>), BTreeSet<RowKey>>,
    waiting: usize,
    partials: u32, // datagrams with room left that may not go at once
    repaid: Now,   // when there was last one less
    /// Rows that found the queue full.
    pub(super) overflowed: u64,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// Queues a row by its key: what is sent is the newest version at that time.
    pub(super) fn push(&mut self, owner: NodeId, key: RowKey, from: Option<NodeId>) {
        if self.waiting >= PUSH_ROWS_MAX {
            self.overflowed += 1;
            return;
        }
        if self.rows.entry((owner, from)).or_default().insert(key) {
            self.waiting += 1;
        }
    }

    /// Takes up to [`PUSH_PACKETS_MAX`] packets, each to peers that `choose` names of those that
    /// may be told. Without peers the queue is emptied: a peer that joins loads the whole table.
    pub(super) fn take(
        &mut self,
        table: &Table,
        now: Now,
        mut choose: impl FnMut(&dyn Fn(NodeId) -> bool) -> Vec<SocketAddr>,
    ) -> Vec<Packet> {
        let mut packets = Vec::new();
        self.repay(now);
        while packets.len() < PUSH_PACKETS_MAX && !self.is_empty() {
            let is_partial = self.bytes(table) < PAYLOAD_BYTES_MAX;
            if is_partial && self.partials >= PARTIALS_MAX {
                break;
            }
            self.partials += u32::from(is_partial);
            let (bundles, from) = self.pack(table);
            let knows = |node| {
                (bundles.iter().zip(&from))
                    .all(|(bundle, from)| node == bundle.owner || Some(node) == *from)
            };
            let to = choose(&|node| !knows(node));
            if !to.is_empty() && !bundles.is_empty() {
                packets.push(Packet { to, bundles });
            }
        }
        packets
    }

    /// When what waits may go.
    pub(super) fn next_deadline(&self, now: Now) -> Option<Now> {
        let held = self.partials >= PARTIALS_MAX;
        let at = if held { self.repaid + PARTIAL_GAP } else { now };
        (!self.is_empty()).then_some(at.max(now + PUSH_GAP))
    }

    fn repay(&mut self, now: Now) {
        while self.partials > 0 && self.repaid + PARTIAL_GAP <= now {
            self.partials -= 1;
            self.repaid += PARTIAL_GAP;
        }
        if self.partials == 0 {
            self.repaid = now;
        }
    }

    /// Bytes of what waits, up to those of one datagram.
    fn bytes(&self, table: &Table) -> usize {
        let mut bytes = 0;
        for ((owner, _), keys) in &self.rows {
            bytes += BUNDLE_BYTES;
            for key in keys {
                bytes += table.get(*owner, key).map_or(0, codec::row_bytes);
                if bytes >= PAYLOAD_BYTES_MAX {
                    return bytes;
                }
            }
        }
        bytes
    }

    /// Fills a datagram: rows of some owners, and for each from whom we have them.
    fn pack(&mut self, table: &Table) -> (Vec<Bundle>, Vec<Option<NodeId>>) {
        let (mut bundles, mut sources, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(mut group) = self.rows.first_entry() {
            let (owner, from) = *group.key();
            let mut rows: Vec<Row> = Vec::new();
            bytes += BUNDLE_BYTES;
            let mut is_full = false;
            while let Some(key) = group.get().first().copied() {
                let row = table.get(owner, &key);
                let size = row.map_or(0, codec::row_bytes);
                // One row alone always fits.
                is_full = bytes + size > PAYLOAD_BYTES_MAX && bytes > BUNDLE_BYTES;
                if is_full {
                    break;
                }
                bytes += size;
                rows.extend(row.cloned());
                group.get_mut().remove(&key);
                self.waiting -= 1;
            }
            if group.get().is_empty() {
                group.remove();
            }
            if !rows.is_empty() {
                bundles.push(Bundle { owner, floor: 0, rows });
                sources.push(from);
            }
            if is_full {
                break;
            }
        }
        (bundles, sources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::Proof;
    use crate::row::{EndpointValue, Record, Version};
    use cluster::id::{NetworkId, TaskId};
    use cluster::net::{Addresses, MacAddr};
    use cluster::time::Revision;
    use cluster::view::{Condition, EndpointKey, EndpointOwner};

    const OWNER: NodeId = NodeId(1);

    fn row(task: u64) -> Row {
        let owner = EndpointOwner::Task(TaskId(u128::MAX - u128::from(task)));
        let value = EndpointValue {
            addresses: Addresses::Both([10, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST),
            mac: MacAddr([2; 6]),
            condition: Condition::Ready,
            revision: Revision(u64::MAX),
        };
        let key = EndpointKey { network: NetworkId(u128::MAX), owner };
        Row {
            version: Version { generation: u64::MAX, counter: task },
            record: Record::Endpoint(key, Some(value)),
            proof: Proof::default(),
        }
    }

    /// The first of these that may be told, up to a fan-out.
    fn peers(
        nodes: std::ops::Range<u8>,
        fanout: usize,
    ) -> impl FnMut(&dyn Fn(NodeId) -> bool) -> Vec<SocketAddr> {
        move |may| {
            let nodes = nodes.clone().filter(|node| may(NodeId((*node).into())));
            let address = |node| (std::net::Ipv4Addr::from([192, 0, 2, node]), 1).into();
            nodes.map(address).take(fanout).collect()
        }
    }

    fn filled(rows: u64) -> (Outbox, Table) {
        let (mut outbox, mut table) = (Outbox::default(), Table::default());
        for row in (0..rows).map(row) {
            outbox.push(OWNER, row.record.key(), None);
            table.merge(OWNER, row, Now::ZERO);
        }
        (outbox, table)
    }

    #[test]
    fn a_burst_is_packed_into_full_datagrams() {
        let (mut outbox, table) = filled(100);
        let packets = outbox.take(&table, Now::ZERO, peers(1..6, 3));
        let sizes: Vec<usize> = packets.iter().map(|p| p.bundles[0].rows.len()).collect();
        let bytes = codec::row_bytes(&row(0));
        assert!(sizes.iter().all(|rows| BUNDLE_BYTES + rows * bytes <= PAYLOAD_BYTES_MAX));
        assert!(sizes[0] * bytes > PAYLOAD_BYTES_MAX - BUNDLE_BYTES - bytes, "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), 100);
        assert!(packets.iter().all(|packet| packet.to.len() == 3));
        assert!(outbox.is_empty());
    }

    #[test]
    fn neither_the_owner_nor_who_told_us_is_told() {
        let (mut outbox, mut table) = (Outbox::default(), Table::default());
        table.merge(OWNER, row(1), Now::ZERO);
        outbox.push(OWNER, row(1).record.key(), Some(NodeId(2)));
        let packets = outbox.take(&table, Now::ZERO, peers(1..5, 8));
        let to: Vec<String> = packets[0].to.iter().map(ToString::to_string).collect();
        assert_eq!(to, ["192.0.2.3:1", "192.0.2.4:1"]);
    }

    #[test]
    fn in_a_storm_of_changes_of_many_owners_they_share_datagrams() {
        let (mut outbox, mut table) = (Outbox::default(), Table::default());
        let (mut datagrams, mut told) = (0, 0);
        for change in 0..1_000_u64 {
            let owner = NodeId(u128::from(change) + 100);
            table.merge(owner, row(change), Now::ZERO);
            outbox.push(owner, row(change).record.key(), None);
            let now = Duration::from_millis(change);
            let packets = outbox.take(&table, now, peers(1..3, 8));
            assert!(change >= PARTIALS_MAX.into() || packets.len() == 1, "few go at once");
            datagrams += packets.len();
            told += packets.iter().flat_map(|p| &p.bundles).map(|b| b.rows.len()).sum::<usize>();
            assert!(outbox.next_deadline(now).is_none_or(|at| at <= now + PARTIAL_GAP));
        }
        assert!(told + 10 > 1_000, "{told}");
        assert!(datagrams < 1_000 / 3, "{datagrams}");
    }

    #[test]
    fn the_queue_and_a_step_have_limits() {
        let (mut outbox, table) = filled(PUSH_ROWS_MAX as u64 + 5);
        assert_eq!((outbox.len(), outbox.overflowed), (PUSH_ROWS_MAX, 5));
        let packets = outbox.take(&table, Now::ZERO, peers(1..3, 8));
        assert_eq!(packets.len(), PUSH_PACKETS_MAX);
        assert!(!outbox.is_empty());
        assert!(outbox.take(&table, Now::ZERO, peers(1..1, 8)).is_empty());
        assert!(outbox.is_empty(), "nobody is there to be told");
    }
}
