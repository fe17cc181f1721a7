//! News on its way out: coalesced by key, packed into datagrams, each to a fan-out of peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use cluster::id::NodeId;
use rand::Rng;
use rand::seq::IndexedRandom;

use crate::anti_entropy::Bundle;
use crate::codec::{self, PAYLOAD_BYTES_MAX};
use crate::identity::Identity;
use crate::row::{Row, RowKey};
use crate::table::Table;

/// Rows that wait to be pushed. What does not fit is left to anti-entropy.
pub const PUSH_ROWS_MAX: usize = 4096;
/// Datagrams' worth of rows pushed in one step; the rest waits for the next.
pub const PUSH_PACKETS_MAX: usize = 32;
/// Bytes of a bundle around its rows, at their longest encoding: owner, floor, count.
const BUNDLE_BYTES: usize = 17 + 1 + 5;

/// Rows for the datagrams of one step.
pub(super) struct Packet {
    pub(super) to: Vec<SocketAddr>,
    pub(super) bundle: Bundle,
}

/// The queue: which rows, and from whom we have them, for that peer needs no telling.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    rows: BTreeMap<(NodeId, Option<NodeId>), BTreeSet<RowKey>>,
    waiting: usize,
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

    /// Takes up to [`PUSH_PACKETS_MAX`] packets. Without peers the queue is emptied: a peer that
    /// joins loads the table as a whole.
    pub(super) fn take(
        &mut self,
        table: &Table,
        peers: &BTreeMap<NodeId, Identity>,
        fanout: usize,
        rng: &mut impl Rng,
    ) -> Vec<Packet> {
        let mut packets = Vec::new();
        while packets.len() < PUSH_PACKETS_MAX {
            let Some(mut group) = self.rows.first_entry() else { break };
            let (owner, from) = *group.key();
            let mut rows: Vec<Row> = Vec::new();
            let mut bytes = BUNDLE_BYTES;
            while let Some(key) = group.get().first().copied() {
                let row = table.get(owner, &key);
                let size = row.map_or(0, codec::row_bytes);
                if bytes + size > PAYLOAD_BYTES_MAX && !rows.is_empty() {
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
            let others: Vec<SocketAddr> = (peers.iter())
                .filter(|(node, _)| **node != owner && Some(**node) != from)
                .map(|(_, identity)| identity.address)
                .collect();
            let to: Vec<SocketAddr> = others.sample(rng, fanout).copied().collect();
            if !to.is_empty() && !rows.is_empty() {
                packets.push(Packet { to, bundle: Bundle { owner, floor: 0, rows } });
            }
        }
        packets
    }
}
