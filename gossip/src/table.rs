//! Rows of all owners, merged by version: a join semilattice, so that order, repetition and route
//! of what arrives do not matter.
//!
//! Per owner the table holds the newest row of each key and a *floor*: the newest generation of
//! which this table has ever held the whole set. Rows below the floor are superseded and refused;
//! that is how rows vanish that a restarted owner no longer has, and it happens only when all that
//! it does have is known, so nothing blinks.

use std::collections::BTreeMap;

use cluster::id::NodeId;

use crate::Now;
use crate::anti_entropy::{Bundle, Digest};
use crate::buckets::Buckets;
use crate::codec;
use crate::row::{Row, RowKey, Version};

/// Rows of one owner, tombstones included; a node runs thousands of tasks, not tens of thousands.
pub const ROWS_PER_OWNER_MAX: usize = 65_536;
/// Owners in a table.
pub const OWNERS_MAX: usize = 16_384;

/// What became of a row that was merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merged {
    /// It is newer than what the table held.
    News,
    /// The table held it or a newer one.
    Known,
    /// Its generation is below the owner's floor.
    Superseded,
    /// A limit of the table is reached; the row is not stored.
    Full,
}

#[derive(Debug, Clone)]
struct Stored {
    row: Row,
    hash: u64,
    since: Now, // when it was stored here; ages tombstones
}

/// One owner's part of the table.
#[derive(Debug, Clone, Default)]
struct OwnerRows {
    floor: u64,
    last: Version,
    rows: BTreeMap<RowKey, Box<Stored>>, // boxed: most owners have few rows, and a map has room
    live: u32,                           // invariant: rows that are no tombstones
    hash: u64,                           // invariant: exclusive or of their hashes
}

/// All rows that a node knows.
#[derive(Debug, Clone, Default)]
pub struct Table {
    owners: BTreeMap<NodeId, OwnerRows>,
    buckets: Buckets, // invariant: summarises the digests of the owners
}

impl Table {
    /// Takes a row of an owner. Commutative, associative and idempotent together with
    /// [`Table::raise`]; rows of one version that differ, which no correct owner writes, are
    /// ordered by their content.
    pub fn merge(&mut self, owner: NodeId, row: Row, now: Now) -> Merged {
        if self.owners.len() >= OWNERS_MAX && !self.owners.contains_key(&owner) {
            return Merged::Full;
        }
        self.change(owner, |rows| rows.merge(row, now))
    }

    /// Changes an owner's rows, and the summary with them.
    fn change<T>(&mut self, owner: NodeId, change: impl FnOnce(&mut OwnerRows) -> T) -> T {
        let rows = self.owners.entry(owner).or_default();
        let before = rows.digest(owner).summary();
        let outcome = change(rows);
        self.buckets.change(owner, before, rows.digest(owner).summary());
        outcome
    }

    /// What [`Table::merge`] would answer: only news is worth verifying.
    #[must_use]
    pub fn foresee(&self, owner: NodeId, row: &Row) -> Merged {
        match self.owners.get(&owner) {
            Some(rows) => rows.foresee(row, codec::row_hash(row)),
            None if self.owners.len() >= OWNERS_MAX => Merged::Full,
            None => Merged::News,
        }
    }

    /// Records that every row that the owner wrote in `generation` so far is in this table.
    /// Returns the live rows that vanish by it: those of older generations.
    pub fn raise(&mut self, owner: NodeId, generation: u64) -> Vec<RowKey> {
        if generation == 0 || (self.owners.len() >= OWNERS_MAX && !self.owners.contains_key(&owner))
        {
            return Vec::new();
        }
        self.change(owner, |rows| rows.raise(generation))
    }

    /// Drops an owner and all its rows; returns the keys that were live.
    pub fn forget(&mut self, owner: NodeId) -> Vec<RowKey> {
        let Some(rows) = self.owners.remove(&owner) else { return Vec::new() };
        self.buckets.change(owner, rows.digest(owner).summary(), 0);
        rows.rows.values().filter(|s| s.row.record.is_live()).map(|s| s.row.record.key()).collect()
    }

    /// Drops tombstones that are older than the horizon. A peer that was away for longer can bring
    /// a dead row back; its owner then says again that it is dead.
    pub fn expire(&mut self, now: Now, horizon: Now) {
        for owner in self.owners.values_mut() {
            owner.rows.retain(|_, stored| {
                stored.row.record.is_live() || now.saturating_sub(stored.since) < horizon
            });
        }
    }

    /// The newest row of a key, tombstones included.
    #[must_use]
    pub fn get(&self, owner: NodeId, key: &RowKey) -> Option<&Row> {
        self.owners.get(&owner)?.rows.get(key).map(|stored| &stored.row)
    }

    /// Every owner of which the table knows something.
    pub fn owners(&self) -> impl Iterator<Item = NodeId> {
        self.owners.keys().copied()
    }

    /// All rows of an owner, tombstones included, by key.
    pub fn rows_of(&self, owner: NodeId) -> impl Iterator<Item = &Row> {
        self.owners.get(&owner).into_iter().flat_map(|o| o.rows.values()).map(|stored| &stored.row)
    }

    /// Summary of an owner's rows; of an owner that is not in the table, the empty one.
    #[must_use]
    pub fn digest(&self, owner: NodeId) -> Digest {
        match self.owners.get(&owner) {
            None => Digest::empty(owner),
            Some(rows) => rows.digest(owner),
        }
    }

    /// The summary of all digests.
    pub(crate) fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// Rows and tombstones held.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        let rows = self.owners.values().map(|o| o.rows.len()).sum::<usize>();
        let live = self.owners.values().map(|o| o.live as usize).sum::<usize>();
        (live, rows - live)
    }

    /// What the holder of `theirs` may lack of that owner's rows, oldest first. After merging it,
    /// the holder knows all that this table knows of the owner, which is why it has the floor.
    pub(crate) fn delta(&self, theirs: &Digest) -> Option<Bundle> {
        let mine = self.owners.get(&theirs.owner)?;
        if mine.digest(theirs.owner).agrees(theirs) {
            return None;
        }
        let mut rows: Vec<&Stored> = (mine.rows.values().map(Box::as_ref))
            .filter(|stored| stored.row.version.generation >= theirs.floor)
            .collect();
        if mine.holds_prefix(theirs) {
            rows.retain(|stored| stored.row.version > theirs.last);
        }
        if rows.is_empty() && mine.floor <= theirs.floor {
            return None;
        }
        rows.sort_by_key(|stored| stored.row.version);
        let rows = rows.into_iter().map(|stored| stored.row.clone()).collect();
        Some(Bundle { owner: theirs.owner, floor: mine.floor, rows })
    }
}

impl OwnerRows {
    fn merge(&mut self, row: Row, now: Now) -> Merged {
        // Also of a row that is refused: what was seen must not depend on the order.
        self.last = self.last.max(row.version);
        let hash = codec::row_hash(&row);
        let merged = self.foresee(&row, hash);
        if merged == Merged::News {
            if row.record.is_live() {
                self.live += 1;
                self.hash ^= hash;
            }
            let stored = Box::new(Stored { row, hash, since: now });
            if let Some(old) = self.rows.insert(stored.row.record.key(), stored) {
                self.uncount(&old);
            }
        }
        merged
    }

    fn foresee(&self, row: &Row, hash: u64) -> Merged {
        if row.version.generation < self.floor {
            return Merged::Superseded;
        }
        match self.rows.get(&row.record.key()) {
            Some(held) if (held.row.version, held.hash) >= (row.version, hash) => Merged::Known,
            Some(_) => Merged::News,
            None if self.rows.len() >= ROWS_PER_OWNER_MAX => Merged::Full,
            None => Merged::News,
        }
    }

    fn uncount(&mut self, old: &Stored) {
        if old.row.record.is_live() {
            self.live -= 1;
            self.hash ^= old.hash;
        }
    }

    fn raise(&mut self, generation: u64) -> Vec<RowKey> {
        if generation <= self.floor {
            return Vec::new();
        }
        self.floor = generation;
        let below: Vec<RowKey> = (self.rows.iter())
            .filter(|(_, stored)| stored.row.version.generation < generation)
            .map(|(key, _)| *key)
            .collect();
        let mut vanished = Vec::new();
        for key in below {
            if let Some(old) = self.rows.remove(&key) {
                self.uncount(&old);
                if old.row.record.is_live() {
                    vanished.push(key);
                }
            }
        }
        vanished
    }

    fn digest(&self, owner: NodeId) -> Digest {
        Digest { owner, floor: self.floor, last: self.last, live: self.live, hash: self.hash }
    }

    /// Whether the rows up to their last version are the ones that they hold, so that they lack
    /// only later ones.
    fn holds_prefix(&self, theirs: &Digest) -> bool {
        let (mut live, mut hash) = (0_u32, 0_u64);
        for stored in self.rows.values() {
            if stored.row.version <= theirs.last && stored.row.record.is_live() {
                live += 1;
                hash ^= stored.hash;
            }
        }
        (live, hash) == (theirs.live, theirs.hash)
    }
}

#[cfg(test)]
#[path = "table/tests.rs"]
mod tests;
