//! `/services`.

pub(crate) mod listing;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use cluster::object::Service;
use cluster::request::{Answer, Request};
use cluster::spec::{ServiceMode, ServiceSpec};
use cluster::time::Revision;
use serde_json::{Value, json};

use self::listing::{Form, Listing};
use super::wire::service::{service, strip_defaults};
use super::{check_manager, cluster_state};
use crate::error::ApiError;
use crate::extract::{Control, Id};
use crate::filters::Filters;
use crate::json_case::SERVICE_SPEC;
use crate::query::{Params, from_value, read_json};

const FILTERS: &[&str] = &["id", "label", "mode", "name", "runtime"];
const MODES: &[&str] = &["replicated", "global", "replicated-job", "global-job"];

/// `GET /services`.
pub(crate) async fn list(
    State(control): Control,
    Extension(listing): Extension<Arc<Listing>>,
    params: Params,
) -> Result<Response, ApiError> {
    let filters = Filters::parse(params.text("filters"), FILTERS)?;
    filters.check_words("mode", MODES)?;
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let state = &snapshot.state;
    let form =
        Form { with_status: params.flag("status"), with_defaults: params.flag("insertDefaults") };
    let list = if filters == Filters::default() {
        listing.all(state, form)?
    } else {
        let found = state.live_services().filter(|found| matches(&filters, found));
        listing.some(state, found, form)?
    };
    Ok(([(CONTENT_TYPE, "application/json")], list).into_response())
}

/// `GET /services/{id}`.
pub(crate) async fn inspect(
    State(control): Control,
    id: Id,
    params: Params,
) -> Result<Response, ApiError> {
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let found = snapshot.state.find_service(&id)?;
    let view = service(found, &snapshot.state.networks, params.flag("insertDefaults"));
    Ok(Json(view).into_response())
}

/// `POST /services/create`.
pub(crate) async fn create(State(control): Control, body: Bytes) -> Result<Response, ApiError> {
    check_manager(control.as_ref())?;
    let spec = new_spec(&body)?;
    let answer = control.request(Request::CreateService { spec: Box::new(spec) }).await?;
    let Answer::Service { id, warnings } = answer else { return Err(strange(&answer)) };
    let body = json!({ "ID": id.to_string(), "Warnings": listed(warnings) });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// The spec of a new service.
pub(crate) fn new_spec(body: &[u8]) -> Result<ServiceSpec, ApiError> {
    from_value(checked(read_json(body, &SERVICE_SPEC)?)?)
}

/// The spec that replaces `present`.
pub(crate) fn changed_spec(body: &[u8], present: &ServiceSpec) -> Result<ServiceSpec, ApiError> {
    let mut value = checked(read_json(body, &SERVICE_SPEC)?)?;
    strip_defaults(&mut value, present);
    from_value(value)
}

/// `POST /services/{id}/update`.
pub(crate) async fn update(
    State(control): Control,
    id: Id,
    params: Params,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let version = Revision(params.version("service")?);
    let found = snapshot.state.find_service(&id)?;
    let id = found.id;
    let request = match params.text("rollback") {
        // A client may send the old spec along; it is not read.
        "previous" => Request::RollbackService { id, version },
        "" | "none" => {
            let spec = Box::new(changed_spec(&body, &found.spec)?);
            Request::UpdateService { id, version, spec }
        }
        other => {
            return Err(ApiError::bad_request(format!(
                "unrecognized rollback option '{other}': give previous"
            )));
        }
    };
    let warnings = match control.request(request).await? {
        Answer::Service { warnings, .. } => warnings,
        Answer::Done | Answer::Network { .. } | Answer::Node { .. } => Vec::new(),
    };
    Ok(Json(json!({ "Warnings": listed(warnings) })))
}

/// `DELETE /services/{id}`.
pub(crate) async fn remove(
    State(control): Control,
    id: Id,
    params: Params,
) -> Result<(), ApiError> {
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let id = snapshot.state.find_service(&id)?.id;
    control.request(Request::RemoveService { id }).await.map(drop)
}

/// Docker answers `null` if there is no warning.
fn listed(warnings: Vec<String>) -> Value {
    if warnings.is_empty() { Value::Null } else { json!(warnings) }
}

fn strange(answer: &Answer) -> ApiError {
    ApiError::internal(format!("the leader answered {answer:?} to the creation of a service"))
}

fn matches(filters: &Filters, service: &Service) -> bool {
    let mode = match &service.spec.mode {
        ServiceMode::Replicated(_) => "replicated",
        ServiceMode::Global(_) => "global",
    };
    filters.prefix("id", &service.id.to_string())
        && filters.prefix("name", &service.spec.name)
        && filters.exact("mode", mode)
        && filters.exact("runtime", "container")
        && filters.labels("label", &service.spec.labels)
}

/// Refuses unsupported fields by name, before the spec is deserialized.
fn checked(mut spec: Value) -> Result<Value, ApiError> {
    if let Some(mode) = spec.get("Mode").and_then(Value::as_object) {
        let given: Vec<&str> = mode.keys().map(String::as_str).collect();
        match given.as_slice() {
            ["Replicated"] | ["Global"] => {}
            // Go's zero value: a client that sends an empty mode means the default.
            [] => drop(spec.as_object_mut().and_then(|spec| spec.remove("Mode"))),
            [other] => {
                return Err(ApiError::not_implemented(format!(
                    "service mode {other} is not supported by Skein: give Replicated or Global"
                )));
            }
            several => {
                return Err(ApiError::bad_request(format!(
                    "must specify only one service mode, not {}",
                    several.join(" and ")
                )));
            }
        }
    }
    let template = &spec["TaskTemplate"];
    if let Some(runtime @ ("plugin" | "attachment")) = template["Runtime"].as_str() {
        return Err(ApiError::not_implemented(format!(
            "runtime {runtime} is not supported by Skein: give container"
        )));
    }
    for (field, name) in [("Secrets", "SecretName"), ("Configs", "ConfigName")] {
        if let Some(first) = template["ContainerSpec"][field].get(0) {
            let kind = field.trim_end_matches('s').to_ascii_lowercase();
            let name = first[name].as_str().unwrap_or_default();
            return Err(ApiError::not_implemented(format!(
                "{kind} {name}: {kind}s are not supported by Skein yet; pass a file by a mount"
            )));
        }
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_skein_has_not_is_refused_by_name() {
        for (spec, status, message) in [
            (
                json!({"Mode": {"ReplicatedJob": {}}}),
                501,
                "service mode ReplicatedJob is not supported by Skein: give Replicated or Global",
            ),
            (
                json!({"Mode": {"Replicated": {}, "Global": {}}}),
                400,
                "must specify only one service mode, not Global and Replicated",
            ),
            (
                json!({"TaskTemplate": {"Runtime": "plugin"}}),
                501,
                "runtime plugin is not supported by Skein: give container",
            ),
            (
                json!({"TaskTemplate": {"ContainerSpec": {"Secrets": [{"SecretName": "s"}]}}}),
                501,
                "secret s: secrets are not supported by Skein yet; pass a file by a mount",
            ),
        ] {
            let error = checked(spec).unwrap_err();
            assert_eq!((error.status, error.message.as_str()), (status, message));
        }
    }

    #[test]
    fn an_empty_mode_is_the_default() {
        let spec: ServiceSpec = from_value(checked(json!({"Mode": {}})).unwrap()).unwrap();
        assert_eq!(spec.mode, ServiceMode::default());
    }
}
