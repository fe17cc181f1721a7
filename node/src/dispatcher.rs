//! The dispatcher's core, on the leader: who holds a lease, which assignment each node has in its
//! kernel, and so which stopping tasks may stop.
//!
//! Leases are in memory and on a monotonic clock: a new leader grants every node a full one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use cluster::assign::Parts;
use cluster::assignment::Digest;
use cluster::id::{NodeId, TaskId};
use cluster::object::{NodeState, Task};
use cluster::state::State;
use cluster::time::Revision;

/// A node that is not heard of for this long loses its tasks. Workers report every
/// [`agent::REPORT_INTERVAL`], so several reports must be lost first.
pub const LEASE: Duration = Duration::from_millis(2500);
/// The lease of a node whose daemon said that it restarts: as long as gossip's grace for the same
/// announcement, in which its peers hide nothing of it.
pub const RESTART_LEASE: Duration = Duration::from_secs(30);

/// Entries whose proposal is remembered. A node that is further behind is not measured.
const PROPOSALS_MAX: usize = 4096;
/// Assignments that a node has not applied yet, each measured by itself. Those beyond count as one,
/// from the first of them.
const PENDING_MAX: usize = 16;

/// What the leader knows of the nodes' sessions.
#[derive(Debug)]
pub struct Dispatcher {
    sessions: BTreeMap<NodeId, Session>,
    parts: Parts,
    /// When entries that were applied were proposed, oldest first.
    proposed: VecDeque<(Revision, Duration)>,
    /// When the entry was proposed that is not known to be applied yet.
    proposing: Option<Duration>,
}

impl Default for Dispatcher {
    fn default() -> Self {
        let parts = Parts::new(crate::pki::digest_of);
        Self { sessions: BTreeMap::new(), parts, proposed: VecDeque::new(), proposing: None }
    }
}

#[derive(Debug)]
struct Session {
    lease_until: Duration,
    /// Newest digest that was computed for it, and the newest state that gives that digest.
    current: Option<(Digest, Revision)>,
    /// The newest state that its kernel is known to hold.
    acked: Option<Revision>,
    applied: Option<Digest>,
    /// Digests that its kernel does not hold yet, each with the first revision that may have made
    /// it, oldest first.
    pending: VecDeque<(Digest, Revision)>,
    heard: bool,
}

impl Dispatcher {
    /// Takes over: every node of the state gets a full lease. What was heard of it earlier stays
    /// true: a new leader is told things before it takes over.
    pub fn take_over(&mut self, state: &State, now: Duration) {
        self.follow(state, now);
        for session in self.sessions.values_mut() {
            session.lease_until = session.lease_until.max(now + LEASE);
        }
    }

    /// An entry is proposed. There is one at a time.
    pub fn proposing(&mut self, at: Duration) {
        self.proposing = Some(at);
    }

    /// It was applied.
    pub fn proposed(&mut self, revision: Revision) {
        let Some(at) = self.proposing.take() else { return };
        if self.proposed.len() == PROPOSALS_MAX {
            self.proposed.pop_front();
        }
        self.proposed.push_back((revision, at));
    }

    /// A node was heard of; `applied` is the assignment that its kernel holds. Returns for each
    /// change of its assignment that it did not hold before how long ago it was proposed, as far as
    /// that is known.
    pub fn hear(&mut self, node: NodeId, applied: Option<Digest>, now: Duration) -> Vec<Duration> {
        let session = self.sessions.entry(node).or_insert_with(|| Session::new(now));
        session.lease_until = now + LEASE;
        session.heard = true;
        session.applied = applied;
        let realized = session.acknowledge();
        let times = realized.into_iter().filter_map(|revision| self.proposed_at(revision));
        times.map(|at| now.saturating_sub(at)).collect()
    }

    /// When the first entry from a revision on was proposed.
    fn proposed_at(&self, revision: Revision) -> Option<Duration> {
        let (oldest, _) = self.proposed.front()?;
        if *oldest > revision {
            return None;
        }
        let first = self.proposed.partition_point(|(known, _)| *known < revision);
        self.proposed.get(first).map(|(_, at)| *at).or(self.proposing)
    }

    /// A node that was just heard of is silent from now on: its daemon restarts, its tasks go on.
    pub fn expect_restart(&mut self, node: NodeId, now: Duration) {
        if let Some(session) = self.sessions.get_mut(&node) {
            session.lease_until = now + RESTART_LEASE;
        }
    }

    /// The digest of a node's assignment at a state, which counts as told from now on; `None` if it
    /// has none.
    pub fn assign(&mut self, state: &State, node: NodeId, now: Duration) -> Option<Digest> {
        let digest = Digest(self.parts.digest(state, node)?);
        self.assigned(node, digest, state.revision, now);
        Some(digest)
    }

    fn assigned(&mut self, node: NodeId, digest: Digest, revision: Revision, now: Duration) {
        let session = self.sessions.entry(node).or_insert_with(|| Session::new(now));
        match session.current {
            Some((_, known)) if known > revision => {}
            Some((before, known)) => {
                if before != digest {
                    session.pend(digest, Revision(known.0 + 1));
                }
                session.current = Some((digest, revision));
            }
            None => session.current = Some((digest, revision)),
        }
        if session.applied == Some(digest) {
            session.acknowledge();
        }
    }

    /// Nodes that Raft does not know as down and whose lease ran out.
    #[must_use]
    pub fn expired(&self, state: &State, now: Duration) -> Vec<NodeId> {
        let lost = |id: &NodeId| self.sessions.get(id).is_some_and(|s| s.lease_until <= now);
        let up = state
            .nodes
            .values()
            .filter(|node| matches!(node.status.state, NodeState::Ready | NodeState::Unknown));
        up.map(|node| node.id).filter(lost).collect()
    }

    /// When the next lease runs out.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Duration> {
        self.sessions.values().map(|session| session.lease_until).min()
    }

    /// Forgets nodes that are no longer in the state, and gives new ones a lease.
    pub fn follow(&mut self, state: &State, now: Duration) {
        self.sessions.retain(|id, _| state.nodes.contains_key(id));
        for id in state.nodes.keys() {
            self.sessions.entry(*id).or_insert_with(|| Session::new(now));
        }
    }

    /// This node's tasks that are to stop and that every live node on their networks has taken
    /// out of its balancers.
    #[must_use]
    pub fn released(&self, state: &State, node: NodeId) -> BTreeSet<TaskId> {
        let stopping = state.stopping_on(node);
        stopping.filter(|task| self.is_out(state, task)).map(|task| task.id).collect()
    }

    fn is_out(&self, state: &State, task: &Task) -> bool {
        self.behind(state, task).next().is_none()
    }

    /// Live nodes on a task's networks that are not known to have followed its last change: one
    /// that is to stop may still be in their balancers.
    pub fn behind<'a>(
        &'a self,
        state: &'a State,
        task: &'a Task,
    ) -> impl Iterator<Item = NodeId> + 'a {
        let taking_part = task.attachments.iter().flat_map(|held| state.nodes_on(held.network));
        let ready = taking_part.filter(|node| node.status.state == NodeState::Ready);
        let follows = |id| self.applied(id).is_some_and(|at| at >= task.meta.version);
        ready.map(|node| node.id).filter(move |id| !follows(*id))
    }

    /// The newest revision that a node's kernel is known to hold.
    #[must_use]
    pub fn applied(&self, node: NodeId) -> Option<Revision> {
        self.sessions.get(&node).and_then(|session| session.acked)
    }

    /// Whether the node was heard of since this leader took over.
    #[must_use]
    pub fn heard(&self, node: NodeId) -> bool {
        self.sessions.get(&node).is_some_and(|session| session.heard)
    }
}

impl Session {
    fn new(now: Duration) -> Self {
        let lease_until = now + LEASE;
        let pending = VecDeque::new();
        Self { lease_until, current: None, acked: None, applied: None, pending, heard: false }
    }

    /// A node whose kernel holds the current digest is at the newest state that gives it, even if
    /// it never saw that state: nothing in it concerned the node. Returns the revisions of the
    /// changes that it holds now.
    fn acknowledge(&mut self) -> Vec<Revision> {
        let Some(applied) = self.applied else { return Vec::new() };
        if let Some((digest, revision)) = self.current
            && applied == digest
        {
            self.acked = self.acked.max(Some(revision));
        }
        let held = self.pending.iter().rposition(|(digest, _)| *digest == applied);
        let realized = self.pending.drain(..held.map_or(0, |last| last + 1));
        realized.map(|(_, revision)| revision).collect()
    }

    fn pend(&mut self, digest: Digest, revision: Revision) {
        if self.pending.len() < PENDING_MAX {
            self.pending.push_back((digest, revision));
        } else if let Some((newest, _)) = self.pending.back_mut() {
            *newest = digest;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
