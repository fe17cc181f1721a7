//! `Task` of the Engine API.

use cluster::generic::GenericResource;
use cluster::id::NetworkId;
use cluster::object::{Attachment, Network, Slot, Task, TaskState};
use cluster::spec::{Labels, PortConfig, TaskSpec};
use cluster::state::Table;
use cluster::time::Timestamp;
use serde::Serialize;

use super::network::{NestedNetwork, nested, within};
use super::service::port;
use super::{Version, rfc3339};

/// `GET /tasks/{id}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TaskView<'a> {
    #[serde(rename = "ID")]
    id: String,
    version: Version,
    created_at: String,
    updated_at: String,
    labels: Labels,
    spec: &'a TaskSpec,
    #[serde(rename = "ServiceID")]
    service_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u64>,
    #[serde(rename = "NodeID", skip_serializing_if = "Option::is_none")]
    node_id: Option<String>,
    status: Status<'a>,
    desired_state: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    networks_attachments: Vec<NetworkAttachment>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    assigned_generic_resources: &'a [GenericResource],
    volumes: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Status<'a> {
    timestamp: String,
    state: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    err: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_status: Option<ContainerStatus>,
    port_status: PortStatus,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerStatus {
    #[serde(rename = "ContainerID")]
    container_id: String,
    #[serde(rename = "PID")]
    pid: u32,
    exit_code: i32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PortStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<PortConfig>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkAttachment {
    network: NestedNetwork,
    addresses: Vec<String>,
}

/// Renders a task as it is at `now`.
pub(crate) fn task<'a>(
    task: &'a Task,
    now: Timestamp,
    networks: &Table<NetworkId, Network>,
) -> TaskView<'a> {
    let attachments = task.attachments.iter();
    TaskView {
        id: task.id.to_string(),
        version: task.meta.into(),
        created_at: rfc3339(task.meta.created_at),
        updated_at: rfc3339(task.meta.updated_at),
        labels: Labels::new(),
        spec: &task.spec,
        service_id: task.service.to_string(),
        slot: match task.slot {
            Slot::Replica(number) => Some(number),
            Slot::Node(_) => None,
        },
        node_id: task.node.map(|node| node.to_string()),
        status: Status {
            timestamp: rfc3339(task.status.at),
            state: task.status.state.name(),
            message: &task.status.message,
            err: &task.status.error,
            container_status: container_status(task),
            port_status: PortStatus { ports: host_ports(task) },
        },
        desired_state: task.shown_desired(now).name(),
        networks_attachments: attachments.filter_map(|a| attached(a, networks)).collect(),
        assigned_generic_resources: &task.generic_resources,
        volumes: None,
    }
}

/// Present once there was something to run: Docker's clients read it as "there is a container".
fn container_status(task: &Task) -> Option<ContainerStatus> {
    let status = &task.status;
    let ran = status.pid.is_some() || status.exit_code.is_some();
    ran.then(|| ContainerStatus {
        container_id: task.id.to_string(),
        pid: status.pid.unwrap_or(0),
        exit_code: status.exit_code.unwrap_or(0),
    })
}

/// Ports that the task has bound on its node: those in mode `host`, while it runs.
fn host_ports(task: &Task) -> Vec<PortConfig> {
    if task.status.state != TaskState::Running {
        return Vec::new();
    }
    task.host_ports().map(port).collect()
}

fn attached(
    attachment: &Attachment,
    networks: &Table<NetworkId, Network>,
) -> Option<NetworkAttachment> {
    let network = networks.get(&attachment.network)?;
    let subnets = Some(&network.subnets);
    let addresses = attachment.addresses.iter().map(|address| within(address, subnets));
    Some(NetworkAttachment { network: nested(network), addresses: addresses.collect() })
}
