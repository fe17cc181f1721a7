//! When to compare tables with whom, and when enough has been compared.
//!
//! A peer is asked when it becomes a member, when the digest that came with its last datagram has
//! not been explained by rows for a moment, and in turn at an interval.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::id::NodeId;

use crate::Now;
use crate::anti_entropy::Digest;
use crate::table::Table;

/// Exchanges that this node has under way.
pub const EXCHANGES_MAX: usize = 4;
/// The shell's answer is awaited this long; the peer may then be asked again.
pub const EXCHANGE_WAIT: Duration = Duration::from_secs(10);
/// Rows that a digest speaks of may be on their way this long.
pub const SETTLE: Duration = Duration::from_millis(50);
/// Until the view is complete, peers are asked again after this.
pub const RETRY: Duration = Duration::from_millis(500);
/// After the first exchange, peers that cannot be reached are waited for this long before the
/// view is called complete without them.
pub const COMPLETE_WAIT: Duration = Duration::from_secs(5);
/// Members that ask a newcomer, in a cluster of any size; the others learn its rows by pushes.
pub const WELCOMES: usize = 8;

/// The scheduler of exchanges.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    wanted: BTreeSet<NodeId>,
    running: BTreeMap<NodeId, Now>,
    unexplained: BTreeMap<NodeId, (Now, Digest)>,
    finished: BTreeSet<NodeId>,
    first_finished: Option<Now>,
    pub(super) complete: bool,
    /// When some peer is asked without a reason.
    pub(super) next: Now,
}

impl Exchanges {
    pub(super) fn want(&mut self, node: NodeId) {
        self.wanted.insert(node);
    }

    /// Takes the digest that a member sent of its own rows.
    pub(super) fn head(&mut self, head: Digest, table: &Table, now: Now) {
        if head.agrees(&table.digest(head.owner)) {
            self.unexplained.remove(&head.owner);
        } else {
            self.unexplained.entry(head.owner).or_insert((now + SETTLE, head));
        }
    }

    /// Turns digests that no row has explained into wishes.
    pub(super) fn settle(&mut self, table: &Table, now: Now) {
        let due = self.unexplained.extract_if(.., |_, (at, _)| *at <= now);
        for (node, (_, head)) in due.collect::<Vec<_>>() {
            let mine = table.digest(node);
            // With later rows than the digest knew there is nothing to compare; the next one tells.
            if !mine.agrees(&head) && mine.last <= head.last {
                self.wanted.insert(node);
            }
        }
    }

    /// The members to ask now.
    pub(super) fn start(&mut self, active: &BTreeSet<NodeId>, now: Now) -> Vec<NodeId> {
        self.running.retain(|_, until| *until > now);
        // Who is gone is asked when it is back: it arrives again.
        self.wanted.retain(|node| active.contains(node));
        let room = EXCHANGES_MAX.saturating_sub(self.running.len());
        let ready: Vec<NodeId> = (self.wanted.iter())
            .filter(|node| !self.running.contains_key(node))
            .take(room)
            .copied()
            .collect();
        for node in &ready {
            self.wanted.remove(node);
            self.running.insert(*node, now + EXCHANGE_WAIT);
        }
        ready
    }

    /// Prolongs an exchange that goes on; false if it is not under way.
    pub(super) fn goes_on(&mut self, node: NodeId, now: Now) -> bool {
        match self.running.get_mut(&node) {
            Some(until) => {
                *until = now + EXCHANGE_WAIT;
                true
            }
            None => false,
        }
    }

    /// An answer brought all that the peer knows.
    pub(super) fn learned_all(&mut self, node: NodeId, peer_is_complete: bool, now: Now) {
        self.finished.insert(node);
        self.first_finished.get_or_insert(now);
        self.complete |= peer_is_complete;
    }

    pub(super) fn ended(&mut self, node: NodeId) {
        self.running.remove(&node);
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.wanted.remove(&node);
        self.running.remove(&node);
        self.unexplained.remove(&node);
        self.finished.remove(&node);
    }

    /// Whether everything that can be known is: a peer that was complete has been heard, or every
    /// peer has been (those out of reach excepted, after a wait), or there is none. Where a whole
    /// cluster starts at once, no single peer knows the rows of the others.
    pub(super) fn update_complete(
        &mut self,
        peers: Option<BTreeSet<NodeId>>,
        active: &BTreeSet<NodeId>,
        now: Now,
    ) {
        let Some(peers) = peers else { return };
        let waited = self.first_finished.is_some_and(|first| now >= first + COMPLETE_WAIT);
        self.complete = (peers.iter())
            .all(|peer| self.finished.contains(peer) || (waited && !active.contains(peer)));
    }

    /// Whether an exchange with this node has brought all that it knew.
    pub(super) fn has_heard(&self, node: NodeId) -> bool {
        self.finished.contains(&node)
    }

    /// When [`Exchanges::settle`] or the next unprompted exchange has work to do.
    pub(super) fn next_deadline(&self) -> Now {
        self.unexplained.values().map(|(at, _)| *at).fold(self.next, Now::min)
    }
}
