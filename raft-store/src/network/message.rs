//! Messages between managers. New variants are only added at the end.

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use crate::types::{Payload, Peer, SnapshotMeta, TypeConfig, Vote};

/// A request with the Raft ids of its sender and of the node that may answer it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) request: Request,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Snapshot(Box<SnapshotChunk>),
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// Up to which entry must a read here have applied the log?
    ReadIndex,
}

/// A piece of a snapshot. The receiver forgets an unfinished transfer when another one begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotChunk {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    /// Distinguishes the pieces of this transfer from those of an earlier attempt of the same
    /// sender.
    pub(crate) transfer: u64,
    pub(crate) offset: u64,
    pub(crate) total: u64,
    pub(crate) data: Payload,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    Snapshot(ChunkReply),
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    ReadIndex(ReadIndex),
    Refused(Refusal),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ChunkReply {
    /// Received; the next piece starts at `offset`.
    More { offset: u64 },
    /// Installed, or not wanted because the sender is no longer the leader.
    Done(SnapshotResponse<TypeConfig>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReadIndex {
    /// Having applied this entry is enough.
    At(u64),
    NotLeader {
        leader: Option<Peer>,
    },
    NoQuorum,
}

/// The request was not processed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// Another node answers at this address now.
    WrongNode {
        raft_id: u64,
    },
    Stopped {
        reason: String,
    },
    /// A piece of a snapshot that does not follow the last one.
    Chunk {
        reason: String,
    },
}

impl Refusal {
    pub(crate) fn text(&self, address: &str) -> String {
        match self {
            Self::WrongNode { raft_id } => format!("at {address} is Raft node {raft_id}"),
            Self::Stopped { reason } => format!("the node at {address} has stopped: {reason}"),
            Self::Chunk { reason } => format!("the node at {address} refused a piece: {reason}"),
        }
    }
}
