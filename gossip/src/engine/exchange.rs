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
/// Until the view is complete, peers are asked again after this; and a peer that could not be
/// asked is left alone this long.
pub const RETRY: Duration = Duration::from_millis(500);
/// What comes while the view is not complete may make it so: that is not looked at more often.
pub const LOOK_GAP: Duration = Duration::from_millis(10);
/// After the first exchange, peers that cannot be reached are waited for this long before the
/// view is called complete without them.
pub const COMPLETE_WAIT: Duration = Duration::from_secs(5);
/// While peers are named and no answer comes, the view is called complete without them after this,
/// whether they are out of reach or do not answer: what is known has to be followed in the end.
pub const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// The same from the start, whatever answers come: a table that takes longer to load does not end.
pub const COMPLETE_MAX: Duration = Duration::from_secs(300);
/// Members that ask a newcomer for its table, in a cluster of any size; the others learn its rows
/// by pushes.
pub const WELCOMES: usize = 8;

/// Owners that one exchange asks about; further ones follow in the next.
pub const OWNERS_ASKED_MAX: usize = 64;

/// What an exchange compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Rows of some owners.
    Some,
    /// The whole table.
    All,
}

/// What a peer is to be asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// Rows of these owners: the peer itself, or others of whom it knows more.
    Of(BTreeSet<NodeId>),
    /// The whole table.
    All,
}

impl Wish {
    fn scope(&self) -> Scope {
        match self {
            Self::Of(_) => Scope::Some,
            Self::All => Scope::All,
        }
    }
}

/// A digest that no row has explained yet.
#[derive(Debug, Clone, Copy)]
struct Unexplained {
    /// When it is asked about.
    due: Now,
    digest: Digest,
    /// Who has told it.
    by: NodeId,
}

/// An exchange that is under way.
#[derive(Debug)]
struct Running {
    /// When it began or last went on.
    since: Now,
    scope: Scope,
    /// The parts that were asked about.
    buckets: BTreeSet<u8>,
}

/// The scheduler of exchanges.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    wanted: BTreeMap<NodeId, Wish>,
    running: BTreeMap<NodeId, Running>,
    resting: BTreeMap<NodeId, Now>, // after a failure, until then
    unexplained: BTreeMap<NodeId, Unexplained>, // by owner
    settle_at: Option<Now>,         // not after the earliest of them
    finished: BTreeSet<NodeId>,
    first_finished: Option<Now>,
    begun: Option<Now>,    // since when peers are named
    answered: Option<Now>, // last part of a whole table, or since when peers are named
    pub(super) complete: bool,
    /// When some peer is asked without a reason.
    pub(super) next: Now,
    asks_at: Now,        // not before, for the last peer had nothing new
    looked: Option<Now>, // when it was last looked whether it is complete
    /// Something has come that may make it so.
    pub(super) look: bool,
}

impl Exchanges {
    pub(super) fn want_all(&mut self, peer: NodeId) {
        self.wanted.insert(peer, Wish::All);
    }

    /// What a peer knows of an owner is wanted.
    pub(super) fn want_of(&mut self, peer: NodeId, owner: NodeId) {
        match self.wanted.entry(peer).or_insert_with(|| Wish::Of(BTreeSet::new())) {
            Wish::All => {}
            Wish::Of(owners) if owners.len() >= OWNERS_ASKED_MAX => {}
            Wish::Of(owners) => {
                owners.insert(owner);
            }
        }
    }

    /// Whether somebody else may be asked for all that it knows: one at a time, and a second one
    /// where the first is silent.
    pub(super) fn may_ask_all(&self, now: Now) -> bool {
        let is_silent = |running: &Running| now >= running.since + RETRY;
        let whole = self.running.values().filter(|running| running.scope == Scope::All);
        now >= self.asks_at
            && !self.wanted.values().any(|wish| wish.scope() == Scope::All)
            && whole.clone().all(is_silent)
            && whole.count() < EXCHANGES_MAX
    }

    /// Notes which parts a peer is asked about.
    pub(super) fn asks(&mut self, node: NodeId, buckets: BTreeSet<u8>) {
        if let Some(running) = self.running.get_mut(&node) {
            running.buckets = buckets;
        }
    }

    /// Which parts a peer was asked about.
    pub(super) fn asked(&self, node: NodeId) -> BTreeSet<u8> {
        self.running.get(&node).map(|running| running.buckets.clone()).unwrap_or_default()
    }

    /// Takes the digest that a member sent of its own rows, or of another owner's as it has them.
    pub(super) fn heard(&mut self, digest: Digest, by: NodeId, table: &Table, now: Now) {
        let mine = table.digest(digest.owner);
        if digest.agrees(&mine) {
            self.unexplained.remove(&digest.owner);
            return;
        }
        // Who is not the owner may itself lack something.
        if by == digest.owner || digest.last > mine.last {
            let due = now + SETTLE;
            self.unexplained.entry(digest.owner).or_insert(Unexplained { due, digest, by });
            self.settle_at.get_or_insert(due);
        }
    }

    /// Turns digests that no row has explained into wishes.
    pub(super) fn settle(&mut self, table: &Table, now: Now) {
        if self.settle_at.is_none_or(|at| now < at) {
            return;
        }
        let unexplained = std::mem::take(&mut self.unexplained).into_iter();
        let (due, later) = unexplained.partition::<BTreeMap<_, _>, _>(|(_, u)| u.due <= now);
        self.unexplained = later;
        for (owner, Unexplained { digest, by, .. }) in due {
            let mine = table.digest(owner);
            // With later rows than the digest knew there is nothing to compare; the next one tells.
            if !mine.agrees(&digest) && mine.last <= digest.last {
                self.want_of(by, owner);
            }
        }
        self.settle_at = self.unexplained.values().map(|u| u.due).min();
    }

    /// The members to ask now.
    pub(super) fn start(
        &mut self,
        is_active: impl Fn(NodeId) -> bool,
        now: Now,
    ) -> Vec<(NodeId, Wish)> {
        self.running.retain(|_, running| running.since + EXCHANGE_WAIT > now);
        // Who is gone is asked when it is back: it arrives again.
        self.wanted.retain(|node, _| is_active(*node));
        self.resting.retain(|_, until| *until > now);
        let room = EXCHANGES_MAX.saturating_sub(self.running.len());
        let ready: Vec<NodeId> = (self.wanted.keys())
            .filter(|node| !self.running.contains_key(node) && !self.resting.contains_key(node))
            .take(room)
            .copied()
            .collect();
        let begun = ready.into_iter().filter_map(|node| Some((node, self.wanted.remove(&node)?)));
        let begun: Vec<(NodeId, Wish)> = begun.collect();
        for (node, wish) in &begun {
            let (scope, buckets) = (wish.scope(), BTreeSet::new());
            self.running.insert(*node, Running { since: now, scope, buckets });
        }
        begun
    }

    /// Prolongs an exchange that goes on; `None` if it is not under way.
    pub(super) fn goes_on(&mut self, node: NodeId, now: Now) -> Option<Scope> {
        let running = self.running.get_mut(&node)?;
        running.since = now;
        Some(running.scope)
    }

    /// An answer brought all that the peer knows.
    pub(super) fn learned_all(&mut self, node: NodeId, peer_is_complete: bool, now: Now) {
        self.finished.insert(node);
        self.look = true;
        self.first_finished.get_or_insert(now);
        self.complete |= peer_is_complete;
    }

    /// Peers are named, and can answer from now on.
    pub(super) fn begin(&mut self, now: Now) {
        self.begun.get_or_insert(now);
        self.answered.get_or_insert(now);
    }

    /// A peer knows what we know: others will hardly know more just now.
    pub(super) fn nothing_new(&mut self, now: Now) {
        self.asks_at = now + RETRY;
    }

    /// A part of a whole table came, or is being taken in.
    pub(super) fn progress(&mut self, now: Now) {
        self.answered = Some(now);
    }

    /// Whether nobody has answered for so long that nobody is waited for.
    fn has_waited(&self, now: Now) -> bool {
        self.answered.is_some_and(|last| now >= last + ANSWER_WAIT)
            || self.begun.is_some_and(|begun| now >= begun + COMPLETE_MAX)
    }

    /// Whether a whole table has been heard, or none will be.
    pub(super) fn has_heard(&self, now: Now) -> bool {
        self.first_finished.is_some() || self.has_waited(now)
    }

    pub(super) fn failed(&mut self, node: NodeId, now: Now) {
        self.ended(node);
        self.resting.insert(node, now + RETRY);
    }

    pub(super) fn ended(&mut self, node: NodeId) {
        self.running.remove(&node);
        self.look = true;
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.wanted.remove(&node);
        self.running.remove(&node);
        self.resting.remove(&node);
        self.unexplained.remove(&node);
        self.finished.remove(&node);
    }

    /// The peers that keep the view from being complete. What a peer runs is known if the whole set
    /// of its present run is, by whatever way, or if its whole table was heard. Where all nodes
    /// start at once, no single answer has everything; only an answer that was complete has.
    pub(super) fn lacking(
        &self,
        peers: impl Iterator<Item = NodeId>,
        run: impl Fn(NodeId) -> Option<u64>,
        table: &Table,
        now: Now,
    ) -> Vec<NodeId> {
        if self.has_waited(now) {
            return Vec::new();
        }
        let waited = self.first_finished.is_some_and(|first| now >= first + COMPLETE_WAIT);
        let known = |node: &NodeId| match run(*node) {
            Some(run) => self.finished.contains(node) || table.digest(*node).floor >= run,
            // Out of reach: waited for, then done without.
            None => waited,
        };
        peers.filter(|peer| !known(peer)).collect()
    }

    /// Whether it has to be looked now whether the view is complete; notes that it is.
    pub(super) fn looks(&mut self, now: Now) -> bool {
        let due = self.look_at().is_some_and(|at| now >= at);
        if due {
            (self.look, self.looked) = (false, Some(now));
        }
        due
    }

    fn look_at(&self) -> Option<Now> {
        let at = self.looked.map_or(Now::ZERO, |looked| looked + LOOK_GAP);
        (self.look && !self.complete).then_some(at)
    }

    /// When [`Exchanges::settle`], the next unprompted exchange or a look has work to do.
    pub(super) fn next_deadline(&self) -> Now {
        let all = [Some(self.next), self.settle_at, self.look_at()];
        all.into_iter().flatten().min().unwrap_or(self.next)
    }
}
