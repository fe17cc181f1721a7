//! `Network` of the Engine API: the flat one of `/networks`, and swarmkit's nested one that tasks
//! carry in `NetworksAttachments`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cluster::net::{Subnet, Vni};
use cluster::object::{Network, Node, Service, Task};
use cluster::spec::{IpamPool, Labels};
use serde::Serialize;

use super::{Version, rfc3339};
use crate::control_plane::LocalNetwork;

/// Docker's option that shows the VXLAN id.
const VXLAN_IDS: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// Driver of every network here.
pub(crate) const OVERLAY: &str = "overlay";
/// Scope of every network here.
pub(crate) const SWARM_SCOPE: &str = "swarm";

/// `GET /networks/{id}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NetworkView {
    name: String,
    id: String,
    created: String,
    scope: &'static str,
    driver: String,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_from: ConfigFrom,
    config_only: bool,
    containers: Option<BTreeMap<String, Endpoint>>,
    options: Labels,
    labels: Labels,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peers: Vec<Peer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<BTreeMap<String, ServiceInfo>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    driver: String,
    options: Option<Labels>,
    config: Vec<IpamPool>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigFrom {
    network: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    name: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    mac_address: String,
    #[serde(rename = "IPv4Address")]
    ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    ipv6_address: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Peer {
    name: String,
    #[serde(rename = "IP")]
    ip: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceInfo {
    #[serde(rename = "VIP")]
    vip: String,
    ports: Vec<String>,
    #[serde(rename = "LocalLBIndex")]
    local_lb_index: u32,
    tasks: Vec<TaskInfo>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TaskInfo {
    name: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    #[serde(rename = "EndpointIP")]
    endpoint_ip: String,
    info: BTreeMap<&'static str, String>,
}

/// What a list shows of a network.
pub(crate) fn network(network: &Network) -> NetworkView {
    let spec = &network.spec;
    NetworkView {
        name: spec.name.clone(),
        id: network.id.to_string(),
        created: rfc3339(network.meta.created_at),
        scope: SWARM_SCOPE,
        driver: driver(&spec.driver),
        enable_ipv6: spec.enable_ipv6,
        ipam: Ipam {
            driver: if spec.ipam.driver.is_empty() {
                "default".into()
            } else {
                spec.ipam.driver.clone()
            },
            options: (!spec.ipam.options.is_empty()).then(|| spec.ipam.options.clone()),
            config: pools(network),
        },
        internal: spec.internal,
        attachable: spec.attachable,
        ingress: spec.ingress,
        config_from: ConfigFrom { network: "" },
        config_only: false,
        containers: None,
        options: options(&spec.options, network.vni),
        labels: spec.labels.clone(),
        peers: Vec::new(),
        services: None,
    }
}

/// What a worker, which has no replicated state, shows of a network that is present on it.
pub(crate) fn local_network(network: &LocalNetwork) -> NetworkView {
    let pool = pool(&network.subnet, network.gateway, &IpamPool::default());
    NetworkView {
        name: network.name.clone(),
        id: network.id.to_string(),
        created: rfc3339(network.created_at),
        scope: SWARM_SCOPE,
        driver: OVERLAY.to_owned(),
        enable_ipv6: false,
        ipam: Ipam { driver: "default".to_owned(), options: None, config: vec![pool] },
        internal: network.internal,
        attachable: false,
        ingress: network.ingress,
        config_from: ConfigFrom { network: "" },
        config_only: false,
        containers: None,
        options: options(&Labels::new(), network.vni),
        labels: Labels::new(),
        peers: Vec::new(),
        services: None,
    }
}

/// What surrounds a network when one is inspected.
pub(crate) struct Context<'a> {
    /// The tasks with an address on it that have not ended.
    pub tasks: Vec<&'a Arc<Task>>,
    /// The services on it.
    pub services: Vec<&'a Arc<Service>>,
    /// All nodes.
    pub nodes: Vec<&'a Arc<Node>>,
    /// The node that answers; its tasks are listed as containers.
    pub here: Option<cluster::id::NodeId>,
    /// Whether services and tasks of all nodes are asked for.
    pub verbose: bool,
}

/// What `inspect` shows of a network.
pub(crate) fn inspected(network_object: &Network, around: &Context<'_>) -> NetworkView {
    let mut view = network(network_object);
    let local = around.tasks.iter().filter(|task| task.node.is_some() && task.node == around.here);
    view.containers = Some(
        local
            .filter_map(|task| Some((task.id.to_string(), endpoint(network_object, task)?)))
            .collect(),
    );
    view.peers = around
        .nodes
        .iter()
        .filter(|node| around.tasks.iter().any(|task| task.node == Some(node.id)))
        .map(|node| Peer { name: node.id.to_string(), ip: node.description.vtep.to_string() })
        .collect();
    if around.verbose {
        view.services = Some(
            around
                .services
                .iter()
                .map(|service| (service.spec.name.clone(), info(network_object, service, around)))
                .collect(),
        );
    }
    view
}

fn endpoint(network: &Network, task: &Task) -> Option<Endpoint> {
    let attachment = task.attachments.iter().find(|a| a.network == network.id)?;
    let length = network.subnet.prefix_len();
    let with_length = |address: Option<IpAddr>| {
        address.map_or_else(String::new, |address| format!("{address}/{length}"))
    };
    Some(Endpoint {
        name: task.name(),
        endpoint_id: task.id.to_string(),
        mac_address: attachment.mac.to_string(),
        ipv4_address: with_length(attachment.addresses.v4().map(IpAddr::V4)),
        ipv6_address: with_length(attachment.addresses.v6().map(IpAddr::V6)),
    })
}

fn info(network: &Network, service: &Service, around: &Context<'_>) -> ServiceInfo {
    let host = |task: &Task| {
        let node = around.nodes.iter().find(|node| Some(node.id) == task.node);
        node.map_or_else(String::new, |node| node.description.vtep.to_string())
    };
    let mut tasks: Vec<TaskInfo> = Vec::new();
    for task in around.tasks.iter().filter(|task| task.service == service.id) {
        let Some(attachment) = task.attachments.iter().find(|a| a.network == network.id) else {
            continue;
        };
        tasks.push(TaskInfo {
            name: task.name(),
            endpoint_id: task.id.to_string(),
            endpoint_ip: attachment.addresses.first().to_string(),
            info: BTreeMap::from([("Host IP", host(task))]),
        });
    }
    let vip = service.vips.get(&network.id);
    // The engine shows one address of a service and of a task here.
    ServiceInfo {
        vip: vip.map_or_else(|| "<nil>".to_owned(), |vips| vips.first().to_string()),
        ports: service
            .ports
            .iter()
            .map(|port| format!("Target: {}, Publish: {}", port.target, port.published))
            .collect(),
        local_lb_index: 0,
        tasks,
    }
}

fn driver(name: &str) -> String {
    if name.is_empty() { OVERLAY.to_owned() } else { name.to_owned() }
}

fn options(given: &Labels, vni: Vni) -> Labels {
    let mut options = given.clone();
    options.insert(VXLAN_IDS.to_owned(), vni.to_string());
    options
}

fn pools(network: &Network) -> Vec<IpamPool> {
    let given = network.spec.ipam.config.first().cloned().unwrap_or_default();
    vec![pool(&network.subnet, network.gateway, &given)]
}

fn pool(subnet: &Subnet, gateway: IpAddr, given: &IpamPool) -> IpamPool {
    IpamPool { subnet: subnet.to_string(), gateway: gateway.to_string(), ..given.clone() }
}

/// The network inside a task's `NetworksAttachments`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NestedNetwork {
    #[serde(rename = "ID")]
    id: String,
    version: Version,
    created_at: String,
    updated_at: String,
    spec: NestedSpec,
    driver_state: NestedDriver,
    #[serde(rename = "IPAMOptions")]
    ipam_options: NestedIpam,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NestedSpec {
    name: String,
    labels: Labels,
    driver_configuration: NestedDriver,
    #[serde(rename = "IPv6Enabled", skip_serializing_if = "std::ops::Not::not")]
    ipv6_enabled: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    internal: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    attachable: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ingress: bool,
    scope: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NestedDriver {
    name: String,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    options: Labels,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NestedIpam {
    driver: NestedDriver,
    configs: Vec<IpamPool>,
}

/// Renders the nested form.
pub(crate) fn nested(network: &Network) -> NestedNetwork {
    let spec = &network.spec;
    let driver = driver(&spec.driver);
    NestedNetwork {
        id: network.id.to_string(),
        version: network.meta.into(),
        created_at: rfc3339(network.meta.created_at),
        updated_at: rfc3339(network.meta.updated_at),
        spec: NestedSpec {
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            driver_configuration: NestedDriver {
                name: driver.clone(),
                options: spec.options.clone(),
            },
            ipv6_enabled: spec.enable_ipv6,
            internal: spec.internal,
            attachable: spec.attachable,
            ingress: spec.ingress,
            scope: SWARM_SCOPE,
        },
        driver_state: NestedDriver { name: driver, options: options(&spec.options, network.vni) },
        ipam_options: NestedIpam {
            driver: NestedDriver { name: "default".to_owned(), options: Labels::new() },
            configs: pools(network),
        },
    }
}
