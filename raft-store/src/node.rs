//! One manager's Raft node: opening, serving and stopping it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{InitializeError, RaftError};
use openraft::raft::{AppendEntriesResponse, SnapshotResponse};
use openraft::{Config, Raft, SnapshotPolicy};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::codec;
use crate::error::Error;
use crate::log_store::{LogStore, Presence};
use crate::network::{
    ChunkReply, Envelope, Network, PeerBook, ReceiveError, Received, Refusal, Reply, Request,
    SnapshotChunk, SnapshotReceiver,
};
use crate::seal::{DiskKey, Sealer};
use crate::snapshot::SnapshotFolder;
use crate::state_machine::{OpenRaft, StateMachine};
use crate::status::{Heard, Status, Watcher};
use crate::types::{Class, Machine, Member, Peer, RaftConfig, Transport, TypeConfig};

/// Below the data directory.
const LOG_FOLDER: &str = "raft";
const SNAPSHOT_FOLDER: &str = "snapshots";
/// Entries in one message to a follower; their bytes are limited by the log store.
const ENTRIES_PER_MESSAGE: u64 = 300;

/// A handle on the node; clones are the same node. It stops when it is shut down or when the last
/// handle is dropped.
#[derive(Clone)]
pub struct RaftNode {
    inner: Arc<Inner>,
}

struct Inner {
    raft_id: u64,
    raft: OpenRaft,
    log: LogStore,
    snapshots: Arc<SnapshotFolder>,
    network: Network,
    config: RaftConfig,
    heard: Heard,
    receiver: Arc<SnapshotReceiver>,
    status: watch::Receiver<Status>,
    watcher: AbortHandle,
    /// Changes of members are made one after the other.
    change: tokio::sync::Mutex<()>,
}

/// What one node keeps on disk.
#[derive(Debug, Clone, Copy)]
pub struct Storage<'a> {
    /// The data directory.
    pub dir: &'a Path,
    /// Under which the node votes.
    pub raft_id: u64,
    /// Seals everything.
    pub key: &'a DiskKey,
    /// Whether there must be a log.
    pub presence: Presence,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl fmt::Debug for RaftNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftNode").field("raft_id", &self.inner.raft_id).finish()
    }
}

impl RaftNode {
    /// Opens the log under `<dir>/raft` and the snapshots under `<dir>/snapshots`, brings the
    /// machine up to everything that is known to be committed, and joins elections if the node
    /// belongs to a cluster.
    ///
    /// Must be called within a tokio runtime, which then runs the node. Errors: the directory is
    /// in use, belongs to another Raft id, cannot be read, is damaged or gone, or holds a state
    /// that the machine refuses.
    pub async fn open(
        storage: Storage<'_>,
        machine: impl Machine,
        transport: Arc<dyn Transport>,
        config: RaftConfig,
    ) -> Result<Self, Error> {
        let settings = settings(&config)?;
        let Storage { dir, raft_id, .. } = storage;
        let (log, snapshots) = parts(&storage)?;
        if let Err(error) = complete(&log, &snapshots).await {
            log.close().await;
            return Err(error);
        }
        let machine = StateMachine::new(Box::new(machine), snapshots.clone());
        let network = Network {
            own: raft_id,
            transport,
            peers: Arc::new(PeerBook::default()),
            append_ttl: Duration::from_millis(config.election_ms_max),
            transfers: Arc::default(),
        };
        let raft = match Raft::new(raft_id, settings, network.clone(), log.clone(), machine).await {
            Ok(raft) => raft,
            Err(fatal) => {
                log.close().await;
                let reason = fatal.to_string();
                return Err(Error::Restore { path: dir.to_path_buf(), reason });
            }
        };
        // openraft publishes its first metrics before it answers anything.
        raft.with_raft_state(|_| ())
            .await
            .map_err(|fatal| Error::Stopped { reason: fatal.to_string() })?;
        let heard = Heard::default();
        let watcher = Watcher {
            metrics: raft.metrics(),
            heard: heard.clone(),
            peers: network.peers.clone(),
            config: config.clone(),
            raft: raft.clone(),
            snapshots: snapshots.clone(),
        };
        let receiver = Arc::new(SnapshotReceiver::new(snapshots.clone()));
        let (sender, status) = watch::channel(watcher.first());
        let watcher = tokio::spawn(watcher.run(sender)).abort_handle();
        Ok(Self {
            inner: Arc::new(Inner {
                raft_id,
                raft,
                log,
                snapshots,
                network,
                config,
                heard,
                receiver,
                status,
                watcher,
                change: tokio::sync::Mutex::default(),
            }),
        })
    }

    /// Makes this node the only voter of a new cluster. Refused if it is in a cluster already.
    ///
    /// It is the leader soon after; wait for [`Status::leader_ready`].
    pub async fn initialize(&self, own: Peer) -> Result<(), Error> {
        let members = BTreeMap::from([(own.raft_id, Member { address: own.address })]);
        self.inner.raft.initialize(members).await.map_err(|error| match error {
            RaftError::APIError(InitializeError::NotAllowed(_)) => Error::AlreadyInitialized,
            RaftError::APIError(InitializeError::NotInMembers(_)) => Error::Config {
                reason: format!("own Raft id is {}, not {}", self.inner.raft_id, own.raft_id),
            },
            RaftError::Fatal(fatal) => Error::Stopped { reason: fatal.to_string() },
        })
    }

    /// Answers one message that the server received from another manager.
    ///
    /// The answer goes back as the result of the sender's [`Transport::call`]. An error means that
    /// the message is not one of this version's.
    pub async fn serve(&self, class: Class, body: Bytes) -> Result<Bytes, Error> {
        let Envelope { from, to, request } = codec::decode(&body)
            .map_err(|e| Error::Message { bytes: body.len(), reason: e.to_string() })?;
        let reply = if to == self.inner.raft_id {
            self.answer(from, request).await
        } else {
            tracing::debug!(from, to, class = class.name(), "a message for another Raft node");
            Reply::Refused(Refusal::WrongNode { raft_id: self.inner.raft_id })
        };
        let reply = codec::encode(&reply)
            .map_err(|e| Error::Message { bytes: body.len(), reason: e.to_string() })?;
        Ok(Bytes::from(reply))
    }

    async fn answer(&self, from: u64, request: Request) -> Reply {
        let raft = &self.inner.raft;
        let reply = match request {
            Request::Append(rpc) => raft.append_entries(rpc).await.map(|reply| {
                self.note_leader(&reply);
                Reply::Append(reply)
            }),
            Request::Vote(rpc) => raft.vote(rpc).await.map(Reply::Vote),
            Request::PreVote(rpc) => raft.pre_vote(rpc).await.map(Reply::Vote),
            Request::Snapshot(chunk) => return self.receive(from, *chunk).await,
            Request::TransferLeader(rpc) => raft
                .handle_transfer_leader(rpc)
                .await
                .map(Reply::TransferLeader)
                .map_err(RaftError::Fatal),
            Request::ReadIndex => return Reply::ReadIndex(self.read_index().await),
        };
        reply.unwrap_or_else(|error| Reply::Refused(Refusal::Stopped { reason: error.to_string() }))
    }

    /// Requests from any node but the leader of the newest term are answered with a higher vote.
    fn note_leader(&self, reply: &AppendEntriesResponse<TypeConfig>) {
        match reply {
            AppendEntriesResponse::Success
            | AppendEntriesResponse::PartialSuccess(_)
            | AppendEntriesResponse::Conflict => {
                self.inner.heard.fetch_add(1, Ordering::Relaxed);
            }
            AppendEntriesResponse::HigherVote(_) => {}
        }
    }

    async fn receive(&self, from: u64, chunk: SnapshotChunk) -> Reply {
        let raft = &self.inner.raft;
        let vote = chunk.vote;
        let known = match raft.with_raft_state(|state| *state.vote_ref()).await {
            Ok(known) => known,
            Err(fatal) => {
                return Reply::Refused(Refusal::Stopped { reason: fatal.to_string() });
            }
        };
        if known > vote {
            return Reply::Snapshot(ChunkReply::Done(SnapshotResponse::new(known)));
        }
        let receiver = self.inner.receiver.clone();
        let added = tokio::task::spawn_blocking(move || receiver.add(from, &chunk)).await;
        let added = added.unwrap_or_else(|e| Err(ReceiveError::Disk(io::Error::other(e))));
        match added {
            Ok(Received::More(offset)) => Reply::Snapshot(ChunkReply::More { offset }),
            Ok(Received::Whole(snapshot)) => {
                match raft.install_full_snapshot(vote, snapshot).await {
                    Ok(response) => Reply::Snapshot(ChunkReply::Done(response)),
                    Err(fatal) => Reply::Refused(Refusal::Stopped { reason: fatal.to_string() }),
                }
            }
            Err(error) => Reply::Refused(Refusal::Chunk { reason: error.to_string() }),
        }
    }

    /// Reaches a member at the address that it reports itself, until the log records a new one. The
    /// caller has authenticated the member.
    pub fn hear(&self, member: &Peer) {
        self.inner.network.peers.hear(member.raft_id, &member.address);
    }

    /// The newest status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.inner.status.borrow().clone()
    }

    /// Whether the disk had no room for something that had to be written: Raft stops then, with
    /// nothing acknowledged that is not on the disk, and can be opened again.
    #[must_use]
    pub fn disk_is_full(&self) -> bool {
        self.inner.log.disk_is_full() || self.inner.snapshots.disk_is_full()
    }

    /// Follows the status. The sender is gone once the node has stopped.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Stops the node and releases the database file; what was acknowledged is on disk.
    /// Other handles stay valid and answer that the node has stopped.
    pub async fn shutdown(&self) -> Result<(), Error> {
        let joined = self.inner.raft.shutdown().await;
        self.inner.log.close().await;
        self.inner.snapshots.close().await;
        joined.map_err(|e| Error::Stopped { reason: e.to_string() })
    }

    /// The id under which this node votes.
    #[must_use]
    pub fn raft_id(&self) -> u64 {
        self.inner.raft_id
    }

    pub(crate) fn raft(&self) -> &OpenRaft {
        &self.inner.raft
    }

    pub(crate) fn config(&self) -> &RaftConfig {
        &self.inner.config
    }

    pub(crate) fn network(&self) -> &Network {
        &self.inner.network
    }

    pub(crate) fn change(&self) -> &tokio::sync::Mutex<()> {
        &self.inner.change
    }

    pub(crate) fn stop_reason(&self) -> String {
        self.status().stopped.unwrap_or_else(|| "it was shut down".to_owned())
    }
}

/// The log and the snapshots of a node.
pub(crate) fn parts(storage: &Storage<'_>) -> Result<(LogStore, Arc<SnapshotFolder>), Error> {
    let folder = storage.dir.join(LOG_FOLDER);
    let sealer = Sealer::new(storage.key)
        .map_err(|e| Error::OpenLog { path: folder.clone(), source: Box::new(e) })?;
    let sealer = Arc::new(sealer);
    let log = LogStore::open(&folder, storage.raft_id, storage.presence, sealer.clone())?;
    let snapshots = SnapshotFolder::open(&storage.dir.join(SNAPSHOT_FOLDER), sealer)?;
    Ok((log, snapshots))
}

/// Refuses a state that has a hole between its newest good snapshot and its log.
pub(crate) async fn complete(log: &LogStore, snapshots: &Arc<SnapshotFolder>) -> Result<(), Error> {
    let path = snapshots.path().to_path_buf();
    let newest = snapshots.newest_good().await;
    let newest = newest.map_err(|source| Error::OpenSnapshots { path: path.clone(), source })?;
    let reached = newest.and_then(|snapshot| snapshot.meta.last_log_id).map(|id| id.index);
    match log.purged() {
        Some(purged) if reached < Some(purged) => {
            let reached = reached.map_or("none is good".to_owned(), |index| {
                format!("the newest good one is of entry {index}")
            });
            let reason = format!("the log begins after entry {purged}, and {reached}");
            Err(Error::Damaged { path, reason })
        }
        Some(_) | None => Ok(()),
    }
}

fn settings(config: &RaftConfig) -> Result<Arc<Config>, Error> {
    let settings = Config {
        cluster_name: "skein".to_owned(),
        election_timeout_min: config.election_ms_min,
        election_timeout_max: config.election_ms_max,
        heartbeat_interval: config.heartbeat_ms,
        max_payload_entries: ENTRIES_PER_MESSAGE,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        // The watcher purges, up to the older of the two snapshots that are kept.
        max_in_snapshot_log_to_keep: u64::MAX,
        // Without it a manager that comes back from a partition deposes a healthy leader.
        enable_pre_vote: Some(true),
        // In its old term it would not know what it had committed, and answer reads and decide on
        // less: the read index is taken from the first entry of the term.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    settings.validate().map(Arc::new).map_err(|e| Error::Config { reason: e.to_string() })
}
