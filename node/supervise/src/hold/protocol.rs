//! What is said on the holder's socket.

use serde::{Deserialize, Serialize};

/// The mode of the program that holds namespaces.
pub(crate) const MODE: &str = "hold";
/// The file name of the socket in the run directory.
pub(super) const SOCKET: &str = "hold.sock";
/// Held by the holder while it lives.
pub(super) const LOCK: &str = "hold.lock";
/// The holder's own words.
pub(super) const LOG: &str = "hold.log";

/// What a client asks of the holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Answered by `Done` with the namespace's descriptor; made when it is missing.
    Open { name: String },
    /// Answered by `Names`.
    List,
    /// Lets go of a namespace. It ends when nothing else uses it.
    Close { name: String },
    /// Lets go of all, and exits.
    Quit,
}

/// What the holder says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Names(Vec<String>),
    Failed { reason: String },
}
