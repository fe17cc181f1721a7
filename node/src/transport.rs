//! Node to node: HTTP/2 over mutual TLS, one connection per peer and class of traffic, so that
//! bulk never holds up a heartbeat.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

pub use client::Net;
pub use server::{MemberOnly, serve};

pub mod access;
mod client;
mod newcomers;
mod server;
pub mod stream;

/// The largest body of a call that is read, in bytes (snapshots are the largest).
pub const BODY_BYTES_MAX: usize = 256 << 20;
/// How long a connection may take to be made, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);
/// An idle connection is probed this often; one that does not answer within
/// [`KEEP_ALIVE_LIMIT`] is closed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// See [`KEEP_ALIVE_INTERVAL`].
const KEEP_ALIVE_LIMIT: Duration = Duration::from_secs(3);
/// How long a TLS handshake of an accepted connection may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Accepted connections of members at one time on one listener.
const CONNECTIONS_MAX: usize = 4096;
/// The same of one node: six lanes, and followers of logs. None of them, nor who has stolen its
/// key, can keep the others out.
const CONNECTIONS_OF_ONE_NODE_MAX: usize = 32;

/// Traffic that shares a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Raft heartbeats and votes.
    Pulse,
    /// Raft entries.
    Append,
    /// Snapshots and gossip streams.
    Bulk,
    /// Logs of tasks, which users may follow for as long as they like.
    Logs,
    /// Streams to programs in tasks, as long as their users like.
    Streams,
    /// Sessions, forwarded requests, joining.
    Control,
}

/// Why a call to a peer failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection: the peer surely did not act.
    #[error("connect to {address}: {reason}")]
    Connect {
        /// Whom.
        address: SocketAddr,
        /// In words.
        reason: String,
    },
    /// The connection broke, or the deadline ran out: whether the peer acted is unknown.
    #[error("call {path} of {address}: {reason}")]
    Broken {
        /// Whom.
        address: SocketAddr,
        /// What.
        path: String,
        /// In words.
        reason: String,
    },
    /// The peer answered with another status than 200.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The peer's words.
        message: String,
        /// The whole body.
        body: Bytes,
    },
}
