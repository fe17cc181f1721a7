//! The part of the Docker Engine API v1.44 that Swarm's clients use.

use crate::control_plane::{ControlPlane, LocalNodeState, Snapshot};
use crate::error::ApiError;
use crate::query::Params;

pub(crate) mod engine;
pub(crate) mod events;
pub(crate) mod logs;
pub(crate) mod networks;
pub(crate) mod nodes;
pub(crate) mod secrets;
pub(crate) mod services;
pub(crate) mod swarm;
pub(crate) mod system;
pub(crate) mod tasks;
pub(crate) mod wire;

/// The replicated state, or Docker's error if this node has none.
pub(crate) async fn cluster_state(
    control: &dyn ControlPlane,
    params: &Params,
) -> Result<Snapshot, ApiError> {
    check_manager(control)?;
    control.state(params.consistency()).await
}

/// Fails unless this node is a working manager.
pub(crate) fn check_manager(control: &dyn ControlPlane) -> Result<(), ApiError> {
    let local = control.local();
    match local.state {
        LocalNodeState::Inactive => Err(ApiError::no_swarm()),
        LocalNodeState::Pending => Err(ApiError::unavailable(
            "This node is joining a swarm. Wait until `docker info` says that it is active.",
        )),
        LocalNodeState::Locked => Err(ApiError::locked()),
        LocalNodeState::Error => Err(ApiError::unavailable(local.error)),
        LocalNodeState::Active if local.control_available => Ok(()),
        LocalNodeState::Active if !local.error.is_empty() => {
            Err(ApiError::unavailable(local.error))
        }
        LocalNodeState::Active => Err(ApiError::not_manager()),
    }
}
