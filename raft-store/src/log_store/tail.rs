//! The newest entries of the log in memory: those not yet on disk, and a limited number of others,
//! because followers often ask for them.

use std::collections::BTreeMap;

use openraft::EntryPayload;

use crate::types::Entry;

/// Entries on disk leave the tail beyond this number …
const ENTRIES_MAX: usize = 4_096;
/// … or this weight.
const BYTES_MAX: usize = 16 << 20;
/// Bytes that an entry takes in addition to its payload.
const ENTRY_BYTES: usize = 128;

#[derive(Default)]
pub(super) struct Tail {
    slots: BTreeMap<u64, Slot>,
    bytes: usize,
}

struct Slot {
    entry: Entry,
    /// Of the write that puts the entry on disk.
    sequence: u64,
}

/// About how many bytes the entry takes in memory and in a message.
pub(super) fn weight(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(payload) => ENTRY_BYTES + payload.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => ENTRY_BYTES,
    }
}

impl Tail {
    pub(super) fn first(&self) -> Option<u64> {
        self.slots.first_key_value().map(|(index, _)| *index)
    }

    pub(super) fn range(&self, start: u64, end: u64) -> Vec<Entry> {
        self.slots.range(start..end).map(|(_, slot)| slot.entry.clone()).collect()
    }

    /// Adds entries of the write `sequence`; drops old ones, of writes up to `flushed`, beyond the
    /// limits.
    pub(super) fn push(&mut self, entries: Vec<Entry>, sequence: u64, flushed: u64) {
        for entry in entries {
            self.bytes += weight(&entry);
            if let Some(old) = self.slots.insert(entry.log_id.index, Slot { entry, sequence }) {
                self.bytes -= weight(&old.entry);
            }
        }
        while self.slots.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            match self.slots.first_entry() {
                Some(first) if first.get().sequence <= flushed => {
                    self.bytes -= weight(&first.remove().entry);
                }
                Some(_) | None => break,
            }
        }
    }

    /// Drops the entries from `from` on.
    pub(super) fn truncate(&mut self, from: u64) {
        let cut = self.slots.split_off(&from);
        self.bytes -= cut.values().map(|slot| weight(&slot.entry)).sum::<usize>();
    }

    /// Drops the entries up to and including `upto`.
    pub(super) fn purge(&mut self, upto: u64) {
        let kept = self.slots.split_off(&(upto + 1));
        let cut = std::mem::replace(&mut self.slots, kept);
        self.bytes -= cut.values().map(|slot| weight(&slot.entry)).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{LeaderId, LogId, Payload};

    fn entry(index: u64, size: usize) -> Entry {
        Entry {
            log_id: LogId::new(LeaderId { term: 1, node_id: 1 }, index),
            payload: EntryPayload::Normal(Payload(Bytes::from(vec![0; size]))),
        }
    }

    fn indexes(tail: &Tail) -> Vec<u64> {
        tail.range(0, u64::MAX).iter().map(|e| e.log_id.index).collect()
    }

    #[test]
    fn an_entry_that_is_not_on_disk_stays_however_heavy() {
        let mut tail = Tail::default();
        tail.push((1..=3).map(|i| entry(i, BYTES_MAX)).collect(), 7, 6);
        assert_eq!(indexes(&tail), [1, 2, 3]);
        tail.push(vec![entry(4, 1)], 8, 7);
        assert_eq!(indexes(&tail), [4]);
        assert_eq!(tail.bytes, ENTRY_BYTES + 1);
    }

    #[test]
    fn truncation_then_append_keeps_the_new_entry_until_its_own_write_is_on_disk() {
        let mut tail = Tail::default();
        tail.push((1..=3).map(|i| entry(i, 10)).collect(), 1, 0);
        tail.truncate(2);
        tail.push(vec![entry(2, BYTES_MAX), entry(3, 1)], 3, 1);
        assert_eq!(indexes(&tail), [2, 3]);
    }

    #[test]
    fn purge_and_truncate_account_for_every_byte() {
        let mut tail = Tail::default();
        tail.push((0..10).map(|i| entry(i, 100)).collect(), 1, 0);
        tail.purge(4);
        tail.truncate(8);
        assert_eq!(indexes(&tail), [5, 6, 7]);
        assert_eq!(tail.bytes, 3 * (ENTRY_BYTES + 100));
        tail.purge(20);
        assert_eq!((tail.bytes, tail.first()), (0, None));
    }
}
