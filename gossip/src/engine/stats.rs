//! What an engine can tell about itself, for metrics and for people.

use std::net::SocketAddr;

use cluster::id::NodeId;
use cluster::view::Liveness;
use serde::Serialize;

/// What was refused because of whom it is of, since start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refused {
    /// As [`Stats::forged`].
    pub forged: u64,
    /// As [`Stats::unlisted`].
    pub unlisted: u64,
    /// As [`Stats::impersonated`].
    pub impersonated: u64,
}

/// Counters since start, and sizes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Stats {
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams opened and understood.
    pub datagrams_received: u64,
    /// Datagrams dropped: sealed with an unknown key, forged, of another cluster, too short.
    pub datagrams_unopened: u64,
    /// Datagrams dropped: authentic but not decodable.
    pub datagrams_refused: u64,
    /// Rows, runs and restarts refused: the node that they are of did not sign them.
    pub forged: u64,
    /// Datagrams, rows and runs refused: of nodes that the assignment does not list (any more, or
    /// yet), or lists elsewhere or without a key.
    pub unlisted: u64,
    /// Rows of this node itself, of the last generation that there is and signed with its key: this
    /// run cannot have written them, and no later one can outrun them.
    pub impersonated: u64,
    /// Rows that were news, by push or exchange.
    pub rows_learned: u64,
    /// Rows not stored, because a limit of the table is reached.
    pub rows_refused: u64,
    /// Rows that were not pushed, because the queue was full.
    pub pushes_overflowed: u64,
    /// Exchanges that this node began.
    pub exchanges_begun: u64,
    /// Of these, those that failed.
    pub exchanges_failed: u64,
    /// Exchanges that this node answered.
    pub exchanges_answered: u64,
    /// Refusals by foca: late or misaddressed packets.
    pub membership_errors: u64,
    /// Times this node learned that it had been declared down.
    pub rejoins: u64,
    /// Stretch of suspicions because this node is starved of CPU; 0 is healthy.
    pub starvation: u32,
    /// Live rows in the table.
    pub rows: usize,
    /// Tombstones in the table.
    pub tombstones: usize,
    /// Messages of exchanges of which rows wait to be verified.
    pub intake: usize,
    /// Rows waiting to be pushed.
    pub push_queue: usize,
}

/// A member, as people are shown it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberRow {
    /// The node.
    pub node: NodeId,
    /// Where it receives gossip.
    pub address: SocketAddr,
    /// Its run.
    pub generation: u64,
    /// How often that run was declared down and came back.
    pub renewals: u32,
    /// How often it refuted a suspicion since.
    pub incarnation: u16,
    /// The opinion on it.
    pub liveness: Liveness,
    /// Whether it announced a clean restart, which masks what probes say.
    pub restarting: bool,
}
