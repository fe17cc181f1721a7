//! `/nodes`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cluster::object::Node;
use cluster::request::Request;
use cluster::spec::NodeSpec;
use cluster::time::Revision;

use super::cluster_state;
use super::wire::cluster_info::TlsInfo;
use super::wire::node::{NodeView, Reachability, node};
use crate::control_plane::Snapshot;
use crate::error::ApiError;
use crate::extract::{Control, Id};
use crate::filters::Filters;
use crate::json_case::NODE_SPEC;
use crate::query::{Params, read_json};

const FILTERS: &[&str] = &["id", "label", "membership", "name", "node.label", "role"];

/// `GET /nodes`.
pub(crate) async fn list(State(control): Control, params: Params) -> Result<Response, ApiError> {
    let filters = Filters::parse(params.text("filters"), FILTERS)?;
    filters.check_words("role", &["worker", "manager"])?;
    filters.check_words("membership", &["accepted", "pending"])?;
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let nodes = snapshot.state.nodes.values().filter(|node| matches(&filters, node));
    let views: Vec<NodeView<'_>> = nodes.map(|node| view(node, &snapshot)).collect();
    Ok(Json(views).into_response())
}

/// `GET /nodes/{id}`.
pub(crate) async fn inspect(
    State(control): Control,
    id: Id,
    params: Params,
) -> Result<Response, ApiError> {
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let found = snapshot.state.find_node(&id)?;
    Ok(Json(view(found, &snapshot)).into_response())
}

/// `POST /nodes/{id}/update`.
pub(crate) async fn update(
    State(control): Control,
    id: Id,
    params: Params,
    body: Bytes,
) -> Result<(), ApiError> {
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let version = Revision(params.version("node")?);
    let spec: NodeSpec = read_json(&body, &NODE_SPEC)?;
    let found = snapshot.state.find_node(&id)?;
    let request = Request::UpdateNode { id: found.id, version, spec: Box::new(spec) };
    control.request(request).await.map(drop)
}

/// `DELETE /nodes/{id}`.
pub(crate) async fn remove(
    State(control): Control,
    id: Id,
    params: Params,
) -> Result<(), ApiError> {
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let found = snapshot.state.find_node(&id)?;
    let request = Request::RemoveNode { id: found.id, force: params.flag("force") };
    control.request(request).await.map(drop)
}

fn view<'a>(found: &'a Node, snapshot: &Snapshot) -> NodeView<'a> {
    let cluster = snapshot.state.cluster.as_deref();
    let tls = cluster.map(|cluster| TlsInfo::of_node(cluster, found)).unwrap_or_default();
    let reachability = Reachability {
        leader: snapshot.leader == Some(found.id),
        reachable: !snapshot.unreachable.contains(&found.id),
    };
    node(found, reachability, tls)
}

fn matches(filters: &Filters, node: &Node) -> bool {
    let name_matches = filters.prefix("name", &node.description.hostname)
        || (!node.spec.name.is_empty() && filters.prefix("name", &node.spec.name));
    filters.prefix("id", &node.id.to_string())
        && name_matches
        && filters.exact("role", node.role().name())
        && filters.exact("membership", "accepted")
        && filters.labels("node.label", &node.spec.labels)
        // Engine labels: a Skein node has none, so naming one matches nothing.
        && filters.values("label").is_none()
}
