//! Routes, and the headers of every answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use tower::ServiceExt;

use crate::control_plane::{ControlPlane, Local, LocalNodeState};
use crate::docker::services::listing::Listing;
use crate::docker::{
    engine, events, logs, networks, nodes, secrets, services, swarm, system, tasks,
};
use crate::error::ApiError;
use crate::native;
use crate::query::read_bytes;
use crate::version::{API_VERSION, without_version};

/// The complete HTTP API of a daemon.
pub fn router(control: Arc<dyn ControlPlane>) -> Router {
    let inner = Router::new()
        .merge(cluster_routes())
        .merge(system_routes())
        .merge(native_routes())
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        // `read_bytes` enforces the limit.
        .layer(DefaultBodyLimit::disable())
        .layer(Extension(Arc::<Listing>::default()))
        .with_state(Arc::clone(&control));
    Router::new().fallback(enter).with_state(Entrance { control, inner })
}

fn cluster_routes() -> Router<Arc<dyn ControlPlane>> {
    Router::new()
        .route("/swarm", get(swarm::inspect))
        .route("/swarm/init", post(swarm::init))
        .route("/swarm/join", post(swarm::join))
        .route("/swarm/leave", post(swarm::leave))
        .route("/swarm/update", post(swarm::update))
        .route("/swarm/unlockkey", get(swarm::unlock_key))
        .route("/swarm/unlock", post(swarm::unlock))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{id}", get(nodes::inspect).delete(nodes::remove))
        .route("/nodes/{id}/update", post(nodes::update))
        .route("/networks", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/prune", post(networks::prune))
        .route("/networks/{id}", get(networks::inspect).delete(networks::remove))
        .route("/services", get(services::list))
        .route("/services/create", post(services::create))
        .route("/services/{id}", get(services::inspect).delete(services::remove))
        .route("/services/{id}/update", post(services::update))
        .route("/services/{id}/logs", get(logs::service))
        .route("/tasks", get(tasks::list))
        .route("/tasks/{id}", get(tasks::inspect))
        .route("/tasks/{id}/logs", get(logs::task))
        .route("/secrets", get(secrets::list))
        .route("/secrets/{id}", get(secrets::inspect_secret))
        .route("/configs", get(secrets::list))
        .route("/configs/{id}", get(secrets::inspect_config))
}

fn system_routes() -> Router<Arc<dyn ControlPlane>> {
    Router::new()
        .route("/_ping", get(system::ping).head(system::ping_head))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/events", get(events::stream))
        .route("/distribution/{*path}", get(system::distribution))
        .route("/system/df", get(engine::disk_usage))
        .route("/containers/json", get(engine::none))
        .route("/containers/{id}/json", get(engine::container))
        .route("/images/json", get(engine::none))
        .route("/images/{*path}", get(engine::image))
        .route("/plugins", get(engine::none))
        .route("/plugins/{*path}", get(engine::plugin))
        .route("/volumes", get(engine::volumes))
        .route("/volumes/{id}", get(engine::volume))
        .route("/metrics", get(system::metrics))
        .route("/healthz", get(system::healthz))
        .route("/readyz", get(system::readyz))
}

fn native_routes() -> Router<Arc<dyn ControlPlane>> {
    Router::new()
        .route("/skein/v1/openapi.json", get(native::openapi))
        .route("/skein/v1/debug/{topic}", get(native::debug))
        .route("/skein/v1/backup", get(native::backup))
        .route("/skein/v1/restore", post(native::restore))
        .route("/skein/v1/tasks/{id}/exec", post(native::exec::exec))
        .route("/skein/v1/{topic}", get(native::resource))
}

#[derive(Clone)]
struct Entrance {
    control: Arc<dyn ControlPlane>,
    inner: Router,
}

/// Removes the version from the path, then routes. This cannot be an axum layer, because layers run
/// after routing. The body is always read first: after a response to an unread body the connection
/// is closed, and a client that still writes would see a broken pipe instead of the response.
async fn enter(State(entrance): State<Entrance>, request: Request) -> Response {
    let local = entrance.control.local();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answered = match prepared(request).await {
        Ok(request) => match entrance.inner.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Err(error) => error.into_response(),
    };
    tracing::debug!(%method, path, status = answered.status().as_u16(), "answered a request");
    with_headers(answered, &local)
}

async fn prepared(request: Request) -> Result<Request, ApiError> {
    let (mut parts, body) = request.into_parts();
    let bytes = read_bytes(body).await?;
    parts.uri = without_version(&parts.uri)?;
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

fn with_headers(mut response: Response, local: &Local) -> Response {
    let headers = response.headers_mut();
    set(headers, "api-version", API_VERSION);
    set(headers, "docker-experimental", "false");
    set(headers, "ostype", "linux");
    set(headers, "server", &format!("Skein/{} (linux)", local.version));
    set(headers, "swarm", swarm_header(local));
    response
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

fn swarm_header(local: &Local) -> &'static str {
    match local.state {
        LocalNodeState::Active if local.control_available => "active/manager",
        LocalNodeState::Active => "active/worker",
        LocalNodeState::Inactive
        | LocalNodeState::Pending
        | LocalNodeState::Error
        | LocalNodeState::Locked => local.state.name(),
    }
}

/// First path segments of Docker's API that Skein does not serve.
const DOCKER_ONLY: &[(&str, &str)] = &[
    ("auth", "registry login"),
    ("build", "builds"),
    ("commit", "images"),
    ("configs", "configs"),
    ("containers", "containers"),
    ("exec", "containers"),
    ("grpc", "builds"),
    ("images", "images"),
    ("networks", "connecting containers to networks"),
    ("plugins", "plugins"),
    ("secrets", "secrets"),
    ("session", "builds"),
    ("system", "disk usage"),
    ("volumes", "volumes"),
];

async fn unknown(request: Request) -> ApiError {
    let path = request.uri().path();
    let first = path.split('/').nth(1).unwrap_or_default();
    match DOCKER_ONLY.iter().find(|(segment, _)| *segment == first) {
        Some((_, thing)) => not_served(request.method().as_str(), path, thing),
        None => ApiError::page_not_found(),
    }
}

fn not_served(method: &str, path: &str, thing: &str) -> ApiError {
    ApiError::not_implemented(format!(
        "{method} {path}: Skein does not manage {thing}; it runs services, see `docker service`"
    ))
}
