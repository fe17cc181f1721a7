//! Bytes on the wire: one version byte, then bincode; the only file that names bincode.
//!
//! Everything in here that is serialised only grows: append variants, never fields. The golden
//! tests hold the bytes.

use bincode::config::{Configuration, Limit, standard};
use bytes::{Buf, BufMut};
use cluster::id::{ClusterId, NodeId};
use foca::{Codec as _, Header, Incarnation, Member, Message, ProbeNumber, State};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::anti_entropy::{Bundle, Digest, RestartNotice};
use crate::identity::Identity;
use crate::keyring::SEAL_BYTES;
use crate::proof::Statement;
use crate::row::Row;

/// Version of the wire format.
pub const WIRE_VERSION: u8 = 4;
/// UDP payload that every path of 1,400 bytes MTU carries unfragmented, with room for tunnels.
pub const DATAGRAM_BYTES_MAX: usize = 1300;
/// What is left in a datagram for rows or for foca, and for further digests: sealing, version, and
/// the sender's digest take the rest, each at its longest encoding.
pub const PAYLOAD_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - SEAL_BYTES - ENVELOPE_BYTES_MAX;
const ENVELOPE_BYTES_MAX: usize = 1 + 1 + 1 + DIGEST_BYTES_MAX + 3;
/// A digest at its longest encoding: owner, floor, last version, count, hash.
pub const DIGEST_BYTES_MAX: usize = 17 + 9 + 18 + 5 + 9;
/// Digests in a datagram.
pub const DIGESTS_MAX: usize = 9;
/// Bytes of a message of an exchange: a decoder refuses to allocate more.
pub const SYNC_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of memory of a datagram's body: bincode's limit counts what is made, and a row takes more
/// room than its bytes do.
const DATAGRAM_MEMORY_MAX: usize = 8 * DATAGRAM_BYTES_MAX;

type Limited<const N: usize> =
    Configuration<bincode::config::LittleEndian, bincode::config::Varint, Limit<N>>;
const DATAGRAM: Limited<DATAGRAM_MEMORY_MAX> = standard().with_limit::<DATAGRAM_MEMORY_MAX>();
const SYNC: Limited<SYNC_BYTES_MAX> = standard().with_limit::<SYNC_BYTES_MAX>();

/// Bytes that are no message of this version.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("the message is empty")]
    Empty,
    #[error("the message is of wire version {0}, this node speaks {WIRE_VERSION}")]
    Version(u8),
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    #[error("encoding a message")]
    Encode(#[source] bincode::error::EncodeError),
    #[error("decoding a message")]
    Decode(#[source] bincode::error::DecodeError),
    #[error("a message of {needed} bytes does not fit in {room}")]
    NoRoom { needed: usize, room: usize },
}

/// The kinds of datagrams, before sealing, which names the sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    /// foca's, with digests: first that of the sender's own rows, then of owners whose rows have
    /// changed a moment ago, as the sender has them. At most [`DIGESTS_MAX`].
    Membership(Vec<Digest>, #[serde(with = "whole")] Vec<u8>),
    /// News: rows that were written or learned a moment ago.
    Rows(Vec<Bundle>),
    /// To a node that the sender holds suspect, so that it can refute at once; memberlist's
    /// "buddy system" (Lifeguard, section IV-C).
    Suspected(Identity, Incarnation),
    /// A node restarts and will be back.
    Restarting(RestartNotice),
}

/// Bytes, written and read at once; the encoding is the one of a list of bytes.
mod whole {
    use std::fmt;

    use serde::de::Visitor;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        from.deserialize_byte_buf(Bytes)
    }

    struct Bytes;

    impl Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
    }
}

pub(crate) fn encode_datagram(body: &Body) -> Result<Vec<u8>, CodecError> {
    encode(body, DATAGRAM)
}

pub(crate) fn decode_datagram(bytes: &[u8]) -> Result<Body, CodecError> {
    decode(bytes, DATAGRAM)
}

pub(crate) fn encode_sync<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    encode(message, SYNC)
}

pub(crate) fn decode_sync<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode(bytes, SYNC)
}

fn encode<T: Serialize, C: bincode::config::Config>(
    message: &T,
    config: C,
) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![WIRE_VERSION];
    bincode::serde::encode_into_std_write(message, &mut bytes, config)
        .map_err(CodecError::Encode)?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned, C: bincode::config::Config>(
    bytes: &[u8],
    config: C,
) -> Result<T, CodecError> {
    let (version, rest) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *version != WIRE_VERSION {
        return Err(CodecError::Version(*version));
    }
    let (message, read) =
        bincode::serde::decode_from_slice(rest, config).map_err(CodecError::Decode)?;
    if read == rest.len() { Ok(message) } else { Err(CodecError::Trailing(rest.len() - read)) }
}

/// Encoded length of a row, 0 if it cannot be encoded, which happens to no own row.
pub(crate) fn row_bytes(row: &Row) -> usize {
    bincode::serde::encode_to_vec(row, standard()).map_or(0, |bytes| bytes.len())
}

/// What a node signs to make a statement; `None` if it cannot be encoded, which does not happen
/// for any statement that this node makes.
pub(crate) fn statement(
    cluster: ClusterId,
    node: NodeId,
    statement: Statement<'_>,
) -> Option<Vec<u8>> {
    let mut message = b"skein gossip statement\0".to_vec();
    message.extend_from_slice(&cluster.0.to_be_bytes());
    message.extend_from_slice(&node.0.to_be_bytes());
    bincode::serde::encode_into_std_write(statement, &mut message, standard()).ok()?;
    Some(message)
}

/// A hash of what a row says, its proof left out, that is the same on every node and in every
/// version of the program: FNV-1a over its encoding, finished by SplitMix64 so that exclusive or of
/// hashes mixes well.
pub(crate) fn row_hash(row: &Row) -> u64 {
    let said = (row.version, &row.record);
    let bytes = bincode::serde::encode_to_vec(said, standard()).unwrap_or_default();
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// The finish of SplitMix64.
fn mix(hash: u64) -> u64 {
    let z = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A hash of some numbers that are said of a node, the same on every node.
pub(crate) fn scramble(node: NodeId, said: [u64; 3]) -> u64 {
    let [high, low] = [(node.0 >> 64) as u64, node.0 as u64];
    [high, low].into_iter().chain(said).fold(0x9E37_79B9_7F4A_7C15, |hash, number| {
        mix(hash.rotate_left(5) ^ number).wrapping_add(0x9E37_79B9_7F4A_7C15)
    })
}

/// foca's messages over bincode: foca 2.0 ships no such codec.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FocaCodec;

#[derive(Serialize, Deserialize)]
struct WireHeader {
    source: Identity,
    incarnation: Incarnation,
    destination: Identity,
    message: WireMessage,
}

#[derive(Serialize, Deserialize)]
enum WireMessage {
    Ping(ProbeNumber),
    Ack(ProbeNumber),
    PingReq(Identity, ProbeNumber),
    IndirectPing(Identity, ProbeNumber),
    IndirectAck(Identity, ProbeNumber),
    ForwardedAck(Identity, ProbeNumber),
    Announce,
    Feed,
    Gossip,
    Broadcast,
    TurnUndead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireMember(Identity, Incarnation, WireState);

impl From<&Member<Identity>> for WireMember {
    fn from(member: &Member<Identity>) -> Self {
        let state = match member.state() {
            State::Alive => WireState::Alive,
            State::Suspect => WireState::Suspect,
            State::Down => WireState::Down,
        };
        Self(*member.id(), member.incarnation(), state)
    }
}

impl From<WireMember> for Member<Identity> {
    fn from(WireMember(identity, incarnation, state): WireMember) -> Self {
        let state = match state {
            WireState::Alive => State::Alive,
            WireState::Suspect => State::Suspect,
            WireState::Down => State::Down,
        };
        Self::new(identity, incarnation, state)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum WireState {
    Alive,
    Suspect,
    Down,
}

impl From<&Message<Identity>> for WireMessage {
    fn from(message: &Message<Identity>) -> Self {
        match message {
            Message::Ping(n) => Self::Ping(*n),
            Message::Ack(n) => Self::Ack(*n),
            Message::PingReq { target, probe_number } => Self::PingReq(*target, *probe_number),
            Message::IndirectPing { origin, probe_number } => {
                Self::IndirectPing(*origin, *probe_number)
            }
            Message::IndirectAck { target, probe_number } => {
                Self::IndirectAck(*target, *probe_number)
            }
            Message::ForwardedAck { origin, probe_number } => {
                Self::ForwardedAck(*origin, *probe_number)
            }
            Message::Announce => Self::Announce,
            Message::Feed => Self::Feed,
            Message::Gossip => Self::Gossip,
            Message::Broadcast => Self::Broadcast,
            Message::TurnUndead => Self::TurnUndead,
        }
    }
}

impl From<WireMessage> for Message<Identity> {
    fn from(message: WireMessage) -> Self {
        match message {
            WireMessage::Ping(n) => Self::Ping(n),
            WireMessage::Ack(n) => Self::Ack(n),
            WireMessage::PingReq(target, probe_number) => Self::PingReq { target, probe_number },
            WireMessage::IndirectPing(origin, probe_number) => {
                Self::IndirectPing { origin, probe_number }
            }
            WireMessage::IndirectAck(target, probe_number) => {
                Self::IndirectAck { target, probe_number }
            }
            WireMessage::ForwardedAck(origin, probe_number) => {
                Self::ForwardedAck { origin, probe_number }
            }
            WireMessage::Announce => Self::Announce,
            WireMessage::Feed => Self::Feed,
            WireMessage::Gossip => Self::Gossip,
            WireMessage::Broadcast => Self::Broadcast,
            WireMessage::TurnUndead => Self::TurnUndead,
        }
    }
}

fn put<T: Serialize>(value: &T, mut buffer: impl BufMut) -> Result<(), CodecError> {
    let bytes = bincode::serde::encode_to_vec(value, DATAGRAM).map_err(CodecError::Encode)?;
    if bytes.len() > buffer.remaining_mut() {
        return Err(CodecError::NoRoom { needed: bytes.len(), room: buffer.remaining_mut() });
    }
    buffer.put_slice(&bytes);
    Ok(())
}

fn take<T: DeserializeOwned>(mut buffer: impl Buf) -> Result<T, CodecError> {
    // foca promises that its buffer is contiguous.
    let (value, read) =
        bincode::serde::decode_from_slice(buffer.chunk(), DATAGRAM).map_err(CodecError::Decode)?;
    buffer.advance(read);
    Ok(value)
}

impl foca::Codec<Identity> for FocaCodec {
    type Error = CodecError;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        buffer: impl BufMut,
    ) -> Result<(), CodecError> {
        let wire = WireHeader {
            source: header.src,
            incarnation: header.src_incarnation,
            destination: header.dst,
            message: WireMessage::from(&header.message),
        };
        put(&wire, buffer)
    }

    fn decode_header(&mut self, buffer: impl Buf) -> Result<Header<Identity>, CodecError> {
        let wire: WireHeader = take(buffer)?;
        Ok(Header {
            src: wire.source,
            src_incarnation: wire.incarnation,
            dst: wire.destination,
            message: wire.message.into(),
        })
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        buffer: impl BufMut,
    ) -> Result<(), CodecError> {
        put(&WireMember::from(member), buffer)
    }

    fn decode_member(&mut self, buffer: impl Buf) -> Result<Member<Identity>, CodecError> {
        take::<WireMember>(buffer).map(Member::from)
    }
}

/// A packet of foca's, taken apart: whatever it says of members, and of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) header: Header<Identity>,
    pub(crate) members: Vec<Member<Identity>>,
}

impl Packet {
    /// A header; then, if there is more, a number in two bytes, high first, and as many members
    /// (foca 2.0.0, `Foca::handle_data`; custom broadcasts would follow, and there are none).
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, CodecError> {
        let header = FocaCodec.decode_header(&mut bytes)?;
        let mut members = Vec::new();
        if let Some((count, rest)) = bytes.split_first_chunk::<2>() {
            bytes = rest;
            for _member in 0..u16::from_be_bytes(*count) {
                members.push(FocaCodec.decode_member(&mut bytes)?);
            }
        }
        if bytes.is_empty() {
            Ok(Self { header, members })
        } else {
            Err(CodecError::Trailing(bytes.len()))
        }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let mut bytes = Vec::new();
        FocaCodec.encode_header(&self.header, &mut bytes)?;
        if let Some(count) = u16::try_from(self.members.len()).ok().filter(|count| *count > 0) {
            bytes.extend_from_slice(&count.to_be_bytes());
            for member in &self.members {
                FocaCodec.encode_member(member, &mut bytes)?;
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
#[path = "codec/tests.rs"]
mod tests;
