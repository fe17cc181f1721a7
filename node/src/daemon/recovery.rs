//! One manager goes on alone, from its own disk or from a backup; and backups.
//!
//! The others are removed in the state itself, before Raft is opened on it: under the new Raft id
//! no message of theirs counts, and nothing is ever sent to them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use api::{ApiError, InitRequest, RestoreRequest};
use bytes::Bytes;
use cluster::id::NodeId;
use cluster::object::ManagerInfo;
use cluster::request::{JoinNode, Request};
use cluster::spec::{Availability, Role};
use cluster::state::State;
use cluster::time::Revision;
use futures_util::stream::{BoxStream, poll_fn};
use raft_store::{Peer, Position, Presence, Storage, found, replay};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};

use super::{Daemon, READY_LIMIT, listen_error, own_credentials};
use crate::backup;
use crate::causes::chain;
use crate::clock;
use crate::identity::Identity;
use crate::machine::StateMachine;
use crate::manager::agreement::History;
use crate::member::{Member, Sockets};
use crate::pki::{self, Authority};

/// Revisions that are left out at least: nodes may have seen some that the lost managers gave, and
/// go by which is newer.
const REVISIONS_SKIPPED: u64 = 1_000_000_000;
/// Pieces of a backup that wait for the client, and bytes of one.
const PIECES_MAX: usize = 8;
const PIECE_BYTES: usize = 256 << 10;

impl Daemon {
    /// Makes a cluster with this manager alone of what it has on disk. Workers and tasks go on.
    pub(super) async fn go_on_alone(&self, request: &InitRequest) -> Result<NodeId, ApiError> {
        let member = self.member.read().await.clone();
        let member = member.ok_or_else(|| {
            ApiError::bad_request(
                "--force-new-cluster goes on with what a manager has on disk, and this node is in \
                 no cluster: leave it out, or restore a backup",
            )
        })?;
        let address = self.may_go_on_alone(&member, request)?;
        let identity = member.identity.clone();
        *self.member.write().await = None;
        member.restart().await;
        drop(member);
        let made = self.founded_alone(&identity, address).await;
        let resumed = self.resume().await;
        made.map_err(|e| ApiError::internal(format!("{e:#}")))?;
        resumed.map_err(|e| ApiError::internal(format!("{e:#}")))?;
        let member = self.member().await?;
        if !member.assigned(READY_LIMIT).await {
            return Err(ApiError::unavailable("the cluster gave this node no assignment yet"));
        }
        Ok(identity.node)
    }

    /// Refuses what would split a cluster that works; the address of this manager otherwise.
    fn may_go_on_alone(
        &self,
        member: &Member,
        request: &InitRequest,
    ) -> Result<std::net::SocketAddr, ApiError> {
        let manager = member.manager().ok_or_else(ApiError::not_manager)?;
        let status = manager.raft.status();
        if status.has_quorum && status.voters.len() > 1 {
            return Err(ApiError::bad_request(
                "this cluster has a majority of its managers, and --force-new-cluster would split \
                 it: remove lost managers with `node rm --force`",
            ));
        }
        let identity = &member.identity;
        if let Some(text) = request.advertise_addr.as_deref() {
            let named = self.addresses(None, Some(text), None)?;
            if named.advertise != identity.advertise {
                return Err(ApiError::bad_request(format!(
                    "--advertise-addr {text}: this node is known as {}, and goes on under that \
                     address",
                    identity.advertise
                )));
            }
        }
        let state = manager.newest();
        let info = state.nodes.get(&identity.node).and_then(|node| node.manager.as_ref());
        info.map(|info| info.address).ok_or_else(ApiError::not_manager)
    }

    /// Puts a log of this node alone in the place of the one that needs the others.
    async fn founded_alone(
        &self,
        identity: &Identity,
        address: std::net::SocketAddr,
    ) -> anyhow::Result<()> {
        let raft_id = identity.raft_id.context("this node is no manager")?;
        let key = self.data.keys().disk_key(Presence::Existing)?;
        let old =
            Storage { dir: self.data.path(), raft_id, key: &key, presence: Presence::Existing };
        let (publish, newest) = watch::channel(Arc::default());
        let mut machine = StateMachine::new(publish, History::default());
        let end = replay(old, &mut machine).await.context("read this manager's log")?;
        let state = newest.borrow().clone();
        let raft_id: u64 = rand::random();
        let node = state.nodes.get(&identity.node).context("this node is not in its own state")?;
        let join = JoinNode {
            id: identity.node,
            key: node.key,
            role: Role::Manager,
            availability: node.spec.availability,
            description: node.description.clone(),
            manager: Some(ManagerInfo { raft_id, address }),
        };
        let index = recovered_index(end.index, clock::wall());
        let at = Position { index, ..end.next() };
        let state = taken_over(&state, join, at)?;
        let pending = self.data.pending()?;
        let storage = Storage { dir: &pending, raft_id, key: &key, presence: Presence::New };
        write(storage, address.to_string(), at, state).await?;
        let next = Identity { raft_id: Some(raft_id), log_of: Some(raft_id), ..identity.clone() };
        self.data.adopt(&next)?;
        tracing::warn!(%address, "this manager goes on alone");
        Ok(())
    }

    /// Makes this node, which is in no cluster, the only manager of the one that a backup holds.
    pub async fn restore(&self, request: RestoreRequest) -> Result<NodeId, ApiError> {
        let _changing = self.changing.lock().await;
        self.check_outside().await?;
        let path = PathBuf::from(&request.path);
        if !path.is_absolute() {
            let message = format!("backup {:?}: give the whole path, from / on", request.path);
            return Err(ApiError::bad_request(message));
        }
        let addresses = self.addresses(
            request.listen_addr.as_deref(),
            request.advertise_addr.as_deref(),
            request.data_path_addr.as_deref(),
        )?;
        let read = tokio::task::spawn_blocking(move || backup::read(&path)).await;
        let read = read.map_err(|e| ApiError::internal(e.to_string()))?;
        let (head, state) = read.map_err(|e| ApiError::bad_request(chain(&e)))?;
        let raft_id: u64 = rand::random();
        let identity = Identity {
            cluster: head.cluster,
            node: NodeId(rand::random()),
            raft_id: Some(raft_id),
            log_of: Some(raft_id),
            advertise: addresses.advertise,
            data_path: addresses.data_path,
            listen: addresses.listen,
            gossip_port: self.config.gossip_port,
            cluster_address: Some(addresses.cluster),
            flags: self.address_flags()?,
            managers: vec![addresses.cluster],
            generation: 1,
        };
        // Bound first: a port that is taken changes nothing.
        let sockets = Sockets::bind(&identity).await.map_err(listen_error)?;
        let restored = self.restored(&identity, &state, addresses.cluster).await;
        let credentials = restored.map_err(|e| ApiError::internal(format!("{e:#}")))?;
        let member = match self.begin(identity.clone(), &credentials, sockets).await {
            Ok(member) => member,
            Err(error) => {
                self.abandon().await;
                return Err(ApiError::internal(chain(&error)));
            }
        };
        if !member.assigned(READY_LIMIT).await {
            return Err(ApiError::unavailable("the cluster gave this node no assignment yet"));
        }
        Ok(identity.node)
    }

    async fn restored(
        &self,
        identity: &Identity,
        state: &State,
        address: std::net::SocketAddr,
    ) -> anyhow::Result<pki::Credentials> {
        let cluster = state.cluster.as_ref().context("the backup holds no cluster")?;
        let now = OffsetDateTime::from(clock::wall());
        let credentials = own_credentials(&Authority::of(cluster), identity, now, &cluster.spec)?;
        let own = pki::certificate_der(&credentials.certificate)?;
        let raft_id = identity.raft_id.context("this node is no manager")?;
        let join = JoinNode {
            id: identity.node,
            key: Some(pki::PeerCertificate::read(&own)?.key),
            role: Role::Manager,
            availability: Availability::Active,
            description: self.certified_description(identity, &credentials)?,
            manager: Some(ManagerInfo { raft_id, address }),
        };
        let index = recovered_index(state.revision.0, clock::wall());
        let at = Position { term: 1, index };
        let state = taken_over(state, join, at)?;
        // What an attempt that failed has left; the identity comes last, and makes it count.
        self.data.forget()?;
        self.data.save_credentials(&credentials)?;
        let key = self.data.keys().disk_key(Presence::New)?;
        let storage =
            Storage { dir: self.data.path(), raft_id, key: &key, presence: Presence::New };
        write(storage, address.to_string(), at, state).await?;
        self.data.save(identity, &credentials)?;
        Ok(credentials)
    }

    /// The newest state as a backup, piece by piece.
    pub async fn backup(&self) -> Result<BoxStream<'static, io::Result<Bytes>>, ApiError> {
        let member = self.member().await?;
        let manager = member.manager().ok_or_else(ApiError::not_manager)?;
        let state = manager.linearizable().await?;
        let (sender, mut pieces) = mpsc::channel(PIECES_MAX);
        tokio::task::spawn_blocking(move || {
            let mut piecewise = Pieces { sender, piece: Vec::new() };
            if let Err(error) = backup::write(&state, clock::timestamp(), &mut piecewise) {
                // The client has gone, or is told by the stream that breaks off.
                let _unheard = piecewise.sender.blocking_send(Err(error));
            }
        });
        Ok(Box::pin(poll_fn(move |context| pieces.poll_recv(context))))
    }
}

/// Where a log goes on after a recovery: above what it had, and above every earlier recovery, of
/// which a backup may know nothing. A cluster takes years for as many revisions as the clock has
/// milliseconds.
fn recovered_index(last: u64, now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let clock = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    last.saturating_add(REVISIONS_SKIPPED).max(clock)
}

/// The state in which this node is the only manager.
fn taken_over(state: &State, join: JoinNode, at: Position) -> anyhow::Result<State> {
    let request = Request::TakeOver(Box::new(join));
    let decision = cluster::decide(state, &request, rand::random(), clock::timestamp())
        .map_err(|rejection| anyhow::anyhow!("{}", rejection.message))?;
    let mut state = State::clone(state);
    match state.apply(Revision(at.index), &decision.transaction) {
        cluster::apply::Outcome::Applied => Ok(state),
        cluster::apply::Outcome::Rejected(conflict) => Err(conflict.into()),
    }
}

async fn write(
    storage: Storage<'_>,
    address: String,
    at: Position,
    state: State,
) -> anyhow::Result<()> {
    let content: raft_store::SnapshotContent =
        Box::new(move |file| state.write_snapshot(file).map_err(io::Error::other));
    let own = Peer { raft_id: storage.raft_id, address };
    found(storage, &[own], at, content).await.context("write the log of this manager alone")
}

/// Hands bytes on in pieces.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.sender.blocking_send(Ok(piece)).map_err(|_gone| io::ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn revisions_rise_from_one_recovery_to_the_next() {
    use std::time::Duration;
    let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
    // A backup of revision 500 is restored, 1,000 revisions follow, and it is restored again.
    let first = recovered_index(500, at(1_800_000_000_000));
    let again = recovered_index(500, at(1_800_000_060_000));
    assert!(again > first + 1_000, "{first}, then {again}");
    // A clock that was set back does not lead below what the log has.
    assert!(recovered_index(first, at(0)) > first);
}
