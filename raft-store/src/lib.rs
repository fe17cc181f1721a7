//! The replicated log of Skein: openraft for consensus, redb for the log on disk, files for
//! snapshots.
//!
//! Payloads are opaque bytes; a [`Machine`] interprets them. The caller also moves the bytes
//! between managers: it implements [`Transport`] and passes what its server receives to
//! [`RaftNode::serve`].
//!
//! Guarantees:
//! * A payload is answered as applied only after a quorum has it on disk.
//! * Payloads submitted one after the other on one leader are applied in that order.
//! * After a restart, before [`RaftNode::open`] returns, the machine again holds everything that it
//!   had applied and that was known to be committed.
//! * Nothing here looks inside a payload, a response or a snapshot.
//!
//! Deliberately absent: HTTP, TLS, business rules, and forwarding of proposals to the leader (the
//! caller does this with the peer in [`ProposeError::NotLeader`]).

mod codec;
mod disk_full;
mod error;
mod log_store;
mod membership;
mod network;
mod node;
mod offline;
mod propose;
mod read;
mod seal;
mod snapshot;
mod state_machine;
mod status;
mod types;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod tests;

pub use codec::MESSAGE_BYTES_MAX;
pub use error::{Error, MemberError, ProposeError, ReadError};
pub use log_store::Presence;
pub use node::{RaftNode, Storage};
pub use offline::{Position, found, replay};
pub use propose::{Applied, PAYLOAD_BYTES_MAX, Proposal};
pub use seal::{Broken, DISK_KEY_BYTES, DiskKey, Sealer};
pub use status::Status;
pub use types::{Class, Machine, Peer, RaftConfig, SnapshotContent, Transport, TransportError};
