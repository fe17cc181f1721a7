//! Transactions, snapshots, requests and replies as bytes: the one door to bincode in this crate.
//!
//! Each envelope is a versioned enum in bincode's standard configuration; the objects and specs in
//! it travel as JSON bytes, because they skip and gain fields, which bincode cannot. Variants are
//! only appended: golden bytes in the tests hold every encoding still.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::Arc;

use bincode::config;
use bincode::{Decode, Encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::{NetworkId, NodeId, RequestId, ServiceId, TaskId};
use crate::object::{Cluster, first_schema, newest_schema};
use crate::rejection::Rejection;
use crate::request::{Answer, Attempt, Request};
use crate::time::{Revision, Timestamp};
use crate::transaction::{Answered, Change, Key, Object, Transaction};

/// The largest transaction, request or reply that is encoded or decoded.
pub const TRANSACTION_BYTES_MAX: usize = 32 << 20;

/// Bytes that are not what they should be, or a value too large to be sent.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Bincode refused to write the envelope.
    #[error("encode {what}")]
    Encode {
        /// What was encoded.
        what: &'static str,
        /// The reason.
        #[source]
        source: Box<bincode::error::EncodeError>,
    },
    /// Bincode refused the envelope.
    #[error("decode {what}")]
    Decode {
        /// What was decoded.
        what: &'static str,
        /// The reason.
        #[source]
        source: Box<bincode::error::DecodeError>,
    },
    /// JSON inside the envelope.
    #[error("decode the JSON of {what}")]
    Json {
        /// What was decoded.
        what: &'static str,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
    /// Bytes follow the envelope.
    #[error("decode {what}: {count} bytes too many")]
    Trailing {
        /// What was decoded.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// Larger than the limit.
    #[error("encode {what}: {size} bytes are more than the limit of {limit}")]
    TooLarge {
        /// What was encoded.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The stream that a snapshot is written to or read from.
    #[error("{activity} a snapshot")]
    Stream {
        /// What was tried.
        activity: &'static str,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// Written by a version of Skein whose objects this one does not know.
    #[error(
        "the cluster has schema {schema}, and this version of Skein reads up to schema {reads}: \
         install the version of the other managers"
    )]
    NewerSchema {
        /// The cluster's.
        schema: u32,
        /// This version's.
        reads: u32,
    },
    /// A snapshot that has an object or an answer more than once.
    #[error("decode snapshot: {0} is in it twice")]
    Twice(String),
    /// A snapshot in which two objects hold one address.
    #[error("decode snapshot: {key} holds {address}, which another object holds")]
    Inconsistent {
        /// The second holder.
        key: String,
        /// The address.
        address: IpAddr,
    },
}

#[derive(Encode, Decode)]
enum TransactionEnvelope {
    V1 { at: u64, changes: Vec<ChangeV1>, answered: Vec<AnsweredV1> },
}

#[derive(Encode, Decode)]
enum ChangeV1 {
    Put { expected: Option<u64>, object: ObjectV1 },
    Remove { key: KeyV1, expected: u64 },
}

#[derive(Encode, Decode)]
enum ObjectV1 {
    Cluster(Vec<u8>),
    Node(Vec<u8>),
    Network(Vec<u8>),
    Service(Vec<u8>),
    Task(Vec<u8>),
}

#[derive(Encode, Decode)]
enum KeyV1 {
    Cluster,
    Node(u128),
    Network(u128),
    Service(u128),
    Task(u128),
}

#[derive(Encode, Decode)]
struct AnsweredV1 {
    request: u128,
    answer: Vec<u8>,
}

/// The objects and then the answers follow it one by one, so that none but the one at hand is held
/// as bytes.
#[derive(Encode, Decode)]
pub(crate) enum SnapshotHead {
    V1 { revision: u64, objects: u64, answers: u64, forgotten: u64 },
}

/// What follows the head of a snapshot.
pub(crate) enum SnapshotPart {
    Object(Object),
    Answered(Revision, Answered),
}

/// An answer in a snapshot, with the revision at which its request was done.
#[derive(Encode, Decode)]
struct KeptV1 {
    at: u64,
    answered: AnsweredV1,
}

#[derive(Encode, Decode)]
enum JsonEnvelope {
    V1(Vec<u8>),
}

/// A transaction as it stands in the log.
pub fn encode_transaction(transaction: &Transaction) -> Result<Vec<u8>, CodecError> {
    let changes: Result<_, CodecError> = transaction.changes.iter().map(change_to_wire).collect();
    let answered: Result<_, CodecError> =
        transaction.answered.iter().map(answered_to_wire).collect();
    let (changes, answered) = (changes?, answered?);
    let envelope = TransactionEnvelope::V1 { at: transaction.at.0, changes, answered };
    write::<TRANSACTION_BYTES_MAX, _>("transaction", &envelope)
}

/// The inverse of [`encode_transaction`]. Total: any bytes give a transaction or an error.
pub fn decode_transaction(bytes: &[u8]) -> Result<Transaction, CodecError> {
    let TransactionEnvelope::V1 { at, changes, answered } =
        read::<TRANSACTION_BYTES_MAX, _>("transaction", bytes)?;
    let changes: Result<_, CodecError> = changes.into_iter().map(change_from_wire).collect();
    let answered: Result<_, CodecError> = answered.into_iter().map(answered_from_wire).collect();
    Ok(Transaction { at: Timestamp(at), changes: changes?, answered: answered? })
}

pub(crate) fn write_snapshot(
    to: &mut dyn Write,
    head: &SnapshotHead,
    objects: impl Iterator<Item = Object>,
    answers: impl Iterator<Item = (Revision, Answered)>,
) -> Result<(), CodecError> {
    let put = |bytes: Vec<u8>, to: &mut dyn Write| {
        to.write_all(&bytes).map_err(|source| CodecError::Stream { activity: "write", source })
    };
    put(write::<TRANSACTION_BYTES_MAX, _>("snapshot", head)?, to)?;
    for object in objects {
        put(write::<TRANSACTION_BYTES_MAX, _>("object", &object_to_wire(&object)?)?, to)?;
    }
    for (at, answered) in answers {
        put(write::<TRANSACTION_BYTES_MAX, _>("answer", &kept_to_wire(at, &answered)?)?, to)?;
    }
    Ok(())
}

/// Hands the parts of a snapshot to `take` one by one and returns its head.
pub(crate) fn read_snapshot(
    from: &mut dyn Read,
    mut take: impl FnMut(SnapshotPart) -> Result<(), CodecError>,
) -> Result<SnapshotHead, CodecError> {
    let head = read_one("snapshot", from)?;
    let SnapshotHead::V1 { objects, answers, .. } = head;
    for _ in 0..objects {
        take(SnapshotPart::Object(object_from_wire(read_one("object", from)?)?))?;
    }
    for _ in 0..answers {
        let KeptV1 { at, answered } = read_one("answer", from)?;
        take(SnapshotPart::Answered(Revision(at), answered_from_wire(answered)?))?;
    }
    let mut rest = [0];
    match from.read(&mut rest) {
        Ok(0) => Ok(head),
        Ok(count) => Err(CodecError::Trailing { what: "snapshot", count }),
        Err(source) => Err(CodecError::Stream { activity: "read", source }),
    }
}

fn read_one<T: Decode<()>>(what: &'static str, mut from: &mut dyn Read) -> Result<T, CodecError> {
    let limit = config::standard().with_limit::<TRANSACTION_BYTES_MAX>();
    bincode::decode_from_std_read(&mut from, limit)
        .map_err(|source| CodecError::Decode { what, source: Box::new(source) })
}

/// Bytes that are the same for equal objects.
pub(crate) fn object_bytes(object: &Object) -> Vec<u8> {
    // Objects are plain data: JSON has a form for each of them.
    object_to_wire(object)
        .and_then(|wire| write::<TRANSACTION_BYTES_MAX, _>("object", &wire))
        .unwrap_or_default()
}

/// Bytes that are the same for equal answers at one revision.
pub(crate) fn answered_bytes(at: Revision, answered: &Answered) -> Vec<u8> {
    // Answers are plain data, as objects are.
    kept_to_wire(at, answered)
        .and_then(|wire| write::<TRANSACTION_BYTES_MAX, _>("answer", &wire))
        .unwrap_or_default()
}

/// A request on its way from a follower to the leader.
pub fn encode_request(attempt: Attempt, request: &Request) -> Result<Vec<u8>, CodecError> {
    write_json("request", &(attempt, request))
}

/// The inverse of [`encode_request`].
pub fn decode_request(bytes: &[u8]) -> Result<(Attempt, Request), CodecError> {
    read_json("request", bytes)
}

/// The leader's answer on its way back.
pub fn encode_reply(reply: &Result<Answer, Rejection>) -> Result<Vec<u8>, CodecError> {
    write_json("reply", reply)
}

/// The inverse of [`encode_reply`].
pub fn decode_reply(bytes: &[u8]) -> Result<Result<Answer, Rejection>, CodecError> {
    read_json("reply", bytes)
}

fn change_to_wire(change: &Change) -> Result<ChangeV1, CodecError> {
    Ok(match change {
        Change::Put { expected, object } => ChangeV1::Put {
            expected: expected.map(|revision| revision.0),
            object: object_to_wire(object)?,
        },
        Change::Remove { key, expected } => {
            ChangeV1::Remove { key: key_to_wire(*key), expected: expected.0 }
        }
    })
}

fn change_from_wire(change: ChangeV1) -> Result<Change, CodecError> {
    Ok(match change {
        ChangeV1::Put { expected, object } => {
            Change::Put { expected: expected.map(Revision), object: object_from_wire(object)? }
        }
        ChangeV1::Remove { key, expected } => {
            Change::Remove { key: key_from_wire(key), expected: Revision(expected) }
        }
    })
}

fn answered_to_wire(answered: &Answered) -> Result<AnsweredV1, CodecError> {
    let answer = to_json("answer", &*answered.answer)?;
    Ok(AnsweredV1 { request: answered.request.0, answer })
}

fn answered_from_wire(answered: AnsweredV1) -> Result<Answered, CodecError> {
    let answer = Arc::new(from_json("answer", &answered.answer)?);
    Ok(Answered { request: RequestId(answered.request), answer })
}

fn kept_to_wire(at: Revision, answered: &Answered) -> Result<KeptV1, CodecError> {
    Ok(KeptV1 { at: at.0, answered: answered_to_wire(answered)? })
}

fn object_to_wire(object: &Object) -> Result<ObjectV1, CodecError> {
    Ok(match object {
        Object::Cluster(cluster) => ObjectV1::Cluster(to_json("cluster", &**cluster)?),
        Object::Node(node) => ObjectV1::Node(to_json("node", &**node)?),
        Object::Network(network) => ObjectV1::Network(to_json("network", &**network)?),
        Object::Service(service) => ObjectV1::Service(to_json("service", &**service)?),
        Object::Task(task) => ObjectV1::Task(to_json("task", &**task)?),
    })
}

fn object_from_wire(object: ObjectV1) -> Result<Object, CodecError> {
    Ok(match object {
        ObjectV1::Cluster(json) => Object::Cluster(Arc::new(readable(&json)?)),
        ObjectV1::Node(json) => Object::Node(Arc::new(from_json("node", &json)?)),
        ObjectV1::Network(json) => Object::Network(Arc::new(from_json("network", &json)?)),
        ObjectV1::Service(json) => Object::Service(Arc::new(from_json("service", &json)?)),
        ObjectV1::Task(json) => Object::Task(Arc::new(from_json("task", &json)?)),
    })
}

/// The cluster, if it is of a schema that is known here. All else is written after it has that
/// schema: who cannot read it must not go on.
fn readable(json: &[u8]) -> Result<Cluster, CodecError> {
    #[derive(Deserialize)]
    struct Written {
        #[serde(default = "first_schema")]
        schema: u32,
    }
    let (Written { schema }, reads) = (from_json("cluster", json)?, newest_schema());
    if schema > reads {
        return Err(CodecError::NewerSchema { schema, reads });
    }
    from_json("cluster", json)
}

fn key_to_wire(key: Key) -> KeyV1 {
    match key {
        Key::Cluster => KeyV1::Cluster,
        Key::Node(id) => KeyV1::Node(id.0),
        Key::Network(id) => KeyV1::Network(id.0),
        Key::Service(id) => KeyV1::Service(id.0),
        Key::Task(id) => KeyV1::Task(id.0),
    }
}

fn key_from_wire(key: KeyV1) -> Key {
    match key {
        KeyV1::Cluster => Key::Cluster,
        KeyV1::Node(id) => Key::Node(NodeId(id)),
        KeyV1::Network(id) => Key::Network(NetworkId(id)),
        KeyV1::Service(id) => Key::Service(ServiceId(id)),
        KeyV1::Task(id) => Key::Task(TaskId(id)),
    }
}

fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, CodecError> {
    serde_json::to_vec(value).map_err(|source| CodecError::Json { what, source })
}

fn from_json<T: DeserializeOwned>(what: &'static str, json: &[u8]) -> Result<T, CodecError> {
    serde_json::from_slice(json).map_err(|source| CodecError::Json { what, source })
}

fn write_json<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, CodecError> {
    write::<TRANSACTION_BYTES_MAX, _>(what, &JsonEnvelope::V1(to_json(what, value)?))
}

fn read_json<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    let JsonEnvelope::V1(json) = read::<TRANSACTION_BYTES_MAX, _>(what, bytes)?;
    from_json(what, &json)
}

fn write<const LIMIT: usize, T: Encode>(
    what: &'static str,
    value: &T,
) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::encode_to_vec(value, config::standard())
        .map_err(|source| CodecError::Encode { what, source: Box::new(source) })?;
    if bytes.len() > LIMIT {
        return Err(CodecError::TooLarge { what, size: bytes.len(), limit: LIMIT });
    }
    Ok(bytes)
}

fn read<const LIMIT: usize, T: Decode<()>>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, CodecError> {
    let (value, used) = bincode::decode_from_slice(bytes, config::standard().with_limit::<LIMIT>())
        .map_err(|source| CodecError::Decode { what, source: Box::new(source) })?;
    if used < bytes.len() {
        return Err(CodecError::Trailing { what, count: bytes.len() - used });
    }
    Ok(value)
}

#[cfg(test)]
mod tests;
