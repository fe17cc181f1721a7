//! `Network` of the Engine API: the flat one of `/networks`, and swarmkit's nested one that tasks
//! carry in `NetworksAttachments`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cluster::net::{Subnet, Subnets, Vni};
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
            config: pools(&network.subnets, &spec.ipam.config),
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
    let config = pools(&network.subnets, &[]);
    NetworkView {
        name: network.name.clone(),
        id: network.id.to_string(),
        created: rfc3339(network.created_at),
        scope: SWARM_SCOPE,
        driver: OVERLAY.to_owned(),
        enable_ipv6: false,
        ipam: Ipam { driver: "default".to_owned(), options: None, config },
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
    let shown = |address: Option<IpAddr>| {
        address.map_or_else(String::new, |address| within(address, Some(&network.subnets)))
    };
    Some(Endpoint {
        name: task.name(),
        endpoint_id: task.id.to_string(),
        mac_address: attachment.mac.to_string(),
        ipv4_address: shown(attachment.addresses.v4().map(IpAddr::V4)),
        ipv6_address: shown(attachment.addresses.v6().map(IpAddr::V6)),
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

/// A pool for each subnet, with what else the user gave for it.
fn pools(subnets: &Subnets, given: &[IpamPool]) -> Vec<IpamPool> {
    let pool = |(subnet, gateway): (Subnet, IpAddr)| {
        let is_chosen = |pool: &&IpamPool| pool.subnet.is_empty();
        let is_given = |pool: &&IpamPool| pool.subnet.parse() == Ok(subnet);
        let pool = given.iter().find(is_given).or_else(|| given.iter().find(is_chosen));
        IpamPool {
            subnet: subnet.to_string(),
            gateway: gateway.to_string(),
            ..pool.cloned().unwrap_or_default()
        }
    };
    subnets.iter().zip(subnets.gateways().iter()).map(pool).collect()
}

/// An address with the length of its prefix, if its network is known and has one of its family.
pub(crate) fn within(address: IpAddr, subnets: Option<&Subnets>) -> String {
    match subnets.and_then(|subnets| subnets.like(address)) {
        Some(subnet) => format!("{address}/{}", subnet.prefix_len()),
        None => address.to_string(),
    }
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
            configs: pools(&network.subnets, &spec.ipam.config),
        },
    }
}

#[cfg(test)]
mod tests {
    use cluster::id::NetworkId;
    use cluster::object::Meta;
    use cluster::spec::NetworkSpec;
    use cluster::time::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    const V4: &str = "10.0.1.1/24";
    const V6: &str = "fd00::1/64";

    fn shown(subnets: Subnets, given: Value) -> [Value; 3] {
        let mut spec = NetworkSpec { name: "front".to_owned(), ..NetworkSpec::default() };
        spec.ipam.config = serde_json::from_value(given).unwrap();
        let (id, vni) = (NetworkId(7), Vni::FIRST);
        let local = LocalNetwork {
            id,
            name: spec.name.clone(),
            created_at: Timestamp::default(),
            vni,
            subnets,
            internal: false,
            ingress: false,
        };
        let object = Network {
            id,
            meta: Meta::default(),
            spec,
            vni,
            subnets,
            next_address: 2,
            removed: false,
        };
        let listed = serde_json::to_value(network(&object)).unwrap();
        let of_task = serde_json::to_value(nested(&object)).unwrap();
        let local = serde_json::to_value(local_network(&local)).unwrap();
        [
            listed["IPAM"]["Config"].clone(),
            of_task["IPAMOptions"]["Configs"].clone(),
            local["IPAM"]["Config"].clone(),
        ]
    }

    /// Goal: a network shows one pool for each of its subnets, wherever it is shown, as an engine
    /// shows them. Method: networks of either family, and of both; with what their users gave.
    #[test]
    fn each_subnet_is_shown_with_its_gateway() {
        let four = json!({"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"});
        let six = json!({"Subnet": "fd00::/64", "Gateway": "fd00::1"});
        let (v4, v6) = (V4.parse().unwrap(), V6.parse().unwrap());
        for (subnets, expected) in [
            (Subnets::V4(v4), json!([four])),
            (Subnets::V6(v6), json!([six])),
            (Subnets::Both(v4, v6), json!([four, six])),
        ] {
            assert_eq!(shown(subnets, json!([])), [(); 3].map(|()| expected.clone()));
        }
        let mut within = json!({"IPRange": "10.0.1.128/25"});
        let [listed, of_task, local] = shown(Subnets::V4(v4), json!([within]));
        within["Subnet"] = four["Subnet"].clone();
        within["Gateway"] = four["Gateway"].clone();
        assert_eq!((&listed, &of_task), (&json!([within]), &json!([within])));
        assert_eq!(local, json!([four]), "a worker does not know what the user gave");
        let six_within = json!({"Subnet": "fd00::/64", "IPRange": "fd00::/80"});
        let [listed, ..] = shown(Subnets::Both(v4, v6), json!([six_within, within]));
        let six_within =
            json!({"Subnet": "fd00::/64", "IPRange": "fd00::/80", "Gateway": "fd00::1"});
        assert_eq!(listed, json!([within, six_within]));
    }

    /// Goal: an address is shown with the length of the prefix of its own family.
    #[test]
    fn an_address_has_the_length_of_its_own_prefix() {
        let (four, six) = (IpAddr::from([10, 0, 1, 9]), IpAddr::V6("fd00::9".parse().unwrap()));
        let (v4, v6) = (V4.parse().unwrap(), V6.parse().unwrap());
        let both = Subnets::Both(v4, v6);
        let table = [
            (four, Some(Subnets::V4(v4)), "10.0.1.9/24"),
            (six, Some(Subnets::V6(v6)), "fd00::9/64"),
            (four, Some(both), "10.0.1.9/24"),
            (six, Some(both), "fd00::9/64"),
            (six, Some(Subnets::V4(v4)), "fd00::9"),
            (four, None, "10.0.1.9"),
        ];
        for (address, subnets, expected) in table {
            assert_eq!(within(address, subnets.as_ref()), expected);
        }
    }
}
