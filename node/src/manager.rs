//! The manager's shell: one loop that proposes log entries, the nodes' sessions and leases, and
//! Raft membership. All decisions are made in the crates `cluster` and `leader`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ::leader::Leader;
use cluster::id::NodeId;
use cluster::object::KeyDigest;
use cluster::rejection::{Code, Rejection};
use cluster::state::State;
use raft_store::RaftNode;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::decider::Ask;
use crate::pki;
use crate::transport::Net;
use crate::wire::{RenewAnswer, RenewCall};

pub mod agreement;
mod decider;
mod join;
pub mod keys;
mod leader;
mod leases;
pub mod membership;
pub mod raft_transport;
mod request;
pub mod rotation;
pub mod routes;
mod session;
pub mod why;

/// Requests that wait for the decider.
const DECIDER_QUEUE: usize = 1024;

/// Docker's words.
const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers \
     are online. Make sure more than half of the managers are online.";

/// A manager's parts, shared by its routes and loops. Cheap to clone.
#[derive(Clone)]
pub struct Manager {
    /// This node.
    pub node: NodeId,
    /// Raft.
    pub raft: RaftNode,
    /// The newest applied state.
    pub state: watch::Receiver<Arc<State>>,
    net: Net,
    decider: mpsc::Sender<Ask>,
    sessions: Arc<Mutex<Leader>>,
    /// Rings when a node acknowledged something.
    acks: watch::Sender<u64>,
    history: agreement::History,
    differing: watch::Sender<agreement::Differing>,
    stop: CancellationToken,
}

impl Manager {
    /// Starts the loops; they end with `stop`.
    #[must_use]
    pub fn start(
        node: NodeId,
        raft: RaftNode,
        state: watch::Receiver<Arc<State>>,
        history: agreement::History,
        net: Net,
        stop: CancellationToken,
    ) -> Self {
        let (decider, asks) = mpsc::channel(DECIDER_QUEUE);
        let sessions = Arc::new(Mutex::new(Leader::new(pki::digest_of)));
        let (acks, differing) = (watch::channel(0).0, watch::channel(BTreeMap::new()).0);
        let manager =
            Self { node, raft, state, net, decider, sessions, acks, history, differing, stop };
        manager.spawn("decider", decider::run(manager.clone(), asks));
        manager.spawn("leader", leader::run(manager.clone()));
        manager.spawn("leases", leases::run(manager.clone()));
        manager.spawn("keys", keys::run(manager.clone()));
        manager.spawn("membership", membership::run(manager.clone()));
        manager.spawn("agreement", agreement::run(manager.clone()));
        manager
    }

    fn spawn(
        &self,
        name: &'static str,
        work: impl std::future::Future<Output = ()> + Send + 'static,
    ) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
            tracing::debug!(name, "loop ended");
        });
    }

    /// The state, at least as new as any write that was answered before this call.
    pub async fn linearizable(&self) -> Result<Arc<State>, Rejection> {
        self.raft.read_barrier().await.map_err(|error| {
            tracing::debug!(%error, "read barrier");
            Rejection::new(Code::Unavailable, NO_LEADER)
        })?;
        Ok(self.newest())
    }

    /// The newest state applied here.
    #[must_use]
    pub fn newest(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    /// How many requests wait to be decided here.
    #[must_use]
    pub fn waiting_requests(&self) -> usize {
        DECIDER_QUEUE - self.decider.capacity()
    }

    /// Whether this manager leads, on a state that is the newest.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.raft.status().leader_ready
    }

    /// Signs a new certificate for a node that has one, of the key that it shows. A leader that was
    /// cut off may know neither that the node was removed nor that there is another CA: it has to
    /// have a majority.
    pub async fn renew(
        &self,
        node: NodeId,
        key: KeyDigest,
        call: &RenewCall,
    ) -> Result<RenewAnswer, Rejection> {
        let state = self.linearizable().await?;
        join::renew(&state, node, key, call)
    }

    /// Where the leader's cluster listener is, if known.
    #[must_use]
    pub fn leader_address(&self) -> Option<SocketAddr> {
        self.raft.status().leader.and_then(|peer| peer.address.parse().ok())
    }

    /// Runs `f` on the leader's end of all sessions.
    pub fn with_sessions<T>(&self, f: impl FnOnce(&mut Leader) -> T) -> T {
        f(&mut self.sessions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Managers that were seen to hold another state than this one.
    #[must_use]
    pub fn differing(&self) -> agreement::Differing {
        self.differing.borrow().clone()
    }

    fn ring_acks(&self) {
        self.acks.send_modify(|count| *count = count.wrapping_add(1));
    }
}
