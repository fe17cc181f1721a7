//! What every node answers on its gossip port: gossip streams, and managers' questions about
//! this node (logs of its tasks, programs in them, its data plane).

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::StreamExt;

use crate::exec_stream;
use crate::log_stream::{self, LogCall};
use crate::native::own::{self, NativeCall, NodeServices};
use crate::wire;

/// The largest body of a call: an exchange of gossip (gossip/src/codec.rs), with some room.
const CALL_BYTES_MAX: usize = 17 << 20;

/// All routes of a node's gossip port; who may call them is in `transport::access`.
pub fn router(services: NodeServices) -> Router {
    Router::new()
        .route("/gossip/sync", post(sync))
        .route("/node/logs", post(logs))
        .route("/node/exec", post(exec))
        .route("/node/native", post(native_route))
        .layer(DefaultBodyLimit::max(CALL_BYTES_MAX))
        .with_state(services)
}

async fn sync(State(services): State<NodeServices>, body: Bytes) -> Result<Bytes, StatusCode> {
    services.gossip.exchange(body).await.ok_or(StatusCode::SERVICE_UNAVAILABLE)
}

async fn logs(
    State(services): State<NodeServices>,
    body: Bytes,
) -> Result<Response, (StatusCode, String)> {
    let call: LogCall =
        wire::decode(&body).map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))?;
    let lines = log_stream::read(&services.worker, call);
    Ok(Body::from_stream(lines.map(Ok::<_, std::convert::Infallible>)).into_response())
}

async fn exec(
    State(services): State<NodeServices>,
    body: Body,
) -> Result<Body, (StatusCode, String)> {
    exec_stream::serve(&services.worker, body).await
}

async fn native_route(
    State(services): State<NodeServices>,
    body: Bytes,
) -> Result<Response, (StatusCode, String)> {
    let call: NativeCall =
        wire::decode(&body).map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))?;
    let answer = own::answer(&services, &call).await;
    let answer = answer.map_err(|reason| (StatusCode::BAD_REQUEST, reason))?;
    match wire::encode(&answer) {
        Ok(bytes) => Ok(bytes.into_response()),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}
