//! `/_ping`, `/version`, `/info`, `/distribution`, and the daemon's own health and metrics.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::wire::info;
use crate::control_plane::{Consistency, ControlPlane, LocalNodeState};
use crate::error::ApiError;
use crate::extract::{Control, Id};
use crate::query::Params;

const NOT_CACHED: [(header::HeaderName, &str); 3] = [
    (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
    (header::PRAGMA, "no-cache"),
    (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
];

/// `GET /_ping`.
pub(crate) async fn ping() -> Response {
    (NOT_CACHED, "OK").into_response()
}

/// `HEAD /_ping`.
pub(crate) async fn ping_head() -> Response {
    (NOT_CACHED, [(header::CONTENT_LENGTH, "0")]).into_response()
}

/// `GET /version`.
pub(crate) async fn version(State(control): Control) -> Json<Value> {
    Json(info::version(&control.local()))
}

/// `GET /info`, which always answers: without a quorum it omits what the managers know
/// and gives the reason in `Swarm.Error`.
pub(crate) async fn info(State(control): Control) -> Json<Value> {
    let mut local = control.local();
    let snapshot = if local.state == LocalNodeState::Active && local.control_available {
        match control.state(Consistency::Linearizable).await {
            Ok(snapshot) => Some(snapshot),
            Err(error) => {
                local.error = error.message;
                control.state(Consistency::Stale).await.ok()
            }
        }
    } else {
        None
    };
    Json(info::info(&local, snapshot.as_ref()))
}

/// `GET /distribution/{name}/json`: an empty descriptor keeps the image as the user wrote it.
/// A real digest would turn `host:latest` into `host:latest@sha256:…`.
pub(crate) async fn distribution(path: Id) -> Result<Json<Value>, ApiError> {
    if !path.0.ends_with("/json") {
        return Err(ApiError::page_not_found());
    }
    Ok(Json(json!({
        "Descriptor": { "mediaType": "", "digest": "", "size": 0 },
        "Platforms": [],
    })))
}

/// `GET /metrics`: Prometheus' text format.
pub(crate) async fn metrics(State(control): Control) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, control.metrics()).into_response()
}

/// `GET /healthz`: the process answers.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: 200 if requests would be served, otherwise 503 and the reason.
pub(crate) async fn readyz(State(control): Control, params: Params) -> Response {
    match readiness(control.as_ref(), &params).await {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// A node outside a cluster, and a worker, serve what they have; a manager needs a quorum.
async fn readiness(control: &dyn ControlPlane, params: &Params) -> Result<(), String> {
    let local = control.local();
    match local.state {
        LocalNodeState::Inactive => Ok(()),
        LocalNodeState::Active if !local.control_available => Ok(()),
        LocalNodeState::Active => {
            control.state(params.consistency()).await.map(drop).map_err(|error| error.message)
        }
        LocalNodeState::Pending | LocalNodeState::Locked => {
            Err(format!("node is {}", local.state.name()))
        }
        LocalNodeState::Error => Err(format!("node is in error: {}", local.error)),
    }
}
