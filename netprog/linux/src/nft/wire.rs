//! Netfilter netlink: requests and dumps of nf_tables
//! (include/uapi/linux/netfilter/nf_tables.h).

use netlink_packet_core::{
    ErrorBuffer, ErrorMessage, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator, Parseable,
};
use netprog::plane::Family;
use nix::errno::Errno;
use rtnetlink::sys::Socket;

use crate::netlink::{
    DUMP_INTERRUPTED, NETLINK_HEADER_BYTES, Refusal, encode, next_sequence, refused,
};

const SUBSYSTEM: u16 = 10 << 8;
pub(super) const GET_TABLE: u16 = SUBSYSTEM | 1;
pub(super) const GET_CHAIN: u16 = SUBSYSTEM | 4;
pub(super) const GET_RULE: u16 = SUBSYSTEM | 7;
pub(super) const GET_SET: u16 = SUBSYSTEM | 10;
pub(super) const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
const GET_GENERATION: u16 = SUBSYSTEM | 16;
const GENERATION_ID: u16 = 1;
/// `struct nfgenmsg`: family, version, resource.
const GENERIC_HEADER_BYTES: usize = 4;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;

/// Room for one datagram of a dump; the kernel fills at most 32 KiB (`netlink_dump`).
const RECEIVE_BYTES: usize = 64 * 1024;
/// A dump that changed under way is read again, at most so often.
const DUMP_ATTEMPTS_MAX: u32 = 8;

/// Address family numbers of netfilter (include/uapi/linux/netfilter.h).
pub(super) fn number(family: Family) -> u8 {
    match family {
        Family::Inet => 1,
        Family::Ip => 2,
        Family::Bridge => 7,
        Family::Ip6 => 10,
    }
}

pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

pub(super) fn be32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

pub(super) fn nested(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).filter_map(Result::ok).map(|nla| {
        // The buffer's own accessor borrows from the copy that the iterator gives.
        let length = nla.value_length();
        let inner: &[u8] = nla.into_inner();
        (kind(inner), inner.get(4..4 + length).unwrap_or_default())
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

/// One message of a dump, without its netlink header.
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn family(&self) -> Option<Family> {
        let first = *self.0.first()?;
        [Family::Ip, Family::Ip6, Family::Inet, Family::Bridge]
            .into_iter()
            .find(|family| number(*family) == first)
    }

    pub(super) fn attributes(&self) -> impl Iterator<Item = (u16, &[u8])> {
        nested(self.0.get(GENERIC_HEADER_BYTES..).unwrap_or_default())
    }
}

pub(super) fn dump(
    socket: &Socket,
    kind: u16,
    family: u8,
    names: &[(u16, &str)],
) -> Result<Vec<Message>, Refusal> {
    for _attempt in 0..DUMP_ATTEMPTS_MAX {
        match exchange(socket, next_sequence(1), (kind, family), names, true) {
            // The set or table went away between two requests.
            Err(refusal) if refusal.is(Errno::ENOENT) => return Ok(Vec::new()),
            Err(refusal) if refusal.is(Errno::EINTR) => {}
            other => return other,
        }
    }
    Err(Refusal::other(format!("tables changed {DUMP_ATTEMPTS_MAX} times while they were read")))
}

/// The number of the last transaction of the namespace: as long as it stays, no table, rule or
/// static element has changed. What packets add to dynamic sets does not count.
pub(super) fn generation(socket: &Socket) -> Result<u32, Refusal> {
    let found = exchange(socket, next_sequence(1), (GET_GENERATION, 0), &[], false)?;
    let id = found.iter().flat_map(Message::attributes).find(|(kind, _)| *kind == GENERATION_ID);
    id.and_then(|(_, value)| be32(value))
        .ok_or_else(|| Refusal::other("nf_tables gave no generation"))
}

/// One request and its answers: a dump's until its end, otherwise the one.
fn exchange(
    socket: &Socket,
    sequence: u32,
    (kind, family): (u16, u8),
    names: &[(u16, &str)],
    is_dump: bool,
) -> Result<Vec<Message>, Refusal> {
    let flags = NLM_F_REQUEST | if is_dump { NLM_F_DUMP } else { 0 };
    socket.send(&encode(sequence, kind, flags, &[family, 0, 0, 0], names), 0)?;
    let mut found = Vec::new();
    let mut interrupted = false;
    loop {
        let mut answers = Vec::with_capacity(RECEIVE_BYTES);
        socket.recv(&mut answers, 0)?;
        let mut rest = answers.as_slice();
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(&rest).map_err(unreadable)?;
            let length = message.length() as usize;
            let payload = rest.get(NETLINK_HEADER_BYTES..length).unwrap_or_default();
            interrupted |= message.flags() & DUMP_INTERRUPTED != 0;
            if message.sequence_number() == sequence {
                match message.message_type() {
                    MESSAGE_DONE if interrupted => return Err(Errno::EINTR.into()),
                    MESSAGE_DONE => return done(payload).map(|()| found),
                    MESSAGE_ERROR => done(payload)?,
                    _ if is_dump => found.push(Message(payload.to_vec())),
                    _ => return Ok(vec![Message(payload.to_vec())]),
                }
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Errors and the end of a dump both begin with an errno.
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
    Refusal::other(format!("unreadable netfilter answer: {error}"))
}
