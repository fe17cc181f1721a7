//! `/tasks`.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cluster::id::{NodeId, ServiceId};
use cluster::object::Task;
use cluster::spec::Labels;
use cluster::time::Timestamp;

use super::cluster_state;
use super::wire::task::{TaskView, task};
use crate::error::ApiError;
use crate::extract::{Control, Id};
use crate::filters::Filters;
use crate::query::Params;

const FILTERS: &[&str] =
    &["_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service"];

const STATES: &[&str] = &[
    "new",
    "allocated",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
    "complete",
    "shutdown",
    "failed",
    "rejected",
    "remove",
    "orphaned",
];

/// `GET /tasks`.
pub(crate) async fn list(State(control): Control, params: Params) -> Result<Response, ApiError> {
    let filters = Filters::parse(params.text("filters"), FILTERS)?;
    filters.check_words("desired-state", STATES)?;
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let state = &snapshot.state;
    let now = control.local().now;
    let wanted = Wanted::resolve(filters, state, now)?;
    let views: Vec<TaskView<'_>> = state
        .tasks
        .values()
        .filter(|found| wanted.matches(found, state))
        .map(|found| task(found, now, &state.networks))
        .collect();
    Ok(Json(views).into_response())
}

/// `GET /tasks/{id}`.
pub(crate) async fn inspect(
    State(control): Control,
    id: Id,
    params: Params,
) -> Result<Response, ApiError> {
    let snapshot = cluster_state(control.as_ref(), &params).await?;
    let state = &snapshot.state;
    let found = state.find_task(&id)?;
    Ok(Json(task(found, control.local().now, &state.networks)).into_response())
}

/// A task filter whose services and nodes are resolved to ids.
struct Wanted {
    filters: Filters,
    services: Option<BTreeSet<ServiceId>>,
    nodes: Option<BTreeSet<NodeId>>,
    up_to_date: Option<bool>,
    now: Timestamp,
}

impl Wanted {
    /// A service or node that does not exist is 404, as in Docker.
    fn resolve(filters: Filters, state: &cluster::State, now: Timestamp) -> Result<Self, ApiError> {
        let services = filters
            .values("service")
            .map(|names| names.iter().map(|n| Ok(state.find_service(n)?.id)).collect())
            .transpose()
            .map_err(|e: ApiError| e)?;
        let nodes = filters
            .values("node")
            .map(|names| names.iter().map(|n| Ok(state.find_node(n)?.id)).collect())
            .transpose()
            .map_err(|e: ApiError| e)?;
        let up_to_date = filters.flag("_up-to-date")?;
        Ok(Self { filters, services, nodes, up_to_date, now })
    }

    fn matches(&self, task: &Task, state: &cluster::State) -> bool {
        let service = state.services.get(&task.service);
        // A task is out of date when its service has a newer spec, or is gone.
        let current = service.is_some_and(|s| !s.removed && task.spec_version == s.spec_version);
        let labels = |labels: &Labels| self.filters.labels("label", labels);
        self.filters.prefix("id", &task.id.to_string())
            && self.filters.prefix("name", &task.name())
            && self.filters.exact("desired-state", task.shown_desired(self.now).name())
            && self.filters.exact("runtime", "container")
            && labels(&task.service_labels)
            && self.services.as_ref().is_none_or(|wanted| wanted.contains(&task.service))
            && self
                .nodes
                .as_ref()
                .is_none_or(|wanted| task.node.is_some_and(|node| wanted.contains(&node)))
            && self.up_to_date.is_none_or(|wanted| wanted == current)
    }
}
