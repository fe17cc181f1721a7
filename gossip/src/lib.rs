//! Who is alive, and which endpoints are up where: SWIM membership and a table of rows.
//!
//! The crate is pure. [`Engine::step`] takes an [`Input`] and the time and returns [`Output`]s;
//! sockets, streams and the clock belong to the shell that drives it, and every random choice
//! follows from a seed. It produces a [`cluster::view::View`] for the data plane.
//!
//! * foca carries membership only: who is alive, suspect or down. It is no carrier of tables: its
//!   retransmission is bounded and one lost `announce` isolates a node for ever. Who is there, a
//!   node that starts learns by an exchange, as it learns rows.
//! * Rows ([`row`]) travel in datagrams of our own: pushed at once to a fan-out of peers on a
//!   change and relayed once by each member that learns it. What pushes lose, [`anti_entropy`]
//!   repairs: every datagram of foca's carries the digest of its sender's own rows, and a member
//!   that finds that it holds other rows asks for them by a stream. In the background any two nodes
//!   compare all that they know, at first by one number ([`buckets`]).
//! * A row has one writer, the node that owns it, and carries its signature ([`proof`]): only its
//!   owner can have made it, no matter which member sent it. Its version is (generation, counter):
//!   the generation grows at each start of that node. Runs and restarts of nodes are signed too.
//!   The assignment says where a node is and which key it has.
//!
//! Deliberately absent: retries of streams (the next digest is the retry), and any opinion on what
//! a row means (the reader of the view decides that).

pub mod anti_entropy;
pub mod buckets;
pub mod codec;
pub mod engine;
pub mod identity;
pub mod keyring;
pub mod proof;
pub mod row;
pub mod table;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod mini_network;

pub use crate::engine::config::Config;
pub use crate::engine::roster::Peer;
pub use crate::engine::stats::{MemberRow, Refused, Stats};
pub use crate::engine::{Engine, Input, Output, SyncFailed};
pub use crate::identity::Identity;
pub use crate::keyring::{Keyring, KeyringError};
pub use crate::proof::{Proof, ProofSecret, ProofSecretRefused, Verify};
pub use crate::row::{EndpointValue, Record, Row, RowKey, Version};
pub use crate::table::Table;

/// Monotonic time since an arbitrary start that is the same for all inputs of one engine.
pub type Now = std::time::Duration;
