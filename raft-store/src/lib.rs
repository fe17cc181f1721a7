//! The replicated log of Skein: openraft for consensus, redb for the log on disk, files for
//! snapshots.
//!
//! What is replicated is opaque: a payload is bytes, and a [`Machine`] gives them a meaning. How
//! bytes travel between managers is the caller's affair too: it implements [`Transport`] and hands
//! what its server receives to [`RaftNode::serve`].
//!
//! What a caller may rely on:
//! * A payload is answered as applied only after a quorum has it on disk.
//! * Payloads submitted one after the other on one leader are applied in that order.
//! * After a restart the machine holds everything that it had applied and that was known to be
//!   committed, before [`RaftNode::open`] returns.
//! * Nothing here looks inside a payload, a response or a snapshot.
//!
//! Deliberately absent: HTTP, TLS, forwarding of proposals to the leader (the caller does it with
//! the peer that [`ProposeError::NotLeader`] names), and every business rule.

mod codec;
mod error;
mod log_store;
mod membership;
mod network;
mod node;
mod offline;
mod propose;
mod read;
mod room;
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
