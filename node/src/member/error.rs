//! Why a member cannot start.

use std::net::SocketAddr;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// An address that is taken, or not this node's.
    #[error("listen on {address} for {purpose}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What for.
        purpose: &'static str,
        /// The system's words and the remedy.
        reason: String,
    },
    /// Certificates.
    #[error("use the node's certificate")]
    Pki(#[from] crate::pki::PkiError),
    /// The Raft store has lost something.
    #[error(
        "{reason}. This manager neither votes nor serves anything of it: run `skein cluster \
         rejoin --data-dir {dir}` and start the daemon again, and it gets everything from the \
         other managers; if there are none, see \"When the quorum is lost\" in docs/operations.md",
        dir = dir.display()
    )]
    Lost {
        /// What.
        reason: String,
        /// The data directory.
        dir: std::path::PathBuf,
    },
    /// The key that signs gossip.
    #[error("use the node's key")]
    Proofs(#[from] gossip::ProofSecretRefused),
    /// The node's keys.
    #[error(transparent)]
    Keys(#[from] crate::key_file::KeyFileError),
    /// The Raft store.
    #[error("open the Raft store: {0}")]
    Raft(String),
    /// The disk is full; what is on it is whole.
    #[error("open the Raft store: {0}")]
    NoRoom(String),
    /// The worker.
    #[error("start the worker: {0}")]
    Worker(String),
    /// The data directory.
    #[error("change what the node is on disk")]
    Disk(#[source] crate::disk::DiskError),
}

pub(super) fn listen_error(
    address: SocketAddr,
    purpose: &'static str,
    flag: &'static str,
) -> impl Fn(std::io::Error) -> MemberError {
    move |error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("the port is taken: stop what uses it, or give another {flag}")
            }
            std::io::ErrorKind::AddrNotAvailable => {
                format!("it is no address of this node: give another {flag}")
            }
            _other => error.to_string(),
        };
        MemberError::Listen { address, purpose, reason }
    }
}
