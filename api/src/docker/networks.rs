//! `/networks`. A worker and a node outside a cluster show the networks present on them.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cluster::object::Network;
use cluster::request::{Answer, Request};
use cluster::spec::NetworkSpec;
use cluster::state::State as Replicated;
use cluster::time::Timestamp;
use serde_json::{Value, json};

use super::logs::unix_time;
use super::wire::network::{
    Context, NetworkView, OVERLAY, SWARM_SCOPE, inspected, local_network, network,
};
use super::{check_manager, cluster_state};
use crate::control_plane::LocalNetwork;
use crate::error::ApiError;
use crate::extract::{Control, Id};
use crate::filters::Filters;
use crate::json_case::NETWORK_CREATE;
use crate::query::{Params, duration_ns, from_value, read_json};

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];
const PRUNE_FILTERS: &[&str] = &["label", "label!", "until"];

/// `GET /networks`.
pub(crate) async fn list(State(control): Control, params: Params) -> Result<Response, ApiError> {
    let filters = Filters::parse(params.text("filters"), FILTERS)?;
    filters.check_words("type", &["custom", "builtin"])?;
    filters.check_words("scope", &[SWARM_SCOPE, "local", "global"])?;
    let dangling = filters.flag("dangling")?;
    if !control.local().control_available {
        let views: Vec<NetworkView> = control
            .local()
            .networks
            .iter()
            .filter(|found| local_matches(&filters, found))
            .map(local_network)
            .collect();
        return Ok(Json(views).into_response());
    }
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let views: Vec<NetworkView> = snapshot
        .state
        .live_networks()
        .filter(|found| matches(&filters, found))
        .filter(|found| dangling.is_none_or(|wanted| wanted != in_use(found, &snapshot.state)))
        .map(|found| network(found))
        .collect();
    Ok(Json(views).into_response())
}

/// `GET /networks/{id}`.
pub(crate) async fn inspect(
    State(control): Control,
    id: Id,
    params: Params,
) -> Result<Response, ApiError> {
    if !matches!(params.text("scope"), "" | SWARM_SCOPE) {
        return Err(missing(&id));
    }
    let local = control.local();
    if !local.control_available {
        let found = find_local(&local.networks, &id)?;
        return Ok(Json(local_network(found)).into_response());
    }
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let state = &snapshot.state;
    let found = state.find_network(&id)?;
    let around = Context {
        tasks: state
            .tasks
            .values()
            .filter(|task| task.holds_addresses())
            .filter(|task| task.attachments.iter().any(|a| a.network == found.id))
            .collect(),
        services: state.live_services().filter(|service| uses(service, found)).collect(),
        nodes: state.nodes.values().collect(),
        here: local.node,
        verbose: params.flag("verbose"),
    };
    Ok(Json(inspected(found, &around)).into_response())
}

/// The spec of a new network.
pub(crate) fn new_spec(body: &[u8]) -> Result<NetworkSpec, ApiError> {
    from_value(checked(read_json(body, &NETWORK_CREATE)?)?)
}

/// `POST /networks/create`.
pub(crate) async fn create(State(control): Control, body: Bytes) -> Result<Response, ApiError> {
    let spec = new_spec(&body)?;
    check_manager(control.as_ref())?;
    let answer = control.request(Request::CreateNetwork { spec: Box::new(spec) }).await?;
    let Answer::Network { id, warning } = answer else {
        return Err(ApiError::internal(format!(
            "the leader answered {answer:?} to the creation of a network"
        )));
    };
    let body = json!({ "Id": id.to_string(), "Warning": warning });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// `DELETE /networks/{id}`.
pub(crate) async fn remove(
    State(control): Control,
    id: Id,
    params: Params,
) -> Result<StatusCode, ApiError> {
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let id = snapshot.state.find_network(&id)?.id;
    control.request(Request::RemoveNetwork { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /networks/prune`: removes the networks that no service uses, except ingress.
pub(crate) async fn prune(
    State(control): Control,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let filters = Filters::parse(params.text("filters"), PRUNE_FILTERS)?;
    let until = until(&filters, control.local().now)?;
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let unused = snapshot
        .state
        .live_networks()
        .filter(|found| !found.spec.ingress && !in_use(found, &snapshot.state))
        .filter(|found| filters.labels("label", &found.spec.labels))
        .filter(|found| filters.lacks_labels("label!", &found.spec.labels))
        .filter(|found| until.is_none_or(|until| found.meta.created_at < until));
    let mut deleted = Vec::new();
    for found in unused {
        // One that has come into use since is left, as Docker leaves it.
        match control.request(Request::RemoveNetwork { id: found.id }).await {
            Ok(_) => deleted.push(found.spec.name.clone()),
            Err(error) if error.status < 500 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Json(json!({ "NetworksDeleted": deleted })))
}

/// The filter `until`: a Unix time, or a duration before now.
fn until(filters: &Filters, now: Timestamp) -> Result<Option<Timestamp>, ApiError> {
    let Some(values) = filters.values("until") else { return Ok(None) };
    let [text] = values.iter().collect::<Vec<_>>()[..] else {
        return Err(ApiError::bad_request("more than one until filter specified"));
    };
    if let Some(ago) = duration_ns(text) {
        return Ok(Some(Timestamp(now.0.saturating_sub(ago / 1_000_000))));
    }
    let moment = unix_time(text).map_err(|error| {
        ApiError::bad_request(format!(
            "invalid until '{text}': {error}; give a Unix timestamp or a time like 24h"
        ))
    })?;
    // Zero is a moment here, the beginning: nothing is older.
    Ok(Some(moment.unwrap_or_default()))
}

fn missing(id: &str) -> ApiError {
    ApiError::not_found(format!("network {id} not found"))
}

fn find_local<'a>(
    networks: &'a [LocalNetwork],
    wanted: &str,
) -> Result<&'a LocalNetwork, ApiError> {
    let by_name = networks.iter().find(|n| n.name == wanted || n.id.to_string() == wanted);
    let by_prefix = || {
        let mut matches = networks.iter().filter(|n| n.id.to_string().starts_with(wanted));
        matches.next().filter(|_| matches.next().is_none())
    };
    by_name.or_else(by_prefix).ok_or_else(|| missing(wanted))
}

fn uses(service: &cluster::object::Service, network: &Network) -> bool {
    let id = network.id.to_string();
    service.vips.contains_key(&network.id)
        || service.spec.network_targets().iter().any(|target| target.target == id)
}

fn in_use(network: &Network, state: &Replicated) -> bool {
    state.live_services().any(|service| uses(service, network))
}

fn matches(filters: &Filters, network: &Network) -> bool {
    let spec = &network.spec;
    filters.prefix("id", &network.id.to_string())
        && filters.prefix("name", &spec.name)
        && filters.exact("driver", if spec.driver.is_empty() { OVERLAY } else { &spec.driver })
        && filters.exact("scope", SWARM_SCOPE)
        // Docker counts the ingress network, too, as one that somebody made.
        && filters.exact("type", "custom")
        && filters.labels("label", &spec.labels)
}

fn local_matches(filters: &Filters, network: &LocalNetwork) -> bool {
    filters.prefix("id", &network.id.to_string())
        && filters.prefix("name", &network.name)
        && filters.exact("driver", OVERLAY)
        && filters.exact("scope", SWARM_SCOPE)
        && filters.exact("type", "custom")
        && filters.values("label").is_none()
}

/// Docker's drivers for networks on a single machine.
const LOCAL_DRIVERS: &[&str] = &["bridge", "host", "ipvlan", "macvlan", "none", "null"];

/// Refuses unsupported fields, and removes fields that are not part of a spec.
fn checked(mut body: Value) -> Result<Value, ApiError> {
    let Some(map) = body.as_object_mut() else {
        return Err(ApiError::bad_request("invalid JSON: a network must be an object"));
    };
    let text = |value: Option<Value>| value.and_then(|v| v.as_str().map(str::to_owned));
    let flag = |value: Option<Value>| value.and_then(|v| v.as_bool()).unwrap_or(false);
    if flag(map.remove("ConfigOnly"))
        || map.remove("ConfigFrom").is_some_and(|v| v["Network"] != "" && v != json!({}))
    {
        return Err(ApiError::not_implemented(
            "config-only networks are not supported by Skein: give the settings directly",
        ));
    }
    // No driver means the daemon's default, and an unknown one is refused by the cluster.
    let driver = text(map.get("Driver").cloned()).unwrap_or_default();
    if LOCAL_DRIVERS.contains(&driver.as_str()) {
        return Err(ApiError::not_implemented(format!(
            "network driver {driver} is not supported by Skein: give --driver overlay"
        )));
    }
    if let Some(scope) = text(map.remove("Scope")).filter(|s| !s.is_empty() && s != SWARM_SCOPE) {
        return Err(ApiError::bad_request(format!(
            "scope {scope} is not supported for an overlay network: give swarm"
        )));
    }
    map.remove("CheckDuplicate");
    map.remove("EnableIPv4");
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_skein_has_not_is_refused_by_name() {
        for (body, status, message) in [
            (
                json!({"Name": "a", "Driver": "bridge"}),
                501,
                "network driver bridge is not supported by Skein: give --driver overlay",
            ),
            (
                json!({"Name": "a", "Driver": "overlay", "Scope": "local"}),
                400,
                "scope local is not supported for an overlay network: give swarm",
            ),
            (
                json!({"Name": "a", "ConfigOnly": true}),
                501,
                "config-only networks are not supported by Skein: give the settings directly",
            ),
        ] {
            let error = checked(body).unwrap_err();
            assert_eq!((error.status, error.message.as_str()), (status, message));
        }
    }

    #[test]
    fn what_is_no_part_of_a_spec_is_taken_off() {
        let body = json!({
            "Name": "a", "CheckDuplicate": true, "Scope": "", "ConfigOnly": false,
            "ConfigFrom": {"Network": ""}, "EnableIPv4": true,
        });
        assert_eq!(checked(body).unwrap(), json!({ "Name": "a" }));
    }
}
