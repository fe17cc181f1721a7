//! What a member runs only while it is a manager: Raft, the manager's loops and the cluster
//! listener. It is opened and closed while the rest of the member goes on.

use std::net::SocketAddr;
use std::sync::Arc;

use cluster::state::State;
use raft_store::{Presence, RaftConfig, RaftNode, Storage};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::{MemberError, listen_error};
use crate::causes::chain;
use crate::identity::{DataDir, Identity};
use crate::key_file::{self, KeyFileError};
use crate::machine::StateMachine;
use crate::manager::agreement::History;
use crate::manager::raft_transport::RaftTransport;
use crate::manager::{Manager, routes};
use crate::transport::access::Membership;
use crate::transport::{Net, serve};

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Office {
    /// Raft.
    pub raft: RaftNode,
    /// The loops.
    pub manager: Manager,
    /// Where this node itself reaches its listener.
    pub address: SocketAddr,
    stop: CancellationToken,
    /// What writes to the data directory, but for Raft.
    writers: TaskTracker,
}

/// What opening one takes.
#[derive(Clone)]
pub(super) struct Premises {
    pub(super) data: Arc<DataDir>,
    pub(super) net: Net,
    pub(super) tls: Arc<rustls::ServerConfig>,
    pub(super) publish: watch::Sender<Arc<State>>,
    pub(super) stop: CancellationToken,
}

/// Binds the listener of managers.
pub(super) async fn listen(identity: &Identity) -> Result<TcpListener, MemberError> {
    let error = listen_error(identity.listen, "the cluster", "--listen-addr");
    TcpListener::bind(identity.listen).await.map_err(error)
}

impl Premises {
    /// Opens Raft with the log of this id, and records that there is one. Nobody is answered yet.
    pub(super) async fn open(
        &self,
        identity: &mut Identity,
        raft_id: u64,
    ) -> Result<Office, MemberError> {
        let failed = |e: &dyn std::error::Error| MemberError::Raft(chain(e));
        let lost = |e: &dyn std::error::Error| MemberError::Lost {
            reason: chain(e),
            dir: self.data.path().to_owned(),
        };
        let history = History::default();
        let machine = StateMachine::new(self.publish.clone(), history.clone());
        let transport = Arc::new(RaftTransport(self.net.clone()));
        let is_known = identity.log_of == Some(raft_id);
        let presence = if is_known { Presence::Existing } else { Presence::New };
        let key = self.data.keys().disk_key(presence).map_err(|e| match e {
            KeyFileError::NoDiskKey(_) | KeyFileError::Damaged { .. } => lost(&e),
            other => MemberError::Keys(other),
        })?;
        let storage = Storage { dir: self.data.path(), raft_id, key: &key, presence };
        let raft =
            RaftNode::open(storage, machine, transport, RaftConfig::lan()).await.map_err(|e| {
                match e {
                    raft_store::Error::Damaged { .. } | raft_store::Error::Gone { .. } => lost(&e),
                    e if e.is_disk_full() => MemberError::NoRoom(chain(&e)),
                    other => failed(&other),
                }
            })?;
        if !is_known {
            let next =
                Identity { raft_id: Some(raft_id), log_of: Some(raft_id), ..identity.clone() };
            if let Err(error) = self.data.save_identity(&next) {
                let _ = raft.shutdown().await;
                return Err(MemberError::Disk(error));
            }
            *identity = next;
        }
        let stop = self.stop.child_token();
        let (state, net) = (self.publish.subscribe(), self.net.clone());
        let writers = TaskTracker::new();
        let (keys, locked) = (self.data.keys().clone(), self.publish.subscribe());
        writers.spawn(key_file::follow(keys, locked, stop.clone()));
        writers.close();
        let (node, raft_node) = (identity.node, raft.clone());
        let manager = Manager::start(node, raft_node, state, history, net, stop.clone());
        Ok(Office { raft, manager, address: identity.listen, stop, writers })
    }

    /// Answers on the listener from now on.
    pub(super) fn answer(&self, office: &Office, listener: TcpListener, membership: Membership) {
        let router = routes::router(office.manager.clone());
        let served = serve(listener, self.tls.clone(), router, membership, office.stop.clone());
        tokio::spawn(served);
    }
}

/// How Raft has stopped by itself.
pub(super) enum Broken {
    /// Its disk was full. It can be opened again when there is room.
    NoRoom,
    /// Nothing can be done about it here.
    ForGood(String),
}

impl Office {
    /// Ends when Raft has stopped by itself, with its reason.
    pub(super) async fn broken(&self) -> Broken {
        let mut status = self.raft.watch();
        let reason = match status.wait_for(|s| s.stopped.is_some()).await {
            Ok(status) => status.stopped.clone(),
            Err(_ended) => None,
        };
        match reason.filter(|_| !self.stop.is_cancelled()) {
            Some(_reason) if self.raft.disk_is_full() => Broken::NoRoom,
            Some(reason) => Broken::ForGood(reason),
            None => std::future::pending().await,
        }
    }

    /// Ends it; what was acknowledged is on disk.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.writers.wait().await;
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "stop Raft");
        }
    }
}
