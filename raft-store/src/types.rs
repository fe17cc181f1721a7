//! The types of this crate's interface: machine, peers, transport and configuration.

use std::fmt;
use std::io::{self, Read, Write};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes a state as it was when it was taken.
pub type SnapshotContent = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send + Sync>;

/// The replicated state. One task owns it and calls it in log order.
pub trait Machine: Send + Sync + 'static {
    /// Applies the entry at `index` and returns the answer for the proposer.
    ///
    /// It must not panic, whatever the bytes are, and must give the same result on every manager.
    /// An error means that this program cannot know what the entry does: the node stops instead of
    /// continuing without it. An empty payload is an entry of the log itself (a new leader's first,
    /// or a change of members): only the index moves on.
    fn apply(&mut self, index: u64, payload: &[u8]) -> Result<Vec<u8>, String>;

    /// Takes the state as it is now; must be quick, because no entry is applied in the meantime.
    /// What it returns writes bytes from which [`Machine::restore`] makes an equal machine.
    fn snapshot(&self) -> SnapshotContent;

    /// Replaces the whole state by a snapshot taken at `index`. On an error the node stops.
    fn restore(&mut self, index: u64, snapshot: &mut dyn Read) -> Result<(), String>;
}

/// A manager as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Peer {
    /// Drawn at random once per data directory; never used again for another directory, because a
    /// manager that forgot its votes can elect two leaders.
    pub raft_id: u64,
    /// Host and port at which the transport reaches it.
    pub address: String,
}

/// What a message is for, so that a transport can give each class its own connection and bulk
/// never delays a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Keeps the leader in office; a few hundred bytes, lost after one election timeout.
    Heartbeat,
    /// Elections; small and urgent.
    Vote,
    /// Entries of the log; up to [`crate::MESSAGE_BYTES_MAX`].
    Append,
    /// Pieces of a snapshot; a megabyte each, many in a row.
    Snapshot,
    /// Read barriers and leadership transfer; small.
    Control,
}

impl Class {
    /// A word for paths, spans and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Vote => "vote",
            Self::Append => "append",
            Self::Snapshot => "snapshot",
            Self::Control => "control",
        }
    }

    /// The inverse of [`Class::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Heartbeat, Self::Vote, Self::Append, Self::Snapshot, Self::Control]
            .into_iter()
            .find(|class| class.name() == name)
    }
}

/// Carries one message to a peer and its answer back.
#[async_trait::async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Delivers `body` to [`crate::RaftNode::serve`] of the peer and returns what that returned.
    ///
    /// Dropping the future abandons the call; the crate bounds every call in time by doing so.
    async fn call(&self, peer: &Peer, class: Class, body: Bytes) -> Result<Bytes, TransportError>;
}

/// Why a message got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection: the next try waits a little.
    #[error("connecting to manager at {address}: {reason}")]
    Unreachable { address: String, reason: String },
    /// The connection broke or the peer answered with an error: tried again at once.
    #[error("calling manager at {address}: {reason}")]
    Failed { address: String, reason: String },
}

/// Times and sizes of one node. All managers of a cluster should have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftConfig {
    /// A follower starts an election after a silence of `election_ms_max` (the leader's lease, in
    /// which nobody is elected) plus a random time from `election_ms_min..election_ms_max`.
    pub election_ms_min: u64,
    /// See above; also the age at which a leader, or the leader's majority, counts as lost.
    pub election_ms_max: u64,
    /// Interval of the leader's heartbeats; below `election_ms_min`.
    pub heartbeat_ms: u64,
    /// A snapshot is made after this many entries; the log keeps what follows the last but one.
    pub snapshot_every: u64,
    /// A proposal that has no outcome after this time is answered
    /// [`crate::ProposeError::OutcomeUnknown`].
    pub propose_ms_max: u64,
    /// A read barrier that has not passed after this time fails.
    pub read_ms_max: u64,
    /// A change of members or of the leader that is not committed after this time fails.
    pub change_ms_max: u64,
    /// A new member that has not received the log after this time is dropped again.
    pub catch_up_ms_max: u64,
}

impl RaftConfig {
    /// For managers on one network: a failed leader is replaced 0.6 to 0.9 s after its last
    /// heartbeat, and four heartbeats in a row must be late before a healthy one is doubted.
    #[must_use]
    pub fn lan() -> Self {
        Self {
            election_ms_min: 150,
            election_ms_max: 450,
            heartbeat_ms: 100,
            snapshot_every: 5_000,
            propose_ms_max: 3_000,
            read_ms_max: 3_000,
            change_ms_max: 5_000,
            catch_up_ms_max: 30_000,
        }
    }
}

/// One entry's bytes; cheap to clone, because an entry is held by the log and by every follower's
/// replication at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload(pub(crate) Bytes);

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BytesVisitor).map(|raw| Self(Bytes::from(raw)))
    }
}

struct BytesVisitor;

impl serde::de::Visitor<'_> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, raw: &[u8]) -> Result<Vec<u8>, E> {
        Ok(raw.to_vec())
    }

    fn visit_byte_buf<E: serde::de::Error>(self, raw: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(raw)
    }
}

/// What the log records about a member, in addition to its id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) address: String,
}

openraft::declare_raft_types!(
    /// The types with which openraft is instantiated.
    ///
    /// The leader id is openraft's default, a term and a node: two candidates of one term are
    /// ordered by node instead of splitting the vote, which would cost another election timeout.
    pub(crate) TypeConfig:
        D = Payload,
        R = Vec<u8>,
        NodeId = u64,
        Node = Member,
);

pub(crate) type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
