//! The DNS server of one sandbox: hickory-server on sockets that the sandbox's supervisor opened.
//!
//! Names of the cluster come from a [`Resolver`], an immutable snapshot that is replaced as a
//! whole. Other names are forwarded, unless the task is only on internal networks: to the host's
//! resolvers through a shared [`Forwarder`], or to the task's own name servers through a separate
//! one. The supervisor keeps the sockets open, so queries queue while the daemon is away and are
//! answered when it is back.

pub(crate) mod cache;
mod forward;
mod origin;
pub(crate) mod upstream;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster::id::TaskId;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Message, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, PTR, SRV};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use netprog::dns::TTL_SECONDS;
use nix::sys::socket::{setsockopt, sockopt};

pub use netprog::dns::{Answer, Data, Kind, Question};

pub use forward::{FORWARD_WAIT_MAX, Forwarder, MonotonicClock, Unanswered};

/// Idle time after which a TCP client is disconnected.
const TCP_IDLE_MAX: Duration = Duration::from_secs(10);
/// Unread answers per TCP client.
const TCP_ANSWERS_MAX: usize = 32;
/// Largest UDP answer: the largest datagram, because it only crosses the sandbox's loopback, and
/// the client states its buffer size.
const UDP_ANSWER_BYTES_MAX: u16 = 65_507;
/// Buffer for unread queries, and for answers not sent yet: more than 1,000 of each. The kernel
/// doubles the value for its bookkeeping (socket(7)).
const SOCKET_BYTES: usize = 4 << 20;

/// Knows the cluster's names. Called for every query: it must neither block nor wait.
pub trait Resolver: Send + Sync + 'static {
    /// The answer for `asker`.
    fn resolve(&self, asker: TaskId, question: &Question) -> Answer;
}

/// A running server; dropping it stops it and closes this process's copies of its sockets.
pub struct DnsServer {
    server: Server<Handler>,
}

impl DnsServer {
    /// Serves queries of one sandbox from the calling runtime. `udp` and `tcp` are bound sockets,
    /// the second one listening.
    pub fn start(
        asker: TaskId,
        udp: OwnedFd,
        tcp: OwnedFd,
        resolver: Arc<dyn Resolver>,
        forwarder: Arc<Forwarder>,
    ) -> io::Result<Self> {
        let udp = std::net::UdpSocket::from(udp);
        udp.set_nonblocking(true)?;
        setsockopt(&udp, sockopt::RcvBufForce, &SOCKET_BYTES)?;
        setsockopt(&udp, sockopt::SndBufForce, &SOCKET_BYTES)?;
        let tcp = std::net::TcpListener::from(tcp);
        tcp.set_nonblocking(true)?;
        let mut server =
            Server::new(Handler { asker, turn: AtomicUsize::new(0), resolver, forwarder });
        server.register_socket(tokio::net::UdpSocket::from_std(udp)?);
        server.register_listener(
            tokio::net::TcpListener::from_std(tcp)?,
            TCP_IDLE_MAX,
            TCP_ANSWERS_MAX,
        );
        Ok(Self { server })
    }

    /// Stops accepting queries and waits for those in progress.
    pub async fn stop(mut self) {
        if let Err(error) = self.server.shutdown_gracefully().await {
            tracing::debug!(%error, "stop a DNS server");
        }
    }
}

pub(crate) struct Handler {
    pub(crate) asker: TaskId,
    /// Number of answers so far, to rotate the order of addresses.
    pub(crate) turn: AtomicUsize,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) forwarder: Arc<Forwarder>,
}

/// An answer before it is put on the wire.
pub(crate) struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
}

impl Reply {
    fn code(code: ResponseCode) -> Self {
        Self { code, authoritative: false, answers: Vec::new(), authorities: Vec::new() }
    }

    fn known(answers: Vec<Record>) -> Self {
        let code = ResponseCode::NoError;
        Self { code, authoritative: true, answers, authorities: Vec::new() }
    }
}

impl From<Message> for Reply {
    fn from(message: Message) -> Self {
        Self {
            code: message.metadata.response_code,
            authoritative: false,
            answers: message.answers,
            authorities: message.authorities,
        }
    }
}

impl Handler {
    pub(crate) async fn reply(&self, request: &Request) -> Reply {
        if request.metadata.op_code != OpCode::Query {
            return Reply::code(ResponseCode::NotImp);
        }
        let [query] = request.queries.queries() else {
            return Reply::code(ResponseCode::FormErr);
        };
        if query.query_class() != DNSClass::IN {
            return Reply::code(ResponseCode::Refused);
        }
        let question = Question { name: words(query.name()), kind: kind(query.query_type()) };
        match self.resolver.resolve(self.asker, &question) {
            Answer::Known(mut found) => {
                // Many clients take the first address: each shall have its turn.
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                if !found.is_empty() {
                    let turn = turn % found.len();
                    found.rotate_left(turn);
                }
                Reply::known(records(&query.original().name, found))
            }
            // As Docker answers where it forwards nothing (libnetwork, resolver.go: proxyDNS).
            Answer::Confined => Reply::code(ResponseCode::ServFail),
            Answer::Unknown => match self.forwarder.ask(query.original()).await {
                Ok(message) => message.into(),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(task = %self.asker, name = question.name, error, "forward");
                    Reply::code(ResponseCode::ServFail)
                }
            },
        }
    }
}

fn kind(kind: RecordType) -> Kind {
    match kind {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::PTR => Kind::Ptr,
        RecordType::SRV => Kind::Srv,
        _ => Kind::Other,
    }
}

fn records(name: &Name, found: Vec<Data>) -> Vec<Record> {
    let record = |data| {
        let data = match data {
            Data::Address(IpAddr::V4(address)) => RData::A(A(address)),
            Data::Address(IpAddr::V6(address)) => RData::AAAA(AAAA(address)),
            Data::Name(target) => RData::PTR(PTR(absolute(&target)?)),
            Data::Service { port, target } => RData::SRV(SRV::new(0, 0, port, absolute(&target)?)),
        };
        Some(Record::from_rdata(name.clone(), TTL_SECONDS, data))
    };
    found.into_iter().filter_map(record).collect()
}

/// A name as the cluster writes it: its labels as they are. A name with characters that
/// no name of the cluster has is written with escapes, and matches none.
fn words(name: &Name) -> String {
    let label = |label| str::from_utf8(label).ok().filter(|text| !text.contains('.'));
    let labels: Option<Vec<&str>> = name.iter().map(label).collect();
    labels.map_or_else(|| name.to_string(), |labels| labels.join("."))
}

/// Labels are bytes (RFC 2181, section 11): the rules for host names do not apply here. A name that
/// cannot be written as one (a label of more than 63 characters) is left out.
fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_labels(name.split('.').map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let reply = self.reply(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = true;
        // Only who speaks EDNS gets more than 512 bytes by UDP (RFC 6891, section 7).
        let edns = request.edns.as_ref().map(|_| {
            let mut edns = Edns::new();
            edns.set_max_payload(request.max_payload().min(UDP_ANSWER_BYTES_MAX));
            edns
        });
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let response = builder.build(metadata, &reply.answers, &reply.authorities, [], []);
        match response_handle.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(task = %self.asker, %error, "send a DNS answer");
                let counts = Default::default();
                ResponseInfo::from(hickory_server::proto::op::Header { metadata, counts })
            }
        }
    }
}
