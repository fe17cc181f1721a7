//! Netlink messages as bytes, for families without message types in the libraries: netfilter and
//! generic netlink. Sockets block: the kernel has answered by the time a send returns.

use netlink_packet_core::{
    ErrorBuffer, ErrorMessage, NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer,
    NlasIterator, Parseable,
};
use nix::errno::Errno;
use rtnetlink::sys::Socket;

use super::{
    DUMP_ATTEMPTS_MAX, DUMP_INTERRUPTED, NETLINK_HEADER_BYTES, Refusal, next_sequence, refused,
};

pub(crate) const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
/// `struct nlattr`: length and type.
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Attributes and messages start at multiples of this (`NLA_ALIGNTO`).
const ALIGNMENT: usize = 4;
/// Room for one datagram of a dump; the kernel fills at most 32 KiB (`netlink_dump`).
const RECEIVE_BYTES: usize = 64 * 1024;

/// Attributes in order, encoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = ATTRIBUTE_HEADER_BYTES + value.len();
        self.0.extend(u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
        self
    }

    /// With the zero that ends it.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn u16(self, kind: u16, value: u16) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn nest(self, kind: u16, inner: &Attributes) -> Self {
        self.bytes(kind | NLA_F_NESTED, inner.as_bytes())
    }
}

/// A request of some family.
pub(crate) struct Request<'a> {
    /// Message type.
    pub(crate) kind: u16,
    /// The family's own header.
    pub(crate) header: &'a [u8],
    /// What follows it.
    pub(crate) attributes: &'a Attributes,
}

/// What the kernel answers to a request that it does not refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// An acknowledgement.
    Done,
    /// One message.
    Answer,
    /// Any number of messages, and their end.
    Dump,
}

/// Encodes a request (RFC 3549, section 2.3.2).
pub(crate) fn encode(request: &Request<'_>, sequence: u32, flags: u16) -> Vec<u8> {
    let Request { kind, header, attributes } = request;
    let length = NETLINK_HEADER_BYTES + header.len() + attributes.0.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(*header);
    bytes.extend(attributes.as_bytes());
    bytes
}

/// Sends a request and gives the messages of its answer, without their netlink headers.
pub(crate) fn exchange(
    socket: &Socket,
    request: &Request<'_>,
    expect: Expect,
) -> Result<Vec<Vec<u8>>, Refusal> {
    for _attempt in 0..DUMP_ATTEMPTS_MAX {
        match exchange_once(socket, request, expect) {
            Err(refusal) if expect == Expect::Dump && refusal.is(Errno::EINTR) => {}
            other => return other,
        }
    }
    Err(Refusal::other(format!("the list changed {DUMP_ATTEMPTS_MAX} times while it was read")))
}

fn exchange_once(
    socket: &Socket,
    request: &Request<'_>,
    expect: Expect,
) -> Result<Vec<Vec<u8>>, Refusal> {
    let flags = match expect {
        Expect::Done => NLM_F_REQUEST | NLM_F_ACK,
        Expect::Answer => NLM_F_REQUEST,
        Expect::Dump => NLM_F_REQUEST | NLM_F_DUMP,
    };
    let sequence = next_sequence(1);
    socket.send(&encode(request, sequence, flags), 0)?;
    let mut answers = Answers::new(sequence, expect);
    loop {
        let mut datagram = Vec::with_capacity(RECEIVE_BYTES);
        socket.recv(&mut datagram, 0)?;
        if answers.take(&datagram)? {
            return Ok(answers.found);
        }
    }
}

/// The part of the reply to one request that has arrived.
pub(crate) struct Answers {
    sequence: u32,
    expect: Expect,
    /// Messages without their netlink headers.
    pub(crate) found: Vec<Vec<u8>>,
    interrupted: bool,
}

impl Answers {
    pub(crate) fn new(sequence: u32, expect: Expect) -> Self {
        Self { sequence, expect, found: Vec::new(), interrupted: false }
    }

    /// Takes a datagram and returns whether the reply is complete.
    pub(crate) fn take(&mut self, datagram: &[u8]) -> Result<bool, Refusal> {
        let mut rest = datagram;
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(&rest).map_err(unreadable)?;
            let length = message.length() as usize;
            let payload = rest.get(NETLINK_HEADER_BYTES..length).unwrap_or_default();
            self.interrupted |= message.flags() & DUMP_INTERRUPTED != 0;
            // A late answer to an abandoned request has another number.
            if message.sequence_number() == self.sequence {
                match message.message_type() {
                    MESSAGE_DONE if self.interrupted => return Err(Errno::EINTR.into()),
                    MESSAGE_DONE | MESSAGE_ERROR => return done(payload).map(|()| true),
                    _ => self.found.push(payload.to_vec()),
                }
                if self.expect == Expect::Answer {
                    return Ok(true);
                }
            }
            rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        }
        Ok(false)
    }
}

/// Errors, acknowledgements and the end of a dump all start with an errno.
fn done(payload: &[u8]) -> Result<(), Refusal> {
    if payload.is_empty() {
        return Ok(());
    }
    let error = ErrorBuffer::new_checked(&payload)
        .and_then(|buffer| ErrorMessage::parse(&buffer))
        .map_err(unreadable)?;
    refused(&error)
}

fn unreadable(error: netlink_packet_core::DecodeError) -> Refusal {
    Refusal::other(format!("unreadable netlink answer: {error}"))
}

/// Kinds and values of consecutive attributes.
pub(crate) fn nested(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).filter_map(Result::ok).map(|nla| {
        // The buffer's own accessor borrows from the copy that the iterator gives.
        let length = nla.value_length();
        let inner: &[u8] = nla.into_inner();
        let value = inner.get(ATTRIBUTE_HEADER_BYTES..ATTRIBUTE_HEADER_BYTES + length);
        (kind(inner), value.unwrap_or_default())
    })
}

fn kind(attribute: &[u8]) -> u16 {
    match attribute {
        [_, _, low, high, ..] => {
            u16::from_ne_bytes([*low, *high]) & netlink_packet_core::NLA_TYPE_MASK
        }
        _ => 0,
    }
}

pub(crate) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

pub(crate) fn be32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

pub(crate) fn ne32(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

pub(crate) fn ne16(value: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(value.try_into().ok()?))
}
