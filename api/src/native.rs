//! Skein's own resources under `/skein/v1/`, passed to the daemon.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::control_plane::{ControlPlane, NativeAnswer, NativeRequest, NativeTopic};
use crate::error::ApiError;
use crate::query::Params;
use crate::router::{Id, Plane};

mod openapi;

/// `GET /skein/v1/{topic}`.
pub(crate) async fn resource(
    State(plane): Plane,
    topic: Id,
    params: Params,
) -> Result<Response, ApiError> {
    let topic = match &*topic {
        "explain" => NativeTopic::Explain,
        "plan" => NativeTopic::Plan,
        "topology" => NativeTopic::Topology,
        "gossip" => NativeTopic::Gossip,
        "dataplane" => NativeTopic::Dataplane,
        "receipts" => NativeTopic::Receipts,
        _ => return Err(ApiError::page_not_found()),
    };
    ask(plane, topic, params).await
}

/// `GET /skein/v1/debug/{topic}`.
pub(crate) async fn debug(
    State(plane): Plane,
    topic: Id,
    params: Params,
) -> Result<Response, ApiError> {
    ask(plane, NativeTopic::Debug(topic.0), params).await
}

/// `GET /skein/v1/openapi.json`.
pub(crate) async fn openapi() -> Json<Value> {
    Json(openapi::document())
}

async fn ask(
    plane: Arc<dyn ControlPlane>,
    topic: NativeTopic,
    params: Params,
) -> Result<Response, ApiError> {
    let request = NativeRequest { topic, query: params.into_map() };
    Ok(match plane.native(request).await? {
        NativeAnswer::Json(value) => Json(value).into_response(),
        NativeAnswer::Text(text) => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
        }
    })
}
