//! What a node knows about itself and its cluster, kept current by one task.
//!
//! openraft reports when the leader last heard from a majority, but keeps naming a leader that has
//! been silent for long. So followers count the messages of their leader here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::Instant as _;
use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::watch;

use crate::network::PeerBook;
use crate::snapshot::SnapshotFolder;
use crate::state_machine::OpenRaft;
use crate::types::{LeaderId, Peer, RaftConfig, TypeConfig};

pub(crate) type Metrics = RaftMetrics<TypeConfig>;
pub(crate) type MetricsReceiver = openraft::alias::WatchReceiverOf<TypeConfig, Metrics>;

/// One node's view. Equal views are not announced twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub raft_id: u64,
    pub term: u64,
    /// The leader, if it was heard of within the election timeout.
    pub leader: Option<Peer>,
    pub is_leader: bool,
    /// Leader, and an entry of its own term is applied: the machine holds everything that any
    /// earlier leader promised, so decisions may be made on it.
    pub leader_ready: bool,
    /// Index of the newest entry that the machine has applied; 0 before the first.
    pub last_applied: u64,
    /// Index of the newest entry in the log; 0 before the first.
    pub last_log: u64,
    /// Managers that vote, by Raft id.
    pub voters: Vec<Peer>,
    /// Managers that receive the log and do not vote yet.
    pub learners: Vec<Peer>,
    /// On the leader: a majority answered within the election timeout. Elsewhere: the leader was
    /// heard of within it.
    pub has_quorum: bool,
    /// Why the node has stopped; nothing else changes after that.
    pub stopped: Option<String>,
}

impl Status {
    /// Whether this node belongs to a cluster.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        !self.voters.is_empty()
    }
}

/// Counts messages of a valid leader; incremented by the server, watched by the task.
pub(crate) type Heard = Arc<AtomicU64>;

/// How long the leader has been silent, in heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Silence {
    seen: u64,
    beats: u64,
    beats_max: u64,
}

impl Silence {
    pub(crate) fn new(config: &RaftConfig) -> Self {
        let beats_max = config.election_ms_max.div_ceil(config.heartbeat_ms.max(1));
        // Nobody has been heard of yet.
        Self { seen: 0, beats: beats_max, beats_max }
    }

    /// Takes note of the counter; `beat` when one more heartbeat interval has passed.
    pub(crate) fn observe(&mut self, heard: u64, beat: bool) {
        if heard != self.seen {
            self.seen = heard;
            self.beats = 0;
        } else if beat {
            self.beats = self.beats.saturating_add(1).min(self.beats_max);
        }
    }

    pub(crate) fn is_long(&self) -> bool {
        self.beats >= self.beats_max
    }
}

pub(crate) struct Watcher {
    pub(crate) metrics: MetricsReceiver,
    pub(crate) heard: Heard,
    pub(crate) peers: Arc<PeerBook>,
    pub(crate) config: RaftConfig,
    pub(crate) raft: OpenRaft,
    pub(crate) snapshots: Arc<SnapshotFolder>,
}

impl Watcher {
    /// The status now, before the task runs.
    pub(crate) fn first(&self) -> Status {
        view(&self.metrics.borrow_watched(), true, &self.config)
    }

    /// Purges the log up to the older of the kept snapshots. openraft's own rule counts entries,
    /// and snapshots that take long to write are further apart.
    async fn purge(&self) {
        let purged = self.metrics.borrow_watched().purged.map_or(0, |id| id.index);
        if let Some(floor) = self.snapshots.floor().filter(|floor| *floor > purged)
            && let Err(fatal) = self.raft.trigger().purge_log(floor).await
        {
            tracing::debug!(error = %fatal, "purging the log");
        }
    }

    /// Keeps `status` current until the node stops.
    pub(crate) async fn run(mut self, status: watch::Sender<Status>) {
        let mut silence = Silence::new(&self.config);
        let mut beat = tokio::time::interval(Duration::from_millis(self.config.heartbeat_ms));
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let (is_beat, closed) = tokio::select! {
                _ = beat.tick() => (true, false),
                changed = self.metrics.changed() => (false, changed.is_err()),
            };
            silence.observe(self.heard.load(Ordering::Relaxed), is_beat);
            let mut next = {
                let metrics = self.metrics.borrow_and_update();
                for (raft_id, member) in metrics.membership_config.membership().nodes() {
                    self.peers.learn(*raft_id, &member.address);
                }
                view(&metrics, silence.is_long(), &self.config)
            };
            if closed && next.stopped.is_none() {
                next.stopped = Some("it was shut down".to_owned());
            }
            if is_beat {
                self.purge().await;
            }
            let stopped = next.stopped.is_some();
            status.send_if_modified(|old| {
                let changed = *old != next;
                *old = next;
                changed
            });
            if stopped {
                return;
            }
        }
    }
}

/// This node leads and has applied an entry of its own leadership.
pub(crate) fn is_ready(metrics: &Metrics) -> bool {
    let own = LeaderId { term: metrics.current_term, node_id: metrics.id };
    metrics.current_leader == Some(metrics.id)
        && metrics.last_applied.is_some_and(|id| id.leader_id == own)
}

fn view(metrics: &Metrics, silent: bool, config: &RaftConfig) -> Status {
    let membership = metrics.membership_config.membership();
    let peers: BTreeMap<u64, Peer> = membership
        .nodes()
        .map(|(raft_id, member)| {
            (*raft_id, Peer { raft_id: *raft_id, address: member.address.clone() })
        })
        .collect();
    let listed = |ids: &mut dyn Iterator<Item = u64>| -> Vec<Peer> {
        ids.filter_map(|id| peers.get(&id).cloned()).collect()
    };
    let voters = listed(&mut membership.voter_ids());
    let is_leader = metrics.current_leader == Some(metrics.id);
    let alone = voters.len() == 1 && voters.iter().all(|peer| peer.raft_id == metrics.id);
    let lease = Duration::from_millis(config.election_ms_max);
    let acknowledged = metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < lease);
    let has_quorum = if is_leader { alone || acknowledged } else { !silent };
    let leader = metrics.current_leader.filter(|_| is_leader || !silent);
    Status {
        raft_id: metrics.id,
        term: metrics.current_term,
        leader: leader.and_then(|id| peers.get(&id).cloned()),
        is_leader,
        leader_ready: is_ready(metrics),
        last_applied: metrics.last_applied.map_or(0, |id| id.index),
        last_log: metrics.last_log_index.unwrap_or(0),
        voters,
        learners: listed(&mut membership.learner_ids()),
        has_quorum: has_quorum && metrics.current_leader.is_some(),
        stopped: metrics.running_state.as_ref().err().map(ToString::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_counts_as_silent_after_the_election_timeout_in_heartbeats() {
        let config = RaftConfig::lan();
        let mut silence = Silence::new(&config);
        assert!(silence.is_long(), "nobody was heard of at the start");
        silence.observe(1, false);
        assert!(!silence.is_long());
        for _ in 1..config.election_ms_max.div_ceil(config.heartbeat_ms) {
            silence.observe(1, true);
        }
        assert!(!silence.is_long());
        silence.observe(1, false);
        assert!(!silence.is_long(), "a change of something else is no heartbeat");
        silence.observe(1, true);
        assert!(silence.is_long());
        silence.observe(2, true);
        assert!(!silence.is_long());
    }
}
