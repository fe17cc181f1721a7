//! The response to a refused or failed request: Docker's status and `{"message": …}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cluster::rejection::Rejection;
use serde::Serialize;

/// A request that was not served.
///
/// The message is shown to a person by every Docker client: it names the value and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status, 4xx or 5xx.
    pub status: u16,
    /// For a person.
    pub message: String,
}

impl ApiError {
    /// Any status; one outside 400-599 is answered as 500.
    #[must_use]
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// 400: the request is wrong.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// 403: never allowed.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, message)
    }

    /// 404: the named object does not exist.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, message)
    }

    /// 409: it lost a race or a name is taken.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, message)
    }

    /// 500: an unexpected failure.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, message)
    }

    /// 501: Docker has it, Skein does not.
    #[must_use]
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(501, message)
    }

    /// 503: not on this node, or not now.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, message)
    }

    /// Docker's answer to a path or method that it does not have.
    #[must_use]
    pub fn page_not_found() -> Self {
        Self::not_found("page not found")
    }

    /// Docker's answer on a node outside a cluster.
    #[must_use]
    pub fn no_swarm() -> Self {
        Self::unavailable(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" \
             to connect this node to swarm and try again.",
        )
    }

    /// Docker's answer on a worker.
    #[must_use]
    pub fn not_manager() -> Self {
        Self::unavailable(
            "This node is not a swarm manager. Worker nodes can't be used to view or modify \
             cluster state. Please run this command on a manager node or promote the current \
             node to a manager.",
        )
    }

    /// Docker's answer to `init` and `join` on a member.
    #[must_use]
    pub fn already_member() -> Self {
        Self::unavailable(
            "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm \
             and join another one.",
        )
    }

    /// Docker's answer on a manager that is locked.
    #[must_use]
    pub fn locked() -> Self {
        Self::unavailable(
            "Swarm is encrypted and needs to be unlocked before it can be used. Please use \
             \"docker swarm unlock\" to unlock it.",
        )
    }

    /// Docker's answer to `leave` outside a cluster.
    #[must_use]
    pub fn not_member() -> Self {
        Self::unavailable("This node is not part of a swarm")
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        Self::new(rejection.code.http_status(), rejection.message)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status)
            .ok()
            .filter(|status| status.is_client_error() || status.is_server_error())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(Body { message: &self.message })).into_response()
    }
}
