//! The Skein daemon and client: managers, workers, executors and all wiring between the crates.

#![forbid(unsafe_code)]

mod api_server;
mod api_socket;
pub mod app;
pub mod backup;
pub mod causes;
pub mod cli;
pub mod config;
pub mod control_plane;
pub mod daemon;
pub mod disk;
pub mod exec_stream;
pub mod executor;
#[cfg(test)]
mod fixture;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod gossip_io;
pub mod host;
pub mod identity;
pub mod key_file;
pub mod log_stream;
pub mod logs;
pub mod machine;
pub mod manager;
pub mod member;
pub mod native;
pub mod node_routes;
pub mod pki;
pub mod places;
pub mod renewal;
pub mod spaces;
pub mod telemetry;
pub mod transport;
pub mod wire;
pub mod worker;

pub use supervise::clock;
