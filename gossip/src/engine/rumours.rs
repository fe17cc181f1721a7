//! Owners whose rows have changed a moment ago. Their digests go along with what is sent to members
//! anyway, so that a member that missed a push hears of it from the next one that speaks to it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use cluster::id::NodeId;

use crate::Now;
use crate::anti_entropy::Digest;
use crate::codec::{DIGEST_BYTES_MAX, DIGESTS_MAX, PAYLOAD_BYTES_MAX};
use crate::table::Table;

/// A change is named in datagrams for this long: some ten of them go to each member in it.
pub const TOLD_FOR: Duration = Duration::from_secs(2);
/// Owners that are named; what exceeds them is left to the comparison of whole tables.
pub const OWNERS_MAX: usize = 256;

/// Whose rows changed, and until when it is told.
#[derive(Debug, Default)]
pub(super) struct Rumours {
    recent: BTreeMap<NodeId, Now>,
    last: Option<NodeId>, // that was mentioned: the next datagram goes on behind it
}

impl Rumours {
    /// Rows of an owner have changed here.
    pub(super) fn note(&mut self, owner: NodeId, now: Now) {
        if self.recent.len() < OWNERS_MAX || self.recent.contains_key(&owner) {
            self.recent.insert(owner, now + TOLD_FOR);
        }
    }

    pub(super) fn forget(&mut self, owner: NodeId) {
        self.recent.remove(&owner);
    }

    /// Digests for a datagram with a payload of so many bytes; owners take turns.
    pub(super) fn take(&mut self, payload: usize, table: &Table, now: Now) -> Vec<Digest> {
        self.recent.retain(|_, until| *until > now);
        let room = PAYLOAD_BYTES_MAX.saturating_sub(payload) / DIGEST_BYTES_MAX;
        let count = room.min(DIGESTS_MAX - 1).min(self.recent.len());
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let turn = self.recent.range((after, Bound::Unbounded)).chain(&self.recent);
        let told: Vec<NodeId> = turn.map(|(owner, _)| *owner).take(count).collect();
        self.last = told.last().copied().or(self.last);
        told.into_iter().map(|owner| table.digest(owner)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(milliseconds: u64) -> Now {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn owners_take_turns_until_their_time_is_over() {
        let (mut rumours, table) = (Rumours::default(), Table::default());
        for owner in 0..=DIGESTS_MAX as u128 {
            rumours.note(NodeId(owner), at(owner as u64));
        }
        let mut told = |payload, now| -> Vec<u128> {
            let digests = rumours.take(payload, &table, now);
            digests.into_iter().map(|digest| digest.owner.0).collect()
        };
        let each = (DIGESTS_MAX - 1) as u128;
        assert_eq!(told(0, at(100)), (0..each).collect::<Vec<_>>());
        assert_eq!(told(0, at(100))[..3], [each, each + 1, 0]);
        assert_eq!(told(PAYLOAD_BYTES_MAX - DIGEST_BYTES_MAX, at(100)).len(), 1, "what fits");
        assert_eq!(told(PAYLOAD_BYTES_MAX, at(100)), [0_u128; 0]);
        let late = TOLD_FOR + at(each as u64);
        assert_eq!(told(0, late), [each + 1], "the others' time is over");
    }

    #[test]
    fn there_is_a_limit_to_what_is_told() {
        let mut rumours = Rumours::default();
        for owner in 0..2 * OWNERS_MAX as u128 {
            rumours.note(NodeId(owner), at(0));
        }
        assert_eq!(rumours.recent.len(), OWNERS_MAX);
    }
}
