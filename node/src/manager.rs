//! The manager's shell: one decider that turns requests into log entries, the dispatcher's
//! sessions and leases, and Raft membership. All decisions are made in crate `cluster` and in
//! [`crate::dispatcher`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::codec::{decode_reply, encode_request};
use cluster::id::NodeId;
use cluster::object::KeyDigest;
use cluster::rejection::{Code, Rejection};
use cluster::request::{Answer, Request};
use cluster::state::State;
use raft_store::RaftNode;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::dispatcher::Dispatcher;
use crate::transport::{CallError, Lane, Net};
use crate::wire::{NOT_LEADER, RenewAnswer, RenewCall};

pub use decider::Ask;

pub mod agreement;
mod decider;
mod join;
pub mod keys;
mod leader;
mod leases;
pub mod membership;
pub mod raft_transport;
pub mod rotation;
pub mod routes;
mod session;
pub mod why;

/// How long a request may take, the search for a leader included.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(5);
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
    dispatcher: Arc<Mutex<Dispatcher>>,
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
        let dispatcher = Arc::default();
        let (acks, differing) = (watch::channel(0).0, watch::channel(BTreeMap::new()).0);
        let manager =
            Self { node, raft, state, net, decider, dispatcher, acks, history, differing, stop };
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

    /// Decides here, or asks the leader.
    pub async fn request(&self, request: Request) -> Result<Answer, Rejection> {
        let request = &request;
        let here = || self.decide(request.clone());
        self.at_leader(here, |leader| self.forward(leader, request)).await
    }

    /// Does a thing here if this node leads, or has the leader do it.
    async fn at_leader<T, H, F>(
        &self,
        here: impl Fn() -> H,
        there: impl Fn(SocketAddr) -> F,
    ) -> Result<T, Rejection>
    where
        H: Future<Output = Result<T, Rejection>>,
        F: Future<Output = Result<T, Forward>>,
    {
        let search = async {
            let mut status = self.raft.watch();
            loop {
                let seen = status.borrow_and_update().clone();
                if seen.is_leader {
                    return here().await;
                }
                if let Some(leader) = seen.leader.and_then(|peer| peer.address.parse().ok()) {
                    match there(leader).await {
                        Err(Forward::TryAgain) => {}
                        Err(Forward::Final(rejection)) => return Err(rejection),
                        Ok(answer) => return Ok(answer),
                    }
                }
                // The leader is unknown or has just changed: wait for news, or ask anew soon.
                let _ = tokio::time::timeout(Duration::from_millis(100), status.changed()).await;
            }
        };
        match tokio::time::timeout(REQUEST_LIMIT, search).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Rejection::new(Code::Unavailable, NO_LEADER)),
        }
    }

    /// Decides on this node, which leads.
    pub async fn decide(&self, request: Request) -> Result<Answer, Rejection> {
        let (reply, answer) = oneshot::channel();
        let gone = || Rejection::new(Code::Unavailable, NO_LEADER);
        self.decider.send(Ask { request, reply }).await.map_err(|_stopped| gone())?;
        answer.await.unwrap_or_else(|_dropped| Err(gone()))
    }

    async fn forward(&self, leader: SocketAddr, request: &Request) -> Result<Answer, Forward> {
        let invalid = |e: cluster::codec::CodecError| {
            Forward::Final(Rejection::invalid(format!("forward a request: {e}")))
        };
        let body = encode_request(request).map_err(invalid)?;
        let called =
            self.net.call(leader, Lane::Control, "/manager/request", body.into(), REQUEST_LIMIT);
        match called.await {
            Ok(bytes) => decode_reply(&bytes).map_err(invalid)?.map_err(Forward::Final),
            Err(CallError::Refused { status: NOT_LEADER, .. }) => Err(Forward::TryAgain),
            Err(error) if error.is_unsent() => Err(Forward::TryAgain),
            Err(error) => {
                let text = format!("the leader's answer was lost, the outcome is unknown: {error}");
                Err(Forward::Final(Rejection::new(Code::Unavailable, text)))
            }
        }
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

    /// Runs `f` on the dispatcher.
    pub fn with_dispatcher<T>(&self, f: impl FnOnce(&mut Dispatcher) -> T) -> T {
        f(&mut self.dispatcher.lock().unwrap_or_else(PoisonError::into_inner))
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

enum Forward {
    TryAgain,
    Final(Rejection),
}
