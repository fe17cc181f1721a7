//! Skein's own resources under `/skein/v1/`, answered by the daemon.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;

use crate::control_plane::{
    ControlPlane, NativeAnswer, NativeRequest, NativeTopic, RestoreRequest,
};
use crate::error::ApiError;
use crate::extract::{Control, Id};
use crate::query::Params;

pub(crate) mod exec;
mod openapi;

/// `GET /skein/v1/{topic}`.
pub(crate) async fn resource(
    State(control): Control,
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
        "why" => NativeTopic::Why,
        _ => return Err(ApiError::page_not_found()),
    };
    ask(control, topic, params).await
}

/// `GET /skein/v1/debug/{topic}`.
pub(crate) async fn debug(
    State(control): Control,
    topic: Id,
    params: Params,
) -> Result<Response, ApiError> {
    ask(control, NativeTopic::Debug(topic.0), params).await
}

/// `GET /skein/v1/backup`.
pub(crate) async fn backup(State(control): Control) -> Result<Response, ApiError> {
    let body = Body::from_stream(control.backup().await?);
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

/// Fields of `POST /skein/v1/restore`; empty means absent.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub(crate) struct RestoreBody {
    path: String,
    listen_addr: String,
    advertise_addr: String,
    data_path_addr: String,
}

/// `POST /skein/v1/restore`: returns the node's id like `POST /swarm/init`.
pub(crate) async fn restore(
    State(control): Control,
    body: Bytes,
) -> Result<Json<String>, ApiError> {
    let body: RestoreBody =
        serde_json::from_slice(&body).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let given = |text: String| (!text.is_empty()).then_some(text);
    let node = control.restore(RestoreRequest {
        path: body.path,
        listen_addr: given(body.listen_addr),
        advertise_addr: given(body.advertise_addr),
        data_path_addr: given(body.data_path_addr),
    });
    Ok(Json(node.await?.to_string()))
}

/// `GET /skein/v1/openapi.json`.
pub(crate) async fn openapi() -> Json<Value> {
    Json(openapi::document())
}

async fn ask(
    control: Arc<dyn ControlPlane>,
    topic: NativeTopic,
    params: Params,
) -> Result<Response, ApiError> {
    let request = NativeRequest { topic, query: params.into_map() };
    Ok(match control.native(request).await? {
        NativeAnswer::Json(value) => Json(value).into_response(),
        NativeAnswer::Text(text) => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
        }
    })
}
