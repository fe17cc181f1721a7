//! The dispatcher's core, on the leader: who holds a lease, what each node's watch is answered,
//! which parts of its assignment each node has in its kernel, and so which stopping tasks may stop.
//!
//! Leases are in memory and on a monotonic clock: a new leader grants every node a full one.
//!
//! A stopping task is released when every live node on its networks holds a part of that network in
//! which it drains ([`lag`]). What a kernel holds the dispatcher knows as the digest of all parts
//! together, which names a list that it told or that the node's watch showed: a digest without a
//! list counts as nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cluster::assign::{Hash, Parts};
use cluster::id::{NetworkId, NodeId, TaskId};
use cluster::object::{KeyTurn, NodeState, Task};
use cluster::session::{Digest, WatchAnswer, WatchCall};
use cluster::state::State;
use cluster::time::{Revision, Timestamp};

use self::lag::Lag;
use self::realized::{Pending, Proposals};

mod lag;
mod realized;

/// A node that is not heard of for this long loses its tasks. Workers report every 500 ms at least,
/// so several reports must be lost first.
pub const LEASE: Duration = Duration::from_millis(2500);
/// The lease of a node whose daemon said that it restarts: as long as gossip's grace for the same
/// announcement, in which its peers hide nothing of it.
pub const RESTART_LEASE: Duration = Duration::from_secs(30);
/// Lists of parts that are remembered for one node: what its kernel holds is one of them, or the
/// node counts as behind.
const LISTS_MAX: usize = 64;

/// What the leader knows of the nodes' sessions.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    sessions: BTreeMap<NodeId, Session>,
    parts: Parts,
    /// Of networks that were asked for since they last changed.
    lags: BTreeMap<NetworkId, Lag>,
    /// Of those, the ones in which a node lags behind.
    lagging: BTreeMap<NodeId, BTreeSet<NetworkId>>,
    proposals: Proposals,
}

/// A list of parts that a node may speak of.
#[derive(Debug)]
struct Known {
    digest: Digest,
    parts: Arc<BTreeSet<Digest>>,
    /// The newest state that is known to give it; none of one that the node has from an earlier
    /// leader or from its disk.
    at: Option<Revision>,
}

#[derive(Debug)]
struct Session {
    lease_until: Duration,
    /// The assignment that the node's kernel holds, by its word.
    applied: Option<Digest>,
    /// The newest state of which the kernel was known to hold the whole assignment, when it last
    /// was.
    acked: Option<Revision>,
    /// The one that was told last is the last one.
    lists: VecDeque<Known>,
    pending: Pending,
}

/// What a report comes to.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Others wait for what the node acknowledged by it.
    pub rings: bool,
    /// For each change of the assignment that the kernel did not hold before, how long ago it was
    /// proposed, as far as that is known.
    pub realized: Vec<Duration>,
}

/// What a watch comes to now.
#[derive(Debug)]
pub struct Watched {
    /// What it is answered, now or when it has waited long enough.
    pub answer: WatchAnswer,
    /// It is answered now.
    pub is_news: bool,
    /// What other nodes acknowledge may be news for it.
    pub waits_for_others: bool,
    /// Others wait for what the node acknowledged by this.
    pub rings: bool,
}

impl Dispatcher {
    pub(crate) fn new(hash: Hash) -> Self {
        Self {
            sessions: BTreeMap::new(),
            parts: Parts::new(hash),
            lags: BTreeMap::new(),
            lagging: BTreeMap::new(),
            proposals: Proposals::default(),
        }
    }

    /// Takes over: every node of the state gets a full lease. What was heard of it earlier stays
    /// true: a new leader is told things before it takes over.
    pub(crate) fn take_over(&mut self, state: &State, now: Duration) {
        self.follow(state, now);
        for session in self.sessions.values_mut() {
            session.lease_until = session.lease_until.max(now + LEASE);
        }
    }

    /// Goes on to a newer state: forgets nodes that are no longer in it, and gives new ones a
    /// lease.
    pub(crate) fn follow(&mut self, state: &State, now: Duration) {
        let before = self.parts.state().revision;
        if state.revision <= before {
            return;
        }
        let followed = self.parts.follow(state);
        for (node, list) in followed.lists {
            if let Some(session) = self.sessions.get_mut(&node) {
                session.was_given(list.digest, before);
            }
        }
        for network in &followed.networks {
            self.forget_lag(*network);
        }
        if followed.nodes {
            self.lags.clear();
            self.lagging.clear();
            self.sessions.retain(|id, _| state.nodes.contains_key(id));
            for id in state.nodes.keys() {
                self.sessions.entry(*id).or_insert_with(|| Session::new(now));
            }
        }
    }

    /// The newest state that was followed.
    pub(crate) fn state(&self) -> &State {
        self.parts.state()
    }

    /// An entry is proposed. There is one at a time.
    pub(crate) fn proposing(&mut self, at: Duration) {
        self.proposals.begin(at);
    }

    /// It was applied.
    pub(crate) fn proposed(&mut self, revision: Revision) {
        self.proposals.applied(revision);
    }

    /// A node was heard of; `applied` is the assignment that its kernel holds.
    pub(crate) fn hear(&mut self, node: NodeId, applied: Option<Digest>, now: Duration) -> Heard {
        let before = self.applied(node);
        let session = self.sessions.entry(node).or_insert_with(|| Session::new(now));
        session.lease_until = now + LEASE;
        if session.applied == applied {
            return Heard::default();
        }
        session.acked = before;
        session.applied = applied;
        session.catch_up();
        let held = applied.map(|digest| session.pending.applied(digest)).unwrap_or_default();
        let proposed = held.into_iter().filter_map(|from| self.proposals.first_from(from));
        let realized = proposed.map(|at| now.saturating_sub(at)).collect();
        Heard { rings: self.catch_up(node, before), realized }
    }

    /// A node that was just heard of is silent from now on: its daemon restarts, its tasks go on.
    pub(crate) fn expect_restart(&mut self, node: NodeId, now: Duration) {
        if let Some(session) = self.sessions.get_mut(&node) {
            session.lease_until = now + RESTART_LEASE;
        }
    }

    /// What a node's watch comes to at the newest state; `None` if the node has no assignment.
    /// `wall` is the leader's clock.
    pub(crate) fn watch(
        &mut self,
        node: NodeId,
        call: &WatchCall,
        wall: Timestamp,
    ) -> Option<Watched> {
        let before = self.applied(node);
        let list = self.parts.list(node)?;
        self.parts.has(node, &call.have);
        let is_current = *list.digests == call.have;
        let mut rings = false;
        if !is_current && !call.have.is_empty() {
            let (digest, at) = (self.parts.digest_of_all(&call.have), None);
            let known = Known { digest, parts: Arc::new(call.have.clone()), at };
            rings |= self.learn(node, known, before);
        }
        let at = Some(self.parts.state().revision);
        let known = Known { digest: list.digest, parts: Arc::clone(&list.digests), at };
        rings |= self.learn(node, known, before);
        self.assigned(node, list.digest);
        let is_told = is_current && call.confirmed;
        let told = if is_told { None } else { self.parts.tell(node, &call.have) };
        let released = self.released(node);
        Some(Watched {
            is_news: told.is_some() || !released.is_subset(&call.released),
            waits_for_others: self.parts.state().stopping_on(node).next().is_some(),
            answer: WatchAnswer { told, released, now: wall },
            rings,
        })
    }

    /// Remembers a list that the node may speak of. True if others wait for what that tells.
    fn learn(&mut self, node: NodeId, known: Known, before: Option<Revision>) -> bool {
        let Some(session) = self.sessions.get_mut(&node) else { return false };
        let is_new = session.learn(known);
        (is_new || self.applied(node) != before) && self.catch_up(node, before)
    }

    /// At the newest state, this is what a node is to hold.
    fn assigned(&mut self, node: NodeId, digest: Digest) {
        let revision = self.parts.state().revision;
        let Some(session) = self.sessions.get_mut(&node) else { return };
        session.pending.assigned(digest, revision);
        if session.applied == Some(digest) {
            // It was taken back before the node heard of it.
            session.pending.applied(digest);
        }
    }

    /// Nodes that Raft does not know as down and whose lease ran out.
    pub(crate) fn expired(&self, state: &State, now: Duration) -> Vec<NodeId> {
        let lost = |id: &NodeId| self.sessions.get(id).is_some_and(|s| s.lease_until <= now);
        let up = state
            .nodes
            .values()
            .filter(|node| matches!(node.status.state, NodeState::Ready | NodeState::Unknown));
        up.map(|node| node.id).filter(lost).collect()
    }

    /// This node's tasks that are to stop and that every live node on their networks has taken
    /// out of its balancers.
    pub(crate) fn released(&mut self, node: NodeId) -> BTreeSet<TaskId> {
        let stopping: Vec<Arc<Task>> = self.parts.state().stopping_on(node).cloned().collect();
        let released = stopping.into_iter().filter(|task| self.is_out(task));
        released.map(|task| task.id).collect()
    }

    fn is_out(&mut self, task: &Task) -> bool {
        task.attachments.iter().all(|held| self.lag(held.network).is_past(task.meta.version))
    }

    /// Live nodes on a task's networks that are not known to have followed its last change: one
    /// that is to stop may still be in their balancers.
    pub(crate) fn behind(&mut self, task: &Task) -> BTreeSet<NodeId> {
        let mut behind = BTreeSet::new();
        for held in &task.attachments {
            behind.extend(self.lag(held.network).before(task.meta.version));
        }
        behind
    }

    /// The newest revision of which a node's kernel is known to hold the whole assignment. It need
    /// not have seen that state: nothing in it concerned the node.
    pub(crate) fn applied(&self, node: NodeId) -> Option<Revision> {
        let session = self.sessions.get(&node)?;
        let current = self.parts.known_list(node).map(|list| list.digest);
        let is_current = current.is_some() && session.applied == current;
        if is_current { Some(self.parts.state().revision) } else { session.acked }
    }

    /// The digest of a node's assignment at the newest state.
    pub(crate) fn digest(&mut self, node: NodeId) -> Option<Digest> {
        self.parts.list(node).map(|list| list.digest)
    }

    /// Whether what a whole assignment says is waited for.
    fn turns_key(&self) -> bool {
        let cluster = self.parts.state().cluster.as_ref();
        cluster.is_some_and(|cluster| cluster.key_turn != KeyTurn::Done)
    }
}

impl Session {
    fn new(now: Duration) -> Self {
        Self {
            lease_until: now + LEASE,
            applied: None,
            acked: None,
            lists: VecDeque::new(),
            pending: Pending::default(),
        }
    }

    /// What is known of the list that the node's kernel holds.
    fn held(&self) -> Option<&Known> {
        let applied = self.applied?;
        self.lists.iter().find(|known| known.digest == applied)
    }

    /// Remembers a list; whether it was not known.
    fn learn(&mut self, mut list: Known) -> bool {
        let at = self.lists.iter().position(|known| known.digest == list.digest);
        let known = at.and_then(|at| self.lists.remove(at));
        if list.at.is_none() {
            // A node has one such list, and it alone says what is in it.
            self.lists.retain(|known| known.at.is_some());
        }
        list.at = list.at.max(known.as_ref().and_then(|known| known.at));
        self.lists.push_back(list);
        if self.lists.len() > LISTS_MAX {
            self.lists.pop_front();
        }
        known.is_none()
    }

    /// A state gave this list, and no newer one is known to.
    fn was_given(&mut self, digest: Digest, at: Revision) {
        if self.applied == Some(digest) {
            self.acked = Some(at);
        }
        if let Some(known) = self.lists.iter_mut().find(|known| known.digest == digest) {
            known.at = known.at.max(Some(at));
        }
    }

    /// The kernel holds another list. It does not go back to what it held before.
    fn catch_up(&mut self) {
        self.acked = self.acked.max(self.held().and_then(|held| held.at));
        let held = self.lists.iter().position(|known| Some(known.digest) == self.applied);
        self.lists.drain(..held.unwrap_or_default());
    }
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
