//! The HTTP API of Skein: the part of the Docker Engine API v1.44 that Swarm clients use, and
//! Skein's own resources under `/skein/v1/`.
//!
//! [`router`] serves a [`ControlPlane`]. This crate translates Docker's JSON into requests of the
//! cluster, and objects of the cluster into Docker's JSON. It makes no decisions about the cluster
//! and does not know Raft. Between requests it only caches unchanged rows of lists.

mod control_plane;
mod docker;
mod error;
mod extract;
mod filters;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod json_case;
mod native;
mod query;
mod router;
mod version;

pub use crate::control_plane::{
    Consistency, ControlPlane, ExecSession, InitRequest, JoinRequest, Local, LocalNetwork,
    LocalNodeState, LogRecord, LogRequest, LogSelector, LogStream, NativeAnswer, NativeRequest,
    NativeTopic, RemoteManager, RequestedCa, RestoreRequest, Snapshot, UpdateClusterRequest,
};
pub use crate::error::ApiError;
pub use crate::filters::FILTER_VALUES_MAX;
pub use crate::native::exec::EXEC_PROTOCOL;
pub use crate::query::{BODY_BYTES_MAX, duration_ns};
pub use crate::router::router;
pub use crate::version::{API_VERSION, API_VERSION_MIN};
