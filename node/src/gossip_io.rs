//! Gossip's shell: UDP datagrams, streams over mutual TLS, timers and the clock for the engine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::id::NodeId;
use cluster::view::View;
use gossip::{Config, Engine, Input, Output, Refused, SyncFailed};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::telemetry::Seldom;
use crate::transport::{Lane, Net};

/// Inputs that wait for the engine.
const QUEUE: usize = 1024;
/// A datagram is never longer (the engine keeps well below).
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// Datagrams read before the engine's other inputs get their turn.
const BURST_MAX: usize = 64;
/// How long a stream exchange may take.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(10);
/// The longest sleep between two looks at the engine's deadline.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// What the rest of the daemon may ask of gossip.
#[derive(Clone)]
pub struct Gossip {
    asks: mpsc::Sender<Ask>,
    view: watch::Receiver<Arc<View>>,
    refused: watch::Receiver<Refused>,
}

enum Ask {
    Input(Input),
    Exchange { bytes: Bytes, reply: oneshot::Sender<Bytes> },
    Describe(oneshot::Sender<serde_json::Value>),
    Addresses(oneshot::Sender<BTreeMap<NodeId, SocketAddr>>),
}

impl Gossip {
    /// Starts the shell; it ends with `stop`. The engine begins with the first keys,
    /// which come with the first assignment: without them nobody could be understood.
    #[must_use]
    pub fn start(config: Config, socket: UdpSocket, net: Net, stop: CancellationToken) -> Self {
        let (asks, inbox) = mpsc::channel(QUEUE);
        let (publish, view) = watch::channel(Arc::default());
        let (refusals, refused) = watch::channel(Refused::default());
        let (config, engine, answers) = (Some(config), None, mpsc::channel(QUEUE).0);
        let complaints = Seldom::default();
        let shell = Shell { config, engine, socket, net, publish, refusals, complaints, answers };
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = shell.run(inbox) => {}
            }
        });
        Self { asks, view, refused }
    }

    /// The newest view.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// What it has refused because of whom it was of.
    #[must_use]
    pub fn refused(&self) -> Refused {
        *self.refused.borrow()
    }

    /// Hands an input to the engine.
    pub async fn input(&self, input: Input) {
        // After the shell ended there is nobody to tell, and nothing to be told.
        let _ = self.asks.send(Ask::Input(input)).await;
    }

    /// Answers a peer's stream request.
    pub async fn exchange(&self, bytes: Bytes) -> Option<Bytes> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(Ask::Exchange { bytes, reply }).await.ok()?;
        answer.await.ok()
    }

    /// Where members are heard from now.
    pub async fn addresses(&self) -> BTreeMap<NodeId, SocketAddr> {
        let (reply, answer) = oneshot::channel();
        // Without a shell nobody is heard.
        let _ = self.asks.send(Ask::Addresses(reply)).await;
        answer.await.unwrap_or_default()
    }

    /// Members, rows and counters, for people and metrics.
    pub async fn describe(&self) -> Option<serde_json::Value> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(Ask::Describe(reply)).await.ok()?;
        answer.await.ok()
    }
}

struct Shell {
    /// Taken by the engine when it begins.
    config: Option<Config>,
    engine: Option<Engine>,
    socket: UdpSocket,
    net: Net,
    publish: watch::Sender<Arc<View>>,
    refusals: watch::Sender<Refused>,
    complaints: Seldom,
    answers: mpsc::Sender<(NodeId, Result<Bytes, SyncFailed>)>,
}

impl Shell {
    async fn run(mut self, mut inbox: mpsc::Receiver<Ask>) {
        let (answers, mut answered) = mpsc::channel(QUEUE);
        self.answers = answers;
        let mut pending: BTreeMap<u64, oneshot::Sender<Bytes>> = BTreeMap::new();
        let mut token = 0_u64;
        let mut buffer = vec![0_u8; DATAGRAM_BYTES_MAX];
        loop {
            let now = clock::monotonic();
            let deadline = self.engine.as_ref().and_then(Engine::next_deadline);
            let wait = deadline.map_or(IDLE_MAX, |at| at.saturating_sub(now));
            let outputs = tokio::select! {
                ask = inbox.recv() => match ask {
                    None => return,
                    Some(Ask::Input(input)) => self.step(input),
                    Some(Ask::Exchange { bytes, reply }) => {
                        token = token.wrapping_add(1);
                        pending.insert(token, reply);
                        self.step(Input::SyncRequest { token, bytes })
                    }
                    Some(Ask::Describe(reply)) => {
                        let _ = reply.send(self.describe());
                        continue;
                    }
                    Some(Ask::Addresses(reply)) => {
                        let _ = reply.send(self.addresses());
                        continue;
                    }
                },
                answer = answered.recv() => {
                    let Some((peer, result)) = answer else { return };
                    self.step(Input::SyncAnswer { peer, result })
                }
                received = self.socket.recv_from(&mut buffer) => {
                    let mut outputs = Vec::new();
                    // An ICMP error of an earlier send shows here: the engine finds out by itself.
                    if let Ok((length, _from)) = received {
                        self.datagram(&buffer[..length], &mut outputs);
                        self.drain(&mut buffer, &mut outputs);
                    }
                    outputs
                }
                () = tokio::time::sleep(wait.min(IDLE_MAX)) => {
                    if deadline.is_some_and(|at| at <= clock::monotonic()) {
                        self.step(Input::Timer)
                    } else {
                        Vec::new()
                    }
                }
            };
            let refused = self.engine.as_ref().map(Engine::refused).unwrap_or_default();
            self.note(refused);
            self.carry_out(outputs, &mut pending).await;
        }
    }

    fn note(&mut self, refused: Refused) {
        let known = *self.refusals.borrow();
        if known == refused {
            return;
        }
        self.refusals.send_replace(refused);
        if refused.impersonated > known.impersonated
            && let Some(more) = self.complaints.say()
        {
            let line = "another program has this node's key and speaks for it in gossip: leave the \
                        swarm, have the node removed, and join again";
            tracing::error!(more, "{line}");
        }
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let now = clock::monotonic();
        match (&mut self.engine, input) {
            (Some(engine), input) => engine.step(input, now),
            (None, Input::Keys(keys)) => {
                let config = self.config.take();
                self.engine = config.map(|config| Engine::new(config, keys, now));
                vec![Output::ViewChanged]
            }
            (None, _nobody_to_hear) => Vec::new(),
        }
    }

    fn datagram(&mut self, bytes: &[u8], outputs: &mut Vec<Output>) {
        outputs.extend(self.step(Input::Datagram(Bytes::copy_from_slice(bytes))));
    }

    fn drain(&mut self, buffer: &mut [u8], outputs: &mut Vec<Output>) {
        for _ in 0..BURST_MAX {
            let Ok((length, _from)) = self.socket.try_recv_from(buffer) else { return };
            self.datagram(&buffer[..length], outputs);
        }
    }

    async fn carry_out(
        &self,
        outputs: Vec<Output>,
        pending: &mut BTreeMap<u64, oneshot::Sender<Bytes>>,
    ) {
        for output in outputs {
            match output {
                Output::Send { to, bytes } => {
                    if let Err(error) = self.socket.send_to(&bytes, to).await {
                        tracing::trace!(%to, %error, "gossip datagram");
                    }
                }
                Output::Sync { peer, to, bytes } => self.exchange(peer, to, bytes),
                Output::SyncReply { token, bytes } => {
                    if let Some(reply) = pending.remove(&token) {
                        let _ = reply.send(bytes);
                    }
                }
                Output::ViewChanged => {
                    if let Some(engine) = &self.engine {
                        self.publish.send_replace(engine.view());
                    }
                }
            }
        }
    }

    fn exchange(&self, peer: NodeId, to: SocketAddr, bytes: Bytes) {
        let (net, answers) = (self.net.clone(), self.answers.clone());
        tokio::spawn(async move {
            let called = net.call(to, Lane::Bulk, "/gossip/sync", bytes, EXCHANGE_LIMIT).await;
            let _ = answers.send((peer, called.map_err(|e| SyncFailed(e.to_string())))).await;
        });
    }

    /// Of a member's runs the newest one counts; one that has moved is where it is heard from.
    fn addresses(&self) -> BTreeMap<NodeId, SocketAddr> {
        let Some(engine) = &self.engine else { return BTreeMap::new() };
        let mut members = engine.members();
        members.sort_by_key(|member| member.generation);
        let members = members.iter().map(|member| (member.node, member.address));
        members.chain(engine.elsewhere()).collect()
    }

    fn describe(&self) -> serde_json::Value {
        let Some(engine) = &self.engine else { return serde_json::Value::Null };
        let rows: Vec<serde_json::Value> = engine
            .rows()
            .map(|(owner, row)| {
                serde_json::json!({ "owner": owner, "version": row.version, "record": row.record })
            })
            .collect();
        let members: Vec<String> = engine.members().iter().map(|m| format!("{m:?}")).collect();
        serde_json::json!({
            "keys": engine.keys(),
            "members": members,
            "rows": rows,
            "stats": engine.stats(),
        })
    }
}
