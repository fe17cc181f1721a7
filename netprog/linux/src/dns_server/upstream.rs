//! One resolver: queries over UDP, over TCP if the answer does not fit, and without EDNS if the
//! resolver does not support it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_server::proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::origin::Origin;

/// Advertised UDP answer size: it passes every link without fragmentation (DNS flag day
/// 2020).
const UDP_ANSWER_BYTES_MAX: u16 = 1232;
/// A datagram that was lost is sent again after this, until the caller's deadline.
const RESEND_AFTER: Duration = Duration::from_millis(400);
/// After this many consecutive queries that were answered only without EDNS, the resolver is taken
/// to drop EDNS queries.
const SILENCES_MAX: u32 = 3;
/// How long a resolver without EDNS support is queried without it (RFC 6891, section 6.2.2).
const PLAIN_KEPT: Duration = Duration::from_secs(900);

/// A resolver and its observed behaviour.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    origin: Origin,
    behaviour: Mutex<Behaviour>,
}

#[derive(Default)]
struct Behaviour {
    /// Until when it is queried without EDNS.
    plain_until: Option<Duration>,
    /// Consecutive EDNS queries without an answer.
    silences: u32,
}

impl Upstream {
    pub(super) fn new(address: SocketAddr, origin: Origin) -> Self {
        Self { address, origin, behaviour: Mutex::default() }
    }

    fn behaviour(&self) -> std::sync::MutexGuard<'_, Behaviour> {
        self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn knows_edns(&self, now: Duration) -> bool {
        self.behaviour().plain_until.is_none_or(|until| now >= until)
    }

    fn is_plain(&self, now: Duration) {
        *self.behaviour() = Behaviour { plain_until: Some(now + PLAIN_KEPT), silences: 0 };
    }

    /// Queries until there is an answer; the caller sets the limit.
    pub(super) async fn ask(&self, query: &Query, now: Duration) -> io::Result<Message> {
        let plain = EncodedQuery::new(query, false)?;
        if !self.knows_edns(now) {
            return self.exchange(&[&plain]).await.map(|(answer, _)| answer);
        }
        let extended = EncodedQuery::new(query, true)?;
        let (answer, by) = self.exchange(&[&extended, &plain]).await?;
        let code = answer.metadata.response_code;
        if by == 0 && matches!(code, ResponseCode::FormErr | ResponseCode::NotImp) {
            let (again, _) = self.exchange(&[&plain]).await?;
            if again.metadata.response_code != code {
                self.is_plain(now);
            }
            return Ok(again);
        }
        let silences = if by == 0 { 0 } else { self.behaviour().silences + 1 };
        self.behaviour().silences = silences;
        if silences >= SILENCES_MAX {
            self.is_plain(now);
        }
        Ok(answer)
    }

    /// The first answer to one of these messages, which are sent in turn, and to which.
    async fn exchange(&self, asked: &[&EncodedQuery]) -> io::Result<(Message, usize)> {
        let (answer, by) = self.by_udp(asked).await?;
        if !answer.metadata.truncation {
            return Ok((answer, by));
        }
        Ok((self.by_tcp(asked[by]).await?, by))
    }

    /// A new socket for each question: its random port is half of what a forger has to guess
    /// (RFC 5452, section 4.5).
    async fn by_udp(&self, asked: &[&EncodedQuery]) -> io::Result<(Message, usize)> {
        let socket = self.origin.udp(self.address).await?;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        for next in asked.iter().cycle() {
            socket.send(&next.bytes).await?;
            let receive = async {
                loop {
                    let length = socket.recv(&mut buffer).await?;
                    let answers = asked.iter().map(|asked| asked.answer(&buffer[..length]));
                    if let Some((by, Some(answer))) = answers.enumerate().find(|(_, a)| a.is_some())
                    {
                        return Ok((answer, by));
                    }
                }
            };
            // The caller's deadline ends the sending.
            if let Ok(answered) = timeout(RESEND_AFTER, receive).await {
                return answered;
            }
        }
        Err(io::Error::other("nothing was asked"))
    }

    async fn by_tcp(&self, asked: &EncodedQuery) -> io::Result<Message> {
        let mut stream = self.origin.tcp(self.address).await?;
        let length = u16::try_from(asked.bytes.len()).map_err(io::Error::other)?;
        // One write, or a resolver may see the length alone and give up.
        let framed = [&length.to_be_bytes(), asked.bytes.as_slice()].concat();
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut buffer = vec![0; usize::from(length)];
        stream.read_exact(&mut buffer).await?;
        asked.answer(&buffer).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "an answer to another question")
        })
    }
}

/// A message and its bytes.
struct EncodedQuery {
    message: Message,
    bytes: Vec<u8>,
}

impl EncodedQuery {
    fn new(query: &Query, edns: bool) -> io::Result<Self> {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        if edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_ANSWER_BYTES_MAX);
            message.set_edns(edns);
        }
        let bytes = message.to_vec().map_err(io::Error::other)?;
        Ok(Self { message, bytes })
    }

    fn answer(&self, bytes: &[u8]) -> Option<Message> {
        answer_to(&self.message, bytes)
    }
}

/// A resolver's answer, if it is one to what was asked. Old resolvers leave the question out, or
/// change its case.
pub(crate) fn answer_to(asked: &Message, bytes: &[u8]) -> Option<Message> {
    // hickory makes room for as many questions as the header says, before it reads them.
    if questions(bytes)? > asked.queries.len() {
        return None;
    }
    let answer = Message::from_vec(bytes).ok()?;
    let same = |theirs: &Query, own: &Query| {
        theirs.name().to_lowercase() == own.name().to_lowercase()
            && theirs.query_type() == own.query_type()
            && theirs.query_class() == own.query_class()
    };
    let is_ours = answer.metadata.id == asked.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && match (answer.queries.as_slice(), asked.queries.as_slice()) {
            ([], _) => true,
            ([theirs], [own]) => same(theirs, own),
            _more => false,
        };
    is_ours.then_some(answer)
}

/// How many questions a message says it has (RFC 1035, section 4.1.1: QDCOUNT).
fn questions(bytes: &[u8]) -> Option<usize> {
    let count = bytes.get(4..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*count).into())
}
