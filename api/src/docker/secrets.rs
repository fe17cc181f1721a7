//! `/secrets` and `/configs`: none exist. The empty lists are needed, because `docker stack rm` and
//! `docker stack deploy` request them.

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::check_manager;
use crate::error::ApiError;
use crate::extract::{Control, Id};

/// `GET /secrets`, `GET /configs`: empty.
pub(crate) async fn list(State(control): Control) -> Result<Json<Vec<Value>>, ApiError> {
    check_manager(control.as_ref())?;
    Ok(Json(Vec::new()))
}

/// `GET /secrets/{id}`: 404.
pub(crate) async fn inspect_secret(State(control): Control, id: Id) -> ApiError {
    absent(check_manager(control.as_ref()), "secret", &id.0)
}

/// `GET /configs/{id}`: 404.
pub(crate) async fn inspect_config(State(control): Control, id: Id) -> ApiError {
    absent(check_manager(control.as_ref()), "config", &id.0)
}

fn absent(manager: Result<(), ApiError>, kind: &str, id: &str) -> ApiError {
    manager.err().unwrap_or_else(|| ApiError::not_found(format!("{kind} {id} not found")))
}
