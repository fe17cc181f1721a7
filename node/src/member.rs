//! A member of a cluster: everything that runs while this node is one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::state::State;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::gossip_io::Gossip;
use crate::identity::{DataDir, Identity};
use crate::manager::Manager;
use crate::native::own::NodeServices;
use crate::node_routes;
use crate::pki::{Credentials, Tls};
use crate::renewal::Renewal;
use crate::transport::access::Membership;
use crate::transport::{Net, serve};
use crate::worker::shell::{MemberHandles, Shell, WorkerHandle};

pub use crate::worker::shell::NodeFacts;
pub use error::MemberError;

use error::listen_error;
use office::{Broken, Office, Premises};

mod error;
pub mod office;
mod role;

/// A member of a cluster. Dropping it does not stop it: [`Member::restart`] does.
pub struct Member {
    /// Who this node was when it started; its role may have changed since.
    pub identity: Identity,
    /// The worker.
    pub worker: WorkerHandle,
    /// Gossip.
    pub gossip: Gossip,
    /// Connections to peers.
    pub net: Net,
    office: watch::Receiver<Option<Office>>,
    /// The last second of its certificate, since the Unix epoch; 0 until it was read.
    pub certificate_end: watch::Receiver<u64>,
    /// Why this manager is none for now: its disk is full.
    pub without_room: watch::Receiver<Option<String>>,
    stop: CancellationToken,
}

/// Sockets are bound before anything else starts, so that a port that is taken changes nothing.
pub struct Sockets {
    cluster: Option<TcpListener>,
    streams: TcpListener,
    datagrams: UdpSocket,
}

impl Sockets {
    /// Binds what a member needs.
    pub async fn bind(identity: &Identity) -> Result<Self, MemberError> {
        let cluster = match identity.raft_id {
            Some(_) => Some(office::listen(identity).await?),
            None => None,
        };
        let address = SocketAddr::new(identity.advertise, identity.gossip_port);
        let error = listen_error(address, "gossip", "--gossip-port");
        let streams = TcpListener::bind(address).await.map_err(&error)?;
        let datagrams = UdpSocket::bind(address).await.map_err(&error)?;
        Ok(Self { cluster, streams, datagrams })
    }
}

impl Sockets {
    /// For a node that turned out to be a worker.
    #[must_use]
    pub fn without_cluster(self) -> Self {
        Self { cluster: None, ..self }
    }
}

impl Member {
    /// Starts everything. `publish` gets every state that this node applies.
    pub async fn start(
        data: &Arc<DataDir>,
        mut identity: Identity,
        credentials: &Credentials,
        sockets: Sockets,
        facts: NodeFacts,
        publish: watch::Sender<Arc<State>>,
    ) -> Result<Self, MemberError> {
        let tls = Tls::new(credentials)?;
        let net = Net::new(tls.client.clone());
        let stop = CancellationToken::new();
        let state = publish.subscribe();
        let (data, server) = (data.clone(), tls.server.clone());
        let premises =
            Premises { data: data.clone(), net: net.clone(), tls: server, publish, stop };
        let stop = premises.stop.clone();
        let (office, office_reader) = watch::channel(None);
        let (no_room, without_room) = watch::channel(None);
        if let Some(raft_id) = identity.raft_id {
            match premises.open(&mut identity, raft_id).await {
                Ok(opened) => drop(office.send_replace(Some(opened))),
                Err(MemberError::NoRoom(_)) => role::note_no_room(&no_room, &premises.data),
                Err(other) => return Err(other),
            }
        }
        let config = gossip_config(&identity, proof_secret(&credentials.key)?);
        let gossip = Gossip::start(config, sockets.datagrams, net.clone(), stop.clone());
        let handles = MemberHandles {
            gossip: gossip.clone(),
            net: net.clone(),
            office: office_reader.clone(),
        };
        let (worker, begin) = Shell::prepare(&data, &identity, facts, handles, &stop)
            .await
            .map_err(|e| MemberError::Worker(format!("{e:#}")))?;
        let renewal = Renewal {
            file: data.keys().clone(),
            tls: tls.clone(),
            worker: worker.clone(),
            office: office_reader.clone(),
            credentials: credentials.clone(),
            end: watch::channel(0).0,
        };
        let certificate_end = renewal.end.subscribe();
        let assignment = worker.assignment.clone();
        let membership = Membership { cluster: identity.cluster, state, assignment };
        net.insist_on(membership.clone());
        // What asks others begins here: only members are asked, and what is on disk is in force.
        begin.begin().await;
        tokio::spawn(until(stop.clone(), renewal.run()));
        let services = NodeServices { gossip: gossip.clone(), worker: worker.clone() };
        let (router, members) = (node_routes::router(services), membership.clone());
        tokio::spawn(serve(sockets.streams, tls.server, router, members, stop.clone()));
        let opened = office.borrow().clone();
        if let (Some(office), Some(listener)) = (opened, sockets.cluster) {
            premises.answer(&office, listener, membership.clone());
        }
        let (own, staff) = (identity.clone(), worker.clone());
        let follower =
            role::Follower { premises, membership, identity: own, office, worker: staff, no_room };
        tokio::spawn(until(stop.clone(), follower.run()));
        Ok(Self {
            identity,
            worker,
            gossip,
            net,
            office: office_reader,
            certificate_end,
            without_room,
            stop,
        })
    }

    /// The manager that this node is. One that does not vote yet, or was told that it is none any
    /// more, is none.
    #[must_use]
    pub fn manager(&self) -> Option<Manager> {
        let manager = self.office.borrow().as_ref().map(|office| office.manager.clone())?;
        let own = manager.newest().nodes.get(&self.identity.node).map(|own| own.manager.is_some());
        // One that has just joined knows of no node yet.
        own.unwrap_or(true).then_some(manager)
    }

    fn office(&self) -> Option<Office> {
        self.office.borrow().clone()
    }

    /// Waits for the first assignment; `false` if it does not come in time.
    pub async fn assigned(&self, limit: Duration) -> bool {
        let mut assignment = self.worker.assignment.clone();
        let first = assignment.wait_for(Option::is_some);
        matches!(tokio::time::timeout(limit, first).await, Ok(Ok(_)))
    }

    /// Announces a clean restart, so that peers hide nothing and the leader moves nothing, then
    /// stops. Tasks go on. A leader hands over first: the others need not wait out an election.
    pub async fn restart(&self) {
        self.hand_over().await;
        self.gossip.input(gossip::Input::Restarting).await;
        self.end_worker().await;
        self.worker.announce_restart().await;
        self.end_raft().await;
    }

    /// Stops because the machine does: peers are told that what this node runs is gone.
    pub async fn go_down(&self) {
        self.hand_over().await;
        self.leave().await;
    }

    /// Announces that this node leaves, then stops.
    pub async fn leave(&self) {
        self.gossip.input(gossip::Input::Leave).await;
        self.end_worker().await;
        self.end_raft().await;
    }

    /// Whether it is being stopped on purpose.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until this node votes no more in Raft, and not longer than the limit: who is taken out
    /// may never hear of it.
    pub async fn wait_out_of_raft(&self, limit: Duration) {
        let Some(Office { raft, .. }) = self.office() else { return };
        let mut status = raft.watch();
        let is_out = |status: &raft_store::Status| {
            let own = status.raft_id;
            status.voters.len() <= 1 || status.voters.iter().all(|peer| peer.raft_id != own)
        };
        let _ = tokio::time::timeout(limit, status.wait_for(is_out)).await;
    }

    /// Lets another manager lead, if this one does and another one is alive.
    pub async fn hand_over(&self) {
        let Some(Office { raft, manager, .. }) = self.office() else { return };
        if !raft.status().is_leader {
            return;
        }
        let alive = {
            let (view, state) = (self.gossip.view(), manager.newest());
            let view = view.borrow();
            let others = state.nodes.values().filter(|node| node.id != self.identity.node);
            let voters = others.filter(|node| view.is_alive(node.id));
            voters.filter_map(|node| node.manager.as_ref()).map(|info| info.raft_id).next()
        };
        if let Some(next) = alive
            && let Err(error) = raft.transfer_leadership(next).await
        {
            tracing::warn!(%error, "hand over leadership");
        }
    }

    /// Ends when Raft has stopped by itself for good, with its reason; never on a worker.
    pub async fn broken(&self) -> String {
        let mut offices = self.office.clone();
        loop {
            let office = offices.borrow_and_update().clone();
            let broken = async {
                match &office {
                    Some(office) => office.broken().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                broken = broken => match broken {
                    Broken::ForGood(reason) => return reason,
                    // The office is closed, and another one opened when there is room.
                    Broken::NoRoom => if offices.changed().await.is_err() {
                        return std::future::pending().await;
                    },
                },
                changed = offices.changed() => if changed.is_err() {
                    // The member has stopped.
                    return std::future::pending().await;
                },
            }
        }
    }

    async fn end_worker(&self) {
        // The answer to this comes after the datagrams of the announcement are sent.
        let _ = self.gossip.describe().await;
        self.stop.cancel();
        self.worker.stopped().await;
    }

    async fn end_raft(&self) {
        if let Some(office) = self.office() {
            office.close().await;
        }
    }
}

/// Lets work go on until it is stopped.
async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// The key by which a node proves what it says in gossip, from the node's own.
pub fn proof_secret(key: &str) -> Result<gossip::ProofSecret, MemberError> {
    Ok(gossip::ProofSecret::from_seed(&crate::pki::gossip_seed(key)?)?)
}

fn gossip_config(identity: &Identity, secret: gossip::ProofSecret) -> gossip::Config {
    let address = SocketAddr::new(identity.advertise, identity.gossip_port);
    let seed = rand::random();
    let Identity { node, cluster, generation, .. } = *identity;
    gossip::Config::lan(node, cluster, address, generation, seed, secret)
}
