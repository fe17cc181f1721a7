//! Errors: `Error` for the operator, the other three for callers.

use std::error::Error as StdError;
use std::path::PathBuf;

use crate::disk_full;
use crate::types::Peer;

/// Opening, serving or stopping a node failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon holds the log.
    #[error(
        "the Raft log {} is in use by another process; stop that daemon or give this one another \
         data directory",
        path.display()
    )]
    InUse { path: PathBuf },
    /// The directory was made for another node; its votes must not be used under another id.
    #[error(
        "the Raft log {} belongs to Raft node {stored}, not to {given}; give this daemon its own \
         data directory",
        path.display()
    )]
    Foreign { path: PathBuf, stored: u64, given: u64 },
    /// Data that was written is missing or altered.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    /// The node had a log and has none.
    #[error("the Raft log {} is gone", path.display())]
    Gone { path: PathBuf },
    /// The log on disk could not be opened or read.
    #[error("opening the Raft log {}", path.display())]
    OpenLog {
        path: PathBuf,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The snapshot directory could not be made or read.
    #[error("opening the snapshot directory {}", path.display())]
    OpenSnapshots {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Times that contradict each other.
    #[error("checking the Raft settings: {reason}")]
    Config { reason: String },
    /// The state could not be brought back from snapshot and log.
    #[error("restoring the state from {}: {reason}", path.display())]
    Restore { path: PathBuf, reason: String },
    /// `initialize` on a node that already belongs to a cluster.
    #[error("this node is already part of a cluster")]
    AlreadyInitialized,
    /// A message that no manager of this version sends.
    #[error("decoding a Raft message of {bytes} bytes: {reason}")]
    Message { bytes: usize, reason: String },
    /// The node has stopped, by `shutdown` or because its disk failed.
    #[error("Raft has stopped: {reason}")]
    Stopped { reason: String },
}

impl Error {
    /// Whether the only cause is a full disk, so that what is on it is intact.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::OpenLog { source, .. } => {
                source.downcast_ref().is_some_and(disk_full::is_disk_full)
            }
            Self::OpenSnapshots { source, .. } => disk_full::is_disk_full(source),
            Self::InUse { .. }
            | Self::Foreign { .. }
            | Self::Damaged { .. }
            | Self::Gone { .. }
            | Self::Config { .. }
            | Self::Restore { .. }
            | Self::AlreadyInitialized
            | Self::Message { .. }
            | Self::Stopped { .. } => false,
        }
    }
}

/// A payload was not applied here, or its outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was written. Ask the leader, if one is known.
    #[error("this manager is not the leader{}", leader_text(leader))]
    NotLeader { leader: Option<Peer> },
    /// Nothing was written: the leader has lost contact with a majority of managers.
    #[error(
        "no majority of managers can be reached; nothing was changed; bring managers back or \
         check the network between them"
    )]
    NoQuorum,
    /// The payload was put into the log, and it is not known whether it will be applied.
    #[error("the outcome is unknown: {reason}; look at the state before trying again")]
    OutcomeUnknown { reason: String },
    /// Nothing was written.
    #[error("a change of {bytes} bytes is over the limit of {max} bytes")]
    TooLarge { bytes: usize, max: usize },
    /// Nothing more can be written on this node.
    #[error("Raft has stopped: {reason}")]
    Stopped { reason: String },
}

/// A read barrier did not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader was found in time.
    #[error("there is no leader; waited {waited_ms} ms")]
    NoLeader { waited_ms: u64 },
    /// A leader is known, but it cannot be reached or cannot reach a majority.
    #[error("no majority of managers can be reached; waited {waited_ms} ms")]
    NoQuorum { waited_ms: u64 },
    /// This manager is behind the leader and did not catch up in time.
    #[error("this manager has applied entry {applied} and needs {needed}; waited {waited_ms} ms")]
    Behind { applied: u64, needed: u64, waited_ms: u64 },
    /// The node has stopped.
    #[error("Raft has stopped: {reason}")]
    Stopped { reason: String },
}

/// A change of members or of the leader was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Nothing was changed. Ask the leader, if one is known.
    #[error("this manager is not the leader{}", leader_text(leader))]
    NotLeader { leader: Option<Peer> },
    /// Not committed in time; it may still be.
    #[error("no majority of managers agreed within {waited_ms} ms; the outcome is unknown")]
    NoQuorum { waited_ms: u64 },
    /// The new member did not receive the log in time and was dropped again.
    #[error(
        "manager at {address} did not receive the state within {waited_ms} ms; check that this \
         manager can reach it"
    )]
    CatchUp { address: String, waited_ms: u64 },
    /// Another change took the new member out before it voted.
    #[error("Raft node {raft_id} was taken out again before it had the state")]
    Dropped { raft_id: u64 },
    /// Without a voter there is no cluster.
    #[error("the last manager cannot be removed; promote another one first")]
    LastVoter,
    /// Not a voter.
    #[error("Raft node {raft_id} is not a voting manager")]
    Unknown { raft_id: u64 },
    /// openraft refused for a reason that this crate does not expect.
    #[error("changing the members: {reason}")]
    Refused { reason: String },
    /// The node has stopped.
    #[error("Raft has stopped: {reason}")]
    Stopped { reason: String },
}

fn leader_text(leader: &Option<Peer>) -> String {
    match leader {
        Some(peer) => format!("; the leader is at {}", peer.address),
        None => "; no leader is known".to_owned(),
    }
}
