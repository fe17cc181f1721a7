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
use crate::worker::unseen::Unseen;

use self::inlet::Inlet;

mod inlet;

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
    progress: watch::Receiver<Progress>,
    unseen: Unseen,
}

/// How far gossip has come with what arrived; times are the monotonic clock's.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// When it last looked for something to do. It does so at least every [`IDLE_MAX`].
    looked: Duration,
    /// Since when something waits that may change the view.
    waits_since: Option<Duration>,
}

enum Ask {
    Input(Input),
    Exchange { bytes: Bytes, reply: oneshot::Sender<Bytes>, arrived: Duration },
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
        let now = Progress { looked: clock::monotonic(), ..Progress::default() };
        let (tell, progress) = watch::channel(now);
        let (config, engine, answers) = (Some(config), None, mpsc::channel(QUEUE).0);
        let (complaints, unseen) = (Seldom::default(), Unseen::default());
        let inlet = Inlet::new(socket, DATAGRAM_BYTES_MAX);
        let shell = Shell {
            config,
            engine,
            inlet,
            net,
            publish,
            refusals,
            progress: tell,
            unseen: unseen.clone(),
            complaints,
            answers,
        };
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = shell.run(inbox) => {}
            }
        });
        Self { asks, view, refused, progress, unseen }
    }

    /// The newest view.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// For how long the oldest thing has waited that arrived and may change the view.
    #[must_use]
    pub fn waiting(&self, now: Duration) -> Duration {
        let Progress { looked, waits_since, .. } = *self.progress.borrow();
        let idle = now.saturating_sub(looked);
        // While it does not look, it does not know what has arrived.
        let unread = if idle > 2 * IDLE_MAX { idle } else { Duration::ZERO };
        waits_since.map_or(unread, |since| now.saturating_sub(since).max(unread))
    }

    /// When the oldest news came that was made a view of; who follows the views takes it.
    #[must_use]
    pub fn unseen(&self) -> Unseen {
        self.unseen.clone()
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
        let arrived = clock::monotonic();
        self.asks.send(Ask::Exchange { bytes, reply, arrived }).await.ok()?;
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
    inlet: Inlet,
    net: Net,
    publish: watch::Sender<Arc<View>>,
    refusals: watch::Sender<Refused>,
    progress: watch::Sender<Progress>,
    unseen: Unseen,
    complaints: Seldom,
    answers: mpsc::Sender<Answer>,
}

/// The outcome of an exchange with a peer, and when it came.
type Answer = (NodeId, Result<Bytes, SyncFailed>, Duration);

/// What waits for the engine, and for it.
struct Queues {
    inbox: mpsc::Receiver<Ask>,
    answered: mpsc::Receiver<Answer>,
    pending: BTreeMap<u64, oneshot::Sender<Bytes>>,
    token: u64,
}

/// Datagrams that were read at one time.
struct Burst {
    /// When the oldest of them arrived.
    since: Option<Duration>,
    /// Whether more may lie there.
    is_cut: bool,
}

/// What there is to do.
enum Next {
    /// An input, and when it arrived.
    Input(Duration, Input),
    Nothing,
    End,
}

impl Next {
    fn now(input: Input) -> Self {
        Self::Input(clock::monotonic(), input)
    }
}

impl Shell {
    async fn run(mut self, inbox: mpsc::Receiver<Ask>) {
        let (answers, answered) = mpsc::channel(QUEUE);
        self.answers = answers;
        let mut queues = Queues { inbox, answered, pending: BTreeMap::new(), token: 0 };
        loop {
            let mut outputs = Vec::new();
            let burst = self.read(&mut outputs);
            let arrived = burst.since.unwrap_or_else(clock::monotonic);
            self.carry_out(outputs, &mut queues.pending, arrived).await;
            // What is left came no earlier than what was read.
            self.tell(burst.since.filter(|_| burst.is_cut));
            match self.next(&mut queues).await {
                Next::Input(arrived, input) => {
                    let outputs = self.step(input);
                    self.carry_out(outputs, &mut queues.pending, arrived).await;
                }
                Next::Nothing => {}
                Next::End => return,
            }
        }
    }

    /// Waits for something to do.
    async fn next(&self, queues: &mut Queues) -> Next {
        let deadline = self.engine.as_ref().and_then(Engine::next_deadline);
        let wait = deadline.map_or(IDLE_MAX, |at| at.saturating_sub(clock::monotonic()));
        tokio::select! {
            ask = queues.inbox.recv() => match ask {
                None => Next::End,
                Some(Ask::Input(input)) => Next::now(input),
                Some(Ask::Exchange { bytes, reply, arrived }) => {
                    queues.token = queues.token.wrapping_add(1);
                    queues.pending.insert(queues.token, reply);
                    Next::Input(arrived, Input::SyncRequest { token: queues.token, bytes })
                }
                Some(Ask::Describe(reply)) => {
                    let _ = reply.send(self.describe());
                    Next::Nothing
                }
                Some(Ask::Addresses(reply)) => {
                    let _ = reply.send(self.addresses());
                    Next::Nothing
                }
            },
            answer = queues.answered.recv() => match answer {
                None => Next::End,
                Some((peer, result, arrived)) => {
                    Next::Input(arrived, Input::SyncAnswer { peer, result })
                }
            },
            () = self.inlet.readable() => Next::Nothing,
            () = tokio::time::sleep(wait.min(IDLE_MAX)) => {
                let is_due = deadline.is_some_and(|at| at <= clock::monotonic());
                if is_due { Next::now(Input::Timer) } else { Next::Nothing }
            }
        }
    }

    /// Tells how far it has come. Nobody waits for that.
    fn tell(&mut self, unread_since: Option<Duration>) {
        let refused = self.engine.as_ref().map(Engine::refused).unwrap_or_default();
        self.note(refused);
        let unshown = self.engine.as_ref().and_then(Engine::unshown_since);
        self.progress.send_if_modified(|progress| {
            progress.looked = clock::monotonic();
            progress.waits_since = unshown.into_iter().chain(unread_since).min();
            false
        });
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

    /// Reads what has arrived, up to a limit. Tells since when the oldest of it lay there, and
    /// whether more may.
    fn read(&mut self, outputs: &mut Vec<Output>) -> Burst {
        let mut burst = Burst { since: None, is_cut: false };
        for _ in 0..BURST_MAX {
            let Some((bytes, arrived)) = self.inlet.try_read() else { return burst };
            burst.since = Some(burst.since.map_or(arrived, |since: Duration| since.min(arrived)));
            let input = Input::Datagram(Bytes::copy_from_slice(bytes));
            outputs.extend(self.step(input));
        }
        Burst { is_cut: true, ..burst }
    }

    async fn carry_out(
        &self,
        outputs: Vec<Output>,
        pending: &mut BTreeMap<u64, oneshot::Sender<Bytes>>,
        arrived: Duration,
    ) {
        for output in outputs {
            match output {
                Output::Send { to, bytes } => self.inlet.send(to, &bytes).await,
                Output::Sync { peer, to, bytes } => self.exchange(peer, to, bytes),
                Output::SyncReply { token, bytes } => {
                    if let Some(reply) = pending.remove(&token) {
                        let _ = reply.send(bytes);
                    }
                }
                Output::ViewChanged => {
                    if let Some(engine) = &self.engine {
                        self.unseen.note(engine.shown_since().min(arrived));
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
            let result = called.map_err(|e| SyncFailed(e.to_string()));
            let _ = answers.send((peer, result, clock::monotonic())).await;
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
