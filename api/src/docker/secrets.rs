//! `/secrets` and `/configs`: none exist, and lists must say so, because `docker stack rm` and
//! `docker stack deploy` ask for them.

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::check_manager;
use crate::error::ApiError;
use crate::router::{Id, Plane};

/// `GET /secrets`, `GET /configs`: empty.
pub(crate) async fn list(State(plane): Plane) -> Result<Json<Vec<Value>>, ApiError> {
    check_manager(plane.as_ref())?;
    Ok(Json(Vec::new()))
}

/// `GET /secrets/{id}`: 404.
pub(crate) async fn inspect_secret(State(plane): Plane, id: Id) -> ApiError {
    absent(check_manager(plane.as_ref()), "secret", &id.0)
}

/// `GET /configs/{id}`: 404.
pub(crate) async fn inspect_config(State(plane): Plane, id: Id) -> ApiError {
    absent(check_manager(plane.as_ref()), "config", &id.0)
}

fn absent(manager: Result<(), ApiError>, kind: &str, id: &str) -> ApiError {
    manager.err().unwrap_or_else(|| ApiError::not_found(format!("{kind} {id} not found")))
}
