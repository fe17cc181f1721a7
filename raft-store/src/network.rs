//! openraft's messages over the caller's transport.
//!
//! Every message names the Raft id that it is meant for: an address may be taken over by another
//! node, and a vote from the wrong node would count.

mod message;
mod peers;
mod receiver;

use std::future::Future;
use std::io::{self, Read};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};

pub(crate) use self::message::{
    ChunkReply, Envelope, ReadIndex, Refusal, Reply, Request, SnapshotChunk,
};
pub(crate) use self::peers::PeerBook;
pub(crate) use self::receiver::{ReceiveError, Received, SnapshotReceiver};
use crate::codec;
use crate::snapshot::{FRAME_BYTES, Snapshot, SnapshotFile, SnapshotReader};
use crate::types::{Class, Member, Payload, Peer, Transport, TransportError, TypeConfig, Vote};

type Failure = RPCError<TypeConfig>;

/// Bytes of a snapshot that travel in one message.
const CHUNK_BYTES: usize = FRAME_BYTES;
/// One piece of a snapshot, or the last one with its installation, may take this long.
const CHUNK_MS_MAX: u64 = 30_000;

/// How one node reaches the others.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) own: u64,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) peers: Arc<PeerBook>,
    /// For entries: longer than openraft's own limit of one heartbeat interval, which a slow disk
    /// at the follower exceeds without anything being wrong.
    pub(crate) append_ttl: Duration,
    pub(crate) transfers: Arc<AtomicU64>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Member) -> Link {
        self.link(target, node, Class::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Link {
        self.link(target, node, Class::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> Link {
        self.link(target, node, Class::Snapshot)
    }
}

impl Network {
    fn link(&self, target: u64, node: &Member, append_class: Class) -> Link {
        self.peers.learn(target, &node.address);
        Link { network: self.clone(), target, append_class }
    }

    /// Sends a request and waits at most `limit` for the reply.
    pub(crate) async fn call(
        &self,
        target: u64,
        class: Class,
        request: Request,
        limit: Duration,
    ) -> Result<Reply, CallError> {
        let address = self.peers.address(target).ok_or(CallError::Unreachable {
            reason: format!("no address is known for Raft node {target}"),
        })?;
        let peer = Peer { raft_id: target, address };
        let body = codec::encode(&Envelope { from: self.own, to: target, request })
            .map_err(|e| CallError::Failed { reason: e.to_string() })?;
        let answer = tokio::time::timeout(limit, self.transport.call(&peer, class, body.into()))
            .await
            .map_err(|_elapsed| CallError::Late { limit })??;
        match codec::decode(&answer).map_err(|e| CallError::Failed { reason: e.to_string() })? {
            Reply::Refused(refusal) => {
                Err(CallError::Unreachable { reason: refusal.text(&peer.address) })
            }
            reply => Ok(reply),
        }
    }
}

/// Why a request got no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no answer within {limit:?}")]
    Late { limit: Duration },
    #[error("{reason}")]
    Unreachable { reason: String },
    #[error("{reason}")]
    Failed { reason: String },
}

impl From<TransportError> for CallError {
    fn from(error: TransportError) -> Self {
        let reason = error.to_string();
        match error {
            TransportError::Unreachable { .. } => Self::Unreachable { reason },
            TransportError::Failed { .. } => Self::Failed { reason },
        }
    }
}

/// The way to one member.
pub(crate) struct Link {
    network: Network,
    target: u64,
    /// Heartbeats are appends without entries on a connection of their own.
    append_class: Class,
}

impl Link {
    async fn call(
        &self,
        action: RPCTypes,
        class: Class,
        request: Request,
        limit: Duration,
    ) -> Result<Reply, Failure> {
        self.network.call(self.target, class, request, limit).await.map_err(|error| match error {
            CallError::Late { limit } => RPCError::Timeout(Timeout {
                action,
                id: self.network.own,
                target: self.target,
                timeout: limit,
            }),
            CallError::Unreachable { reason } => {
                RPCError::Unreachable(Unreachable::from_string(reason))
            }
            CallError::Failed { reason } => RPCError::Network(NetworkError::from_string(reason)),
        })
    }

    fn unexpected(&self) -> Failure {
        RPCError::Network(NetworkError::from_string(format!(
            "Raft node {} answered another question",
            self.target
        )))
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Failure> {
        let limit = match self.append_class {
            Class::Heartbeat => option.hard_ttl(),
            Class::Append | Class::Snapshot | Class::Vote | Class::Control => {
                self.network.append_ttl
            }
        };
        let request = Request::Append(rpc);
        let reply = self.call(RPCTypes::AppendEntries, self.append_class, request, limit).await?;
        let Reply::Append(reply) = reply else { return Err(self.unexpected()) };
        Ok(reply)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        let request = Request::Vote(rpc);
        let reply = self.call(RPCTypes::Vote, Class::Vote, request, option.soft_ttl()).await?;
        let Reply::Vote(reply) = reply else { return Err(self.unexpected()) };
        Ok(reply)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        let request = Request::PreVote(rpc);
        let reply = self.call(RPCTypes::Vote, Class::Vote, request, option.soft_ttl()).await?;
        let Reply::Vote(reply) = reply else { return Err(self.unexpected()) };
        Ok(reply)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let transfer = self.network.transfers.fetch_add(1, Ordering::Relaxed);
        let mut cancel = pin!(cancel);
        let total = snapshot.snapshot.bytes();
        let mut reader = Some(snapshot.snapshot.reader().map_err(unreadable)?);
        let mut offset = 0;
        loop {
            let (data, rest) = next_piece(reader.take()).await.map_err(unreadable)?;
            reader = Some(rest);
            let end = offset + data.len() as u64;
            let chunk = SnapshotChunk {
                vote,
                meta: snapshot.meta.clone(),
                transfer,
                offset,
                total,
                data: Payload(data),
            };
            let limit = Duration::from_millis(CHUNK_MS_MAX);
            let request = Request::Snapshot(Box::new(chunk));
            let call = self.call(RPCTypes::InstallSnapshot, Class::Snapshot, request, limit);
            let reply = tokio::select! {
                biased;
                closed = &mut cancel => return Err(closed.into()),
                reply = call => reply?,
            };
            let Reply::Snapshot(reply) = reply else { return Err(self.unexpected().into()) };
            match reply {
                ChunkReply::Done(response) => return Ok(response),
                ChunkReply::More { offset: next } if next == end && end < total => offset = end,
                ChunkReply::More { .. } => return Err(self.unexpected().into()),
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Failure> {
        let request = Request::TransferLeader(rpc);
        let limit = option.soft_ttl();
        let reply = self.call(RPCTypes::TransferLeader, Class::Control, request, limit).await?;
        let Reply::TransferLeader(reply) = reply else { return Err(self.unexpected()) };
        Ok(reply)
    }
}

/// This node's own snapshot cannot be read: the transfer fails, and the disk is looked at when it
/// is opened again.
fn unreadable(error: io::Error) -> StreamingError<TypeConfig> {
    tracing::error!(%error, "reading a snapshot that a manager needs");
    StreamingError::Network(NetworkError::from_string(format!("reading the snapshot: {error}")))
}

/// The next piece of a snapshot, read off the runtime's threads; empty at its end.
async fn next_piece(reader: Option<SnapshotReader>) -> io::Result<(Bytes, SnapshotReader)> {
    let mut reader = reader.ok_or_else(|| io::Error::other("the snapshot is at its end"))?;
    let read = tokio::task::spawn_blocking(move || {
        let mut piece = Vec::with_capacity(CHUNK_BYTES);
        reader.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut piece)?;
        Ok((Bytes::from(piece), reader))
    });
    read.await.map_err(io::Error::other)?
}
