//! Gossip of a node without the rest of its daemon: it says of as many endpoints as a test wants
//! that they run there. The node's daemon has joined the cluster, and has ended.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use agent::gossip_peers;
use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use cluster::assign::Kept;
use cluster::assignment::Assignment;
use cluster::id::{NetworkId, NodeId, TaskId};
use cluster::net::{Addresses, MacAddr};
use cluster::time::Revision;
use cluster::view::{Condition, EndpointKey, EndpointOwner, EndpointRow, VtepRow};
use gossip::{Config, Input, Keyring};
use lab::Node;
use skein::gossip_io::Gossip;
use skein::key_file::KeyFile;
use skein::member::proof_secret;
use skein::pki::Tls;
use skein::transport::access::Membership;
use skein::transport::{Net, serve};

use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::sandbox::in_namespace;

/// Above every generation of a node that was started a few times.
const GENERATION: u64 = 1 << 20;
/// Sets of endpoints that wait to be said.
const QUEUE: usize = 16;

/// An endpoint that is said to run on the node.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    /// Its network.
    pub network: NetworkId,
    /// Its task, which no manager needs to know of.
    pub task: TaskId,
    /// Its address; the MAC address follows from it.
    pub address: Ipv4Addr,
}

/// A node that gossips, until it is dropped.
#[derive(Debug)]
pub struct StandIn {
    node: NodeId,
    sets: mpsc::Sender<Input>,
    vtep: VtepRow,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl StandIn {
    /// Ends the node's daemon and gossips in its place, in the network namespace of its machine.
    ///
    /// # Errors
    /// When its keys or its assignment cannot be read, or its port cannot be bound.
    pub fn start(node: &mut Node, namespace: &Path) -> Result<Self> {
        let keys = KeyFile::at(node.data_dir().join("certs/node.json"));
        let path = node.data_dir().join("worker/assignment.json");
        node.kill_daemon()?;
        let credentials = keys.load()?.context("no keys there")?;
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let assignment = serde_json::from_slice::<Kept>(&text)?.assignment();
        let (id, address) = (assignment.node, IpAddr::from(node.address));
        let own = assignment.nodes.get(&id).context("the node is not in its assignment")?;
        let (gossip_at, vtep) = (own.gossip, VtepRow { address: own.vtep });
        let secret = proof_secret(&credentials.key)?;
        let at = SocketAddr::new(address, gossip_at.port());
        let config = Config::lan(id, assignment.cluster, at, GENERATION, rand::random(), secret);
        let (tls, stop) = (Tls::new(&credentials)?, CancellationToken::new());
        let (sets, inputs) = mpsc::channel(QUEUE);
        let part = Part { config, tls, assignment: Arc::new(assignment), inputs };
        let (namespace, stopped) = (namespace.to_owned(), stop.clone());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let ended = in_namespace(&namespace, || {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(part.run(&ready, stopped))
            });
            if let Err(error) = ended {
                let _ = ready.send(Err(error));
            }
        });
        is_ready.recv().context("a stand-in has ended")??;
        Ok(Self { node: id, sets, vtep, stop, thread: Some(thread) })
    }

    /// Says that these endpoints run on the node, and no others.
    ///
    /// # Errors
    /// When its gossip has ended.
    pub fn say(&self, endpoints: &[Said]) -> Result<()> {
        let rows = endpoints.iter().map(|said| {
            let owner = EndpointOwner::Task(said.task);
            let row = EndpointRow {
                node: self.node,
                addresses: Addresses::V4(said.address),
                mac: MacAddr::for_address(said.address.into()),
                condition: Condition::Ready,
                // Later than all assignments: it counts before a manager tells of the task.
                revision: Revision(u64::MAX),
            };
            (EndpointKey { network: said.network, owner }, row)
        });
        let own = Input::Own { endpoints: rows.collect(), vtep: self.vtep };
        self.sets.blocking_send(own).ok().context("a stand-in has ended")
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a stand-in runs.
struct Part {
    config: Config,
    tls: Tls,
    assignment: Arc<Assignment>,
    inputs: mpsc::Receiver<Input>,
}

impl Part {
    async fn run(
        mut self,
        ready: &std::sync::mpsc::Sender<Result<()>>,
        stop: CancellationToken,
    ) -> Result<()> {
        let at = self.config.address;
        let bound = || format!("binding {at}");
        let (streams, datagrams) = (
            TcpListener::bind(at).await.with_context(bound)?,
            UdpSocket::bind(at).await.with_context(bound)?,
        );
        let net = Net::new(self.tls.client.clone());
        let (_told, assignment) = watch::channel(Some(self.assignment.clone()));
        let (_applied, state) = watch::channel(Arc::default());
        let membership = Membership { cluster: self.assignment.cluster, state, assignment };
        net.insist_on(membership.clone());
        let gossip = Gossip::start(self.config, datagrams, net, stop.clone());
        let keys = &self.assignment.gossip_keys;
        let primary = keys.first().context("the assignment has no gossip key")?.id;
        let ring = Keyring::new(primary, &keys.iter().map(|key| (key.id, key.key)).collect())?;
        gossip.input(Input::Keys(ring)).await;
        gossip.input(Input::Peers(gossip_peers(&self.assignment))).await;
        let router = Router::new().route("/gossip/sync", post(sync)).with_state(gossip.clone());
        let serving = serve(streams, self.tls.server.clone(), router, membership, stop.clone());
        tokio::spawn(serving);
        let _ = ready.send(Ok(()));
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                input = self.inputs.recv() => match input {
                    Some(input) => gossip.input(input).await,
                    None => return Ok(()),
                },
            }
        }
    }
}

async fn sync(State(gossip): State<Gossip>, body: Bytes) -> Result<Bytes, StatusCode> {
    gossip.exchange(body).await.ok_or(StatusCode::SERVICE_UNAVAILABLE)
}
