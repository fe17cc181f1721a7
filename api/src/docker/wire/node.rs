//! `Node` of the Engine API.

use cluster::generic::GenericResource;
use cluster::object::{Node, NodeState};
use cluster::spec::NodeSpec;
use serde::Serialize;

use super::cluster_info::TlsInfo;
use super::{Version, rfc3339};

/// `GET /nodes/{id}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NodeView<'a> {
    #[serde(rename = "ID")]
    id: String,
    version: Version,
    created_at: String,
    updated_at: String,
    spec: &'a NodeSpec,
    description: Description<'a>,
    status: Status<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manager_status: Option<ManagerStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Description<'a> {
    hostname: &'a str,
    platform: Platform<'a>,
    resources: Resources<'a>,
    engine: Engine<'a>,
    #[serde(rename = "TLSInfo")]
    tls_info: TlsInfo,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Platform<'a> {
    architecture: &'a str,
    #[serde(rename = "OS")]
    os: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Resources<'a> {
    #[serde(rename = "NanoCPUs")]
    nano_cpus: u64,
    memory_bytes: u64,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    generic_resources: &'a [GenericResource],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Engine<'a> {
    engine_version: &'a str,
    plugins: Vec<Plugin>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Plugin {
    #[serde(rename = "Type")]
    kind: &'static str,
    name: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Status<'a> {
    state: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    addr: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ManagerStatus {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    leader: bool,
    reachability: &'static str,
    addr: String,
}

/// The state of a manager according to Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reachability {
    /// Whether it is the leader.
    pub leader: bool,
    /// Whether it answers.
    pub reachable: bool,
}

/// Renders a node; `reachability` matters on managers only.
pub(crate) fn node<'a>(
    node: &'a Node,
    reachability: Reachability,
    tls_info: TlsInfo,
) -> NodeView<'a> {
    let description = &node.description;
    NodeView {
        id: node.id.to_string(),
        version: node.meta.into(),
        created_at: rfc3339(node.meta.created_at),
        updated_at: rfc3339(node.meta.updated_at),
        spec: &node.spec,
        description: Description {
            hostname: &description.hostname,
            platform: Platform { architecture: &description.architecture, os: &description.os },
            resources: Resources {
                nano_cpus: description.nano_cpus,
                memory_bytes: description.memory_bytes,
                generic_resources: &description.generic_resources,
            },
            engine: Engine {
                engine_version: &description.engine_version,
                plugins: vec![Plugin { kind: "Network", name: "overlay" }],
            },
            tls_info,
        },
        status: Status {
            state: state_name(node.status.state),
            message: &node.status.message,
            addr: &node.status.address,
        },
        manager_status: node.manager.as_ref().map(|manager| ManagerStatus {
            leader: reachability.leader,
            reachability: if reachability.reachable { "reachable" } else { "unreachable" },
            addr: manager.address.to_string(),
        }),
    }
}

/// Docker's word.
pub(crate) fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Unknown => "unknown",
        NodeState::Ready => "ready",
        // One that left is listed as down, with the reason in its message.
        NodeState::Down | NodeState::Disconnected => "down",
    }
}
