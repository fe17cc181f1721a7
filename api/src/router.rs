//! Routes, the version prefix, and the headers that every answer carries.

use std::ops::Deref;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
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

/// The API version that is spoken.
pub const API_VERSION: &str = "1.44";
/// The oldest API version that is understood.
pub const API_VERSION_MIN: &str = "1.24";

const MINOR_MAX: u32 = 44;
const MINOR_MIN: u32 = 24;

/// What handlers get.
pub(crate) type Plane = State<Arc<dyn ControlPlane>>;

/// The whole HTTP API over a daemon.
pub fn router(plane: Arc<dyn ControlPlane>) -> Router {
    let inner = Router::new()
        .merge(cluster_routes())
        .merge(system_routes())
        .merge(native_routes())
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        // The limit is kept where the body is read.
        .layer(DefaultBodyLimit::disable())
        .layer(Extension(Arc::<Listing>::default()))
        .with_state(Arc::clone(&plane));
    Router::new().fallback(enter).with_state(Entrance { plane, inner })
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
        .route("/skein/v1/{topic}", get(native::resource))
}

#[derive(Clone)]
struct Entrance {
    plane: Arc<dyn ControlPlane>,
    inner: Router,
}

/// Takes the version off the path, then routes: axum's layers run after routing, so this cannot
/// be one of them. The body is read first whatever becomes of the request, because a connection
/// is closed after an answer to a body that was not read, and the client that still writes it
/// would see a broken pipe and not the answer.
async fn enter(State(entrance): State<Entrance>, request: Request) -> Response {
    let local = entrance.plane.local();
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

pub(crate) fn without_version(uri: &Uri) -> Result<Uri, ApiError> {
    let Some(text) = uri.path_and_query().map(|both| both.as_str()) else {
        return Ok(uri.clone());
    };
    let Some((version, rest)) = text.strip_prefix("/v").and_then(split_version) else {
        return Ok(uri.clone());
    };
    let (major, minor) = version;
    if (major, minor) > (1, MINOR_MAX) {
        return Err(ApiError::bad_request(format!(
            "client version {major}.{minor} is too new. Maximum supported API version is \
             {API_VERSION}"
        )));
    }
    if (major, minor) < (1, MINOR_MIN) {
        return Err(ApiError::bad_request(format!(
            "client version {major}.{minor} is too old. Minimum supported API version is \
             {API_VERSION_MIN}, please upgrade your client to a newer version"
        )));
    }
    let rest = if rest.is_empty() { "/" } else { rest };
    rest.parse().map_err(|error| ApiError::bad_request(format!("bad request path {rest}: {error}")))
}

/// `1.44/nodes?x` → ((1, 44), `/nodes?x`); `None` for a path that only looks like it.
fn split_version(text: &str) -> Option<((u32, u32), &str)> {
    let end = text.find(['/', '?']).unwrap_or(text.len());
    let (version, rest) = text.split_at(end);
    let (major, minor) = version.split_once('.')?;
    Some(((major.parse().ok()?, minor.parse().ok()?), rest))
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

/// The decoded `{id}` of a path.
pub(crate) struct Id(pub String);

impl Deref for Id {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(error) => Err(ApiError::bad_request(error.body_text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_prefix_is_taken_off() {
        for (given, expected) in [
            ("/v1.44/nodes?a=b", Ok("/nodes?a=b")),
            ("/v1.24/_ping", Ok("/_ping")),
            ("/nodes", Ok("/nodes")),
            ("/volumes", Ok("/volumes")),
            ("/version", Ok("/version")),
            ("/v1.44", Ok("/")),
            (
                "/v1.45/nodes",
                Err("client version 1.45 is too new. Maximum supported API version is 1.44"),
            ),
            (
                "/v1.23/nodes",
                Err("client version 1.23 is too old. Minimum supported API version is 1.24, \
                     please upgrade your client to a newer version"),
            ),
        ] {
            let uri: Uri = given.parse().unwrap();
            let got = without_version(&uri).map(|uri| uri.to_string()).map_err(|e| e.message);
            assert_eq!(got, expected.map(str::to_owned).map_err(str::to_owned), "{given}");
        }
    }
}
