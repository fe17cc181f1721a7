//! `SystemVersion` and `SystemInfo` of the Engine API.

use cluster::spec::Role;
use serde_json::{Map, Value, json};

use super::cluster_info::cluster_info;
use super::rfc3339;
use crate::control_plane::{Local, Snapshot};
use crate::version::{API_VERSION, API_VERSION_MIN};

/// `GET /version`.
pub(crate) fn version(local: &Local) -> Value {
    let arch = go_arch(&local.architecture);
    json!({
        "Platform": { "Name": "Skein" },
        "Components": [{
            "Name": "Engine",
            "Version": local.version,
            "Details": {
                "ApiVersion": API_VERSION,
                "MinAPIVersion": API_VERSION_MIN,
                "Arch": arch,
                "Os": "linux",
                "KernelVersion": local.kernel,
                "Experimental": "false",
            },
        }],
        "Version": local.version,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": API_VERSION_MIN,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": arch,
        "KernelVersion": local.kernel,
    })
}

/// `GET /info`; `snapshot` on managers that have one.
pub(crate) fn info(local: &Local, snapshot: Option<&Snapshot>) -> Value {
    let mut info = Map::new();
    for part in [node(local), engine(), json!({ "Swarm": swarm(local, snapshot) })] {
        if let Value::Object(fields) = part {
            info.extend(fields);
        }
    }
    Value::Object(info)
}

/// What is true of this node.
fn node(local: &Local) -> Value {
    json!({
        "ID": local.node.map_or_else(String::new, |node| node.to_string()),
        "Name": local.hostname,
        "ServerVersion": local.version,
        "Containers": local.tasks_running + local.tasks_stopped,
        "ContainersRunning": local.tasks_running,
        "ContainersPaused": 0,
        "ContainersStopped": local.tasks_stopped,
        "Images": 0,
        "DockerRootDir": local.data_dir,
        "SystemTime": rfc3339(local.now),
        "KernelVersion": local.kernel,
        "OperatingSystem": local.operating_system,
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": local.architecture,
        "NCPU": local.cpus,
        "MemTotal": local.memory_bytes,
        "CgroupVersion": local.cgroup_version.to_string(),
        "Warnings": local.warnings,
    })
}

/// What clients expect of an engine; zero where Skein has no such thing. The kernel's features
/// are given as present, because an absent one is told in `Warnings` in Skein's own words.
fn engine() -> Value {
    json!({
        "Driver": "none",
        "DriverStatus": [],
        "Plugins": {
            "Volume": [],
            "Network": ["overlay"],
            "Authorization": null,
            "Log": ["journald", "json-file", "local", "syslog"],
        },
        "MemoryLimit": true,
        "SwapLimit": true,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": true,
        "CPUSet": true,
        "PidsLimit": true,
        "IPv4Forwarding": true,
        "BridgeNfIptables": true,
        "BridgeNfIp6tables": true,
        "OomKillDisable": false,
        "Debug": false,
        "LoggingDriver": "json-file",
        "CgroupDriver": "none",
        "IndexServerAddress": "",
        "RegistryConfig": null,
        "GenericResources": null,
        "Labels": [],
        "ExperimentalBuild": false,
        "Runtimes": {},
        "DefaultRuntime": "",
        "LiveRestoreEnabled": true,
        "ContainerdCommit": { "ID": "", "Expected": "" },
        "RuncCommit": { "ID": "", "Expected": "" },
        "InitCommit": { "ID": "", "Expected": "" },
        "SecurityOptions": [],
    })
}

fn swarm(local: &Local, snapshot: Option<&Snapshot>) -> Value {
    let managers: Vec<Value> = local
        .remote_managers
        .iter()
        .map(|manager| {
            json!({ "NodeID": manager.node.to_string(), "Addr": manager.address.to_string() })
        })
        .collect();
    let mut swarm = json!({
        "NodeID": local.node.map_or_else(String::new, |node| node.to_string()),
        "NodeAddr": local.node_addr.map_or_else(String::new, |address| address.to_string()),
        "LocalNodeState": local.state.name(),
        "ControlAvailable": local.control_available,
        "Error": local.error,
        "RemoteManagers": if managers.is_empty() { Value::Null } else { Value::Array(managers) },
    });
    if let Some(snapshot) = snapshot {
        let nodes = &snapshot.state.nodes;
        swarm["Nodes"] = json!(nodes.len());
        swarm["Managers"] =
            json!(nodes.values().filter(|node| node.role() == Role::Manager).count());
        swarm["Cluster"] =
            snapshot.state.cluster.as_ref().map_or(Value::Null, |c| json!(cluster_info(c)));
    }
    swarm
}

/// Go's word for an architecture, where it differs from the kernel's.
fn go_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
