//! What a worker and the leader say to each other in a session: the worker waits for its assignment
//! (watch) and tells what it did (report).
//!
//! An assignment is sent in parts. The leader lists the digests of all of them, and sends those
//! that the node lacks; [`frame`] is how that is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::assign::Hash;
use crate::id::{NetworkId, TaskId};
use crate::object::{NodeDescription, TaskStatus};
use crate::time::{Revision, Timestamp};

pub mod frame;

/// The most parts that an assignment has.
pub const PARTS_MAX: usize = 16_384;

/// SHA-256 of a part's bytes, or of the digests of all parts of an assignment: equal digests ask
/// for the same work. 64 hexadecimal digits where it is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of an assignment that consists of these parts.
    #[must_use]
    pub fn of_all(parts: &BTreeSet<Self>, hash: Hash) -> Self {
        let all: Vec<u8> = parts.iter().flat_map(|part| part.0).collect();
        Self(hash(&all))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = digest_in_hex(text.as_bytes());
        read.ok_or_else(|| serde::de::Error::custom("a digest is 64 lower-case hexadecimal digits"))
    }
}

fn digest_in_hex(text: &[u8]) -> Option<Digest> {
    let value = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _other => None,
    };
    let (pairs, rest) = text.as_chunks::<2>();
    let mut digest = [0; 32];
    if pairs.len() != digest.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        *byte = value(high)? << 4 | value(low)?;
    }
    Some(Digest(digest))
}

/// Which part of an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartId {
    /// What every node is sent.
    Common,
    /// What every node on the network is sent.
    Network(NetworkId),
    /// What only one node is sent.
    Own,
}

impl fmt::Display for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Common => f.write_str("the common part"),
            Self::Network(id) => write!(f, "the part of network {id}"),
            Self::Own => f.write_str("the node's own part"),
        }
    }
}

/// A part of the node's assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub part: PartId,
    /// Of its bytes.
    pub digest: Digest,
    /// What it says, where the node lacks it. All nodes that get a part share the bytes.
    pub bytes: Option<Bytes>,
}

/// An assignment, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// State that it was made from.
    pub revision: Revision,
    /// All of its parts.
    pub parts: Vec<Listed>,
}

/// `POST /session/watch`: waits for an assignment that differs from the one the node has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchCall {
    /// The parts of the assignment that the node has.
    pub have: BTreeSet<Digest>,
    /// Whether a manager told that assignment since the daemon's start. One from disk is to be
    /// confirmed at once, changed or not.
    pub confirmed: bool,
    /// Which releases it knows of.
    pub released: BTreeSet<TaskId>,
    /// The newest schema of an assignment that it reads.
    #[serde(default = "crate::object::first_schema")]
    pub schema: u32,
}

/// Answer to [`WatchCall`]; its bytes are those of [`frame`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchAnswer {
    /// The assignment, if it is not the one that the node has.
    pub told: Option<Told>,
    /// All of this node's tasks that may stop now.
    pub released: BTreeSet<TaskId>,
    /// The leader's clock: restart delays are by it.
    pub now: Timestamp,
}

/// `POST /session/report`: renews the lease and tells what the node did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportCall {
    /// The assignment that the node's kernel holds: the leader told its parts, or was told them by
    /// the node's watch.
    pub applied: Option<Digest>,
    /// What it knows of its tasks and the leader does not.
    pub statuses: BTreeMap<TaskId, TaskStatus>,
    /// What it says of itself; sent first, and when it changed.
    pub description: Option<NodeDescription>,
    /// The last report of a daemon that restarts: the node is silent for a while, its tasks go on.
    #[serde(default)]
    pub restarts: bool,
}

/// Answer to [`ReportCall`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ReportAnswer {
    /// How long the lease is good for, counted from when the call was sent.
    pub lease_ms: u64,
    /// State of the leader.
    pub revision: Revision,
}
