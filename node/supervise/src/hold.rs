//! The holder: one process per node that keeps the network namespaces of fabrics alive, whatever
//! becomes of the daemon.
//!
//! It answers on `hold.sock` in the run directory, one request a connection. Each namespace is also
//! mounted under `netns/` there, for people; a holder that starts again takes over what it finds.

mod client;
pub(crate) mod holder;
pub(crate) mod protocol;

pub use client::{Client, ensure_running};
