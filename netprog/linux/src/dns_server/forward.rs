//! Asks the host's resolvers: all of them side by side, with a short deadline and a cache.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hickory_server::proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::UDP_ANSWER_BYTES_MAX;
use super::cache::Cache;

/// How long a name is asked for: clients ask again after 5 s (RES_TIMEOUT in resolv.h), and must
/// hear of a failure before that.
pub const FORWARD_WAIT_MAX: Duration = Duration::from_millis(2500);
/// A datagram that was lost is sent again after this, until the deadline.
const RESEND_AFTER: Duration = Duration::from_millis(800);
/// Names asked for at once, from all sandboxes of the node; more wait, within their deadline.
pub(super) const FORWARDS_MAX: usize = 256;
const DNS_PORT: u16 = 53;

/// Time since some fixed moment; never goes back.
pub type MonotonicClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// No resolver has answered.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// There is none.
    #[error("the host has no resolvers: add a nameserver line to /etc/resolv.conf")]
    NoResolvers,
    /// Not in time.
    #[error("no answer within {} ms", FORWARD_WAIT_MAX.as_millis())]
    Late,
    /// All have failed; the last one so.
    #[error("ask {resolver}")]
    Failed {
        /// The last one that failed.
        resolver: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Asks the host's resolvers on behalf of all sandboxes. Its sockets are opened by the runtime's
/// workers, which live in the host's namespace.
pub struct Forwarder {
    resolvers: RwLock<Vec<SocketAddr>>,
    cache: Mutex<Cache>,
    under_way: Semaphore,
    clock: MonotonicClock,
}

impl Forwarder {
    /// With these resolvers, on port 53.
    #[must_use]
    pub fn new(resolvers: &[IpAddr], clock: MonotonicClock) -> Self {
        let resolvers = resolvers.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT)).collect();
        Self::to(resolvers, clock)
    }

    /// With resolvers on any port.
    #[must_use]
    pub fn to(resolvers: Vec<SocketAddr>, clock: MonotonicClock) -> Self {
        Self {
            resolvers: RwLock::new(resolvers),
            cache: Mutex::default(),
            under_way: Semaphore::new(FORWARDS_MAX),
            clock,
        }
    }

    /// From now on these are asked: the host's resolv.conf has changed.
    pub fn set_resolvers(&self, resolvers: &[IpAddr]) {
        let resolvers = resolvers.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT)).collect();
        *self.resolvers.write().unwrap_or_else(PoisonError::into_inner) = resolvers;
    }

    /// The answer of the cache or of the first resolver that has one. A resolver that refuses or
    /// fails does not end the search while another may still answer.
    pub async fn ask(&self, query: &Query) -> Result<Message, Unanswered> {
        if let Some(found) = self.cache().get(query, (self.clock)()) {
            return Ok(found);
        }
        let asking = async {
            let Ok(_permit) = self.under_way.acquire().await else { return Err(Unanswered::Late) };
            self.ask_all(query).await
        };
        let message =
            timeout(FORWARD_WAIT_MAX, asking).await.map_err(|_elapsed| Unanswered::Late)??;
        self.cache().put(query, &message, (self.clock)());
        Ok(message)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        // Every entry is whole: a panic elsewhere leaves nothing half done.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask_all(&self, query: &Query) -> Result<Message, Unanswered> {
        let resolvers = self.resolvers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut asked: FuturesUnordered<_> = resolvers
            .into_iter()
            .map(|resolver| async move { (resolver, ask_one(resolver, query).await) })
            .collect();
        let mut worst = Err(Unanswered::NoResolvers);
        while let Some((resolver, answer)) = asked.next().await {
            match answer {
                Ok(message) if is_final(message.metadata.response_code) => return Ok(message),
                Ok(message) => worst = Ok(message),
                // A resolver's own word, if only a failure, is better than our own.
                Err(source) if worst.is_err() => {
                    worst = Err(Unanswered::Failed { resolver, source });
                }
                Err(_) => {}
            }
        }
        worst
    }
}

/// Whether another resolver would not say otherwise.
fn is_final(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

async fn ask_one(resolver: SocketAddr, query: &Query) -> io::Result<Message> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_ANSWER_BYTES_MAX);
    message.set_edns(edns);
    let bytes = message.to_vec().map_err(io::Error::other)?;
    let answer = by_udp(resolver, &bytes, &message).await?;
    if answer.metadata.truncation { by_tcp(resolver, &bytes, &message).await } else { Ok(answer) }
}

/// A new socket for each question: its random port is half of what a forger has to guess
/// (RFC 5452, section 4.5).
async fn by_udp(resolver: SocketAddr, bytes: &[u8], asked: &Message) -> io::Result<Message> {
    let any = match resolver {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Only this resolver's datagrams come in, and its absence comes back as an error at once.
    socket.connect(resolver).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        socket.send(bytes).await?;
        let receive = async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                if let Some(answer) = answer_to(asked, &buffer[..length]) {
                    return Ok(answer);
                }
            }
        };
        // The caller's deadline ends the sending.
        if let Ok(answered) = timeout(RESEND_AFTER, receive).await {
            return answered;
        }
    }
}

async fn by_tcp(resolver: SocketAddr, bytes: &[u8], asked: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    // One write, or a resolver may see the length alone and give up.
    let framed = [&length.to_be_bytes(), bytes].concat();
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    answer_to(asked, &buffer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"))
}

fn answer_to(asked: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let same = answer.metadata.id == asked.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == asked.queries;
    same.then_some(answer)
}
