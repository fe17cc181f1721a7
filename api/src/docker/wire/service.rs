//! `Service` of the Engine API.

use std::sync::Arc;

use cluster::id::NetworkId;
use cluster::net::{Addresses, Subnets};
use cluster::object::{
    Network, PublishedPort, Service, Task, TaskState, UpdateState, UpdateStatus,
};
use cluster::spec::{EndpointSpec, PortConfig, ServiceMode, ServiceSpec};
use cluster::state::Table;
use serde::Serialize;
use serde_json::{Value, json};

use super::network::within;
use super::{Version, rfc3339};

/// `GET /services/{id}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceView<'a> {
    #[serde(rename = "ID")]
    id: String,
    version: Version,
    created_at: String,
    updated_at: String,
    spec: Spec<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_spec: Option<&'a ServiceSpec>,
    endpoint: Endpoint<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_status: Option<Update<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Spec<'a> {
    Stored(&'a ServiceSpec),
    WithDefaults(Value),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint<'a> {
    spec: &'a EndpointSpec,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<PortConfig>,
    #[serde(rename = "VirtualIPs", skip_serializing_if = "Vec::is_empty")]
    virtual_ips: Vec<VirtualIp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct VirtualIp {
    #[serde(rename = "NetworkID")]
    network_id: String,
    addr: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Update<'a> {
    state: &'static str,
    started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    message: &'a str,
}

/// `ServiceStatus`: what `docker service ls` prints as replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Counts {
    running_tasks: u64,
    desired_tasks: u64,
    completed_tasks: u64,
}

/// Counts a service's tasks as swarmkit's `ListServiceStatuses` does.
pub(crate) fn counts<'a>(service: &Service, tasks: impl Iterator<Item = &'a Arc<Task>>) -> Counts {
    let mut running_tasks = 0;
    let mut wanted = 0;
    for task in tasks {
        running_tasks += u64::from(task.status.state == TaskState::Running);
        wanted += u64::from(task.desired <= TaskState::Running);
    }
    let desired_tasks = match &service.spec.mode {
        ServiceMode::Replicated(replicated) => replicated.replicas.unwrap_or(1),
        ServiceMode::Global(_) => wanted,
    };
    Counts { running_tasks, desired_tasks, completed_tasks: 0 }
}

/// Of the networks of a service's virtual addresses; `None` for one that is gone.
pub(crate) fn subnets(
    service: &Service,
    networks: &Table<NetworkId, Network>,
) -> Vec<Option<Subnets>> {
    let of = |id| networks.get(id).map(|network| network.subnets);
    service.vips.keys().map(of).collect()
}

/// Renders a service without its status. `networks` gives the prefix lengths of its virtual
/// addresses: the object and [`subnets`] are all that is shown.
pub(crate) fn service<'a>(
    service: &'a Service,
    networks: &Table<NetworkId, Network>,
    insert_defaults: bool,
) -> ServiceView<'a> {
    let spec = if insert_defaults {
        let mut spec = serde_json::to_value(&service.spec).unwrap_or_default();
        fill_absent(&mut spec, &defaults());
        Spec::WithDefaults(spec)
    } else {
        Spec::Stored(&service.spec)
    };
    let virtual_ip = |((network, addresses), of): ((&NetworkId, &Addresses), Option<Subnets>)| {
        let network_id = network.to_string();
        addresses.iter().map(move |address| VirtualIp {
            network_id: network_id.clone(),
            addr: within(address, of.as_ref()),
        })
    };
    let virtual_ips = service.vips.iter().zip(subnets(service, networks));
    ServiceView {
        id: service.id.to_string(),
        version: service.meta.into(),
        created_at: rfc3339(service.meta.created_at),
        updated_at: rfc3339(service.meta.updated_at),
        spec,
        previous_spec: service.previous_spec.as_deref(),
        endpoint: Endpoint {
            spec: &service.spec.endpoint_spec,
            ports: service.ports.iter().map(port).collect(),
            virtual_ips: virtual_ips.flat_map(virtual_ip).collect(),
        },
        update_status: service.update_status.as_ref().map(update),
    }
}

/// A decided port in the shape of a spec's.
pub(crate) fn port(port: &PublishedPort) -> PortConfig {
    PortConfig {
        name: port.name.clone(),
        protocol: port.protocol,
        target_port: port.target,
        published_port: port.published,
        publish_mode: port.mode,
        host_ip: port.address.map(|address| address.to_string()).unwrap_or_default(),
        ..PortConfig::default()
    }
}

fn update(status: &UpdateStatus) -> Update<'_> {
    Update {
        state: update_state(status.state),
        started_at: rfc3339(status.started_at),
        completed_at: status.completed_at.map(rfc3339),
        message: &status.message,
    }
}

/// Docker's word.
pub(crate) fn update_state(state: UpdateState) -> &'static str {
    match state {
        UpdateState::Updating => "updating",
        UpdateState::Paused => "paused",
        UpdateState::Completed => "completed",
        UpdateState::RollbackStarted => "rollback_started",
        UpdateState::RollbackPaused => "rollback_paused",
        UpdateState::RollbackCompleted => "rollback_completed",
    }
}

/// Takes off a spec that a client writes the defaults that it was shown and that are not stored:
/// docker-py reads with defaults, changes a field and writes all of it back, and a task must not
/// be replaced because its spec now says what it meant before.
pub(crate) fn strip_defaults(written: &mut Value, stored: &ServiceSpec) {
    let stored = serde_json::to_value(stored).unwrap_or_default();
    let mut shown = stored.clone();
    fill_absent(&mut shown, &defaults());
    strip(written, &stored, &shown);
}

fn strip(written: &mut Value, stored: &Value, shown: &Value) {
    let (Value::Object(map), Value::Object(shown)) = (written, shown) else { return };
    for (key, shown) in shown {
        match (stored.get(key), map.get_mut(key)) {
            (Some(stored), Some(written)) => strip(written, stored, shown),
            (None, Some(written)) if written == shown => drop(map.remove(key)),
            (_, _) => {}
        }
    }
}

/// Docker's defaults for what the client left out (swarmkit `defaults.Service`, as
/// `docker service inspect` shows them).
fn defaults() -> Value {
    let update = json!({
        "Parallelism": 1,
        "FailureAction": "pause",
        "Monitor": 5_000_000_000_u64,
        "MaxFailureRatio": 0,
        "Order": "stop-first",
    });
    json!({
        "TaskTemplate": {
            "ContainerSpec": {
                "StopGracePeriod": 10_000_000_000_u64,
                "DNSConfig": {},
                "Isolation": "default",
            },
            "Resources": { "Limits": {}, "Reservations": {} },
            "RestartPolicy": { "Condition": "any", "Delay": 5_000_000_000_u64, "MaxAttempts": 0 },
            "Placement": {},
            "ForceUpdate": 0,
            "Runtime": "container",
        },
        "UpdateConfig": update,
        "RollbackConfig": update,
        "EndpointSpec": { "Mode": "vip" },
    })
}

fn fill_absent(value: &mut Value, defaults: &Value) {
    let (Value::Object(map), Value::Object(defaults)) = (value, defaults) else { return };
    for (key, default) in defaults {
        match map.get_mut(key) {
            None | Some(Value::Null) => {
                map.insert(key.clone(), default.clone());
            }
            Some(present) => fill_absent(present, default),
        }
    }
}
