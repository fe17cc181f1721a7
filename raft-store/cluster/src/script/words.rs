//! What the words of a command mean.

use serde_json::json;

use crate::fixture::description;
use crate::generic::{self, GenericResource};
use crate::id::NodeId;
use crate::object::{KeyDigest, ManagerInfo, ProofKey};
use crate::request::JoinNode;
use crate::spec::{
    ContainerSpec, Driver, GlobalMode, IpamPool, Labels, NetworkSpec, NetworkTarget, Placement,
    Platform, PortConfig, Preference, Privileges, Protocol, PublishMode, Replicated,
    ResolutionMode, RestartCondition, RestartPolicy, Role, ServiceMode, ServiceSpec, Spread,
    UpdateConfig,
};

/// The values of `key=…` words.
pub(super) fn words<'a>(args: &'a [&str], key: &'a str) -> impl Iterator<Item = &'a str> {
    args.iter().filter_map(move |arg| arg.strip_prefix(key)?.strip_prefix('='))
}

pub(super) fn word<'a>(args: &'a [&str], key: &'a str) -> Option<&'a str> {
    words(args, key).next()
}

pub(super) fn join(number: u64, hostname: &str, role: Role, args: &[&str]) -> JoinNode {
    let mut description = description(hostname);
    if let Some(schema) = word(args, "schema") {
        description.schema = schema.parse().unwrap();
    }
    let proof = word(args, "proof").map(|byte| ProofKey([byte.parse().unwrap(); 32]));
    description.proof_key = proof.or(description.proof_key);
    description.underlay_mtu = word(args, "mtu").map(|mtu| mtu.parse().unwrap());
    description.generic_resources = offered(args);
    description.routes = words(args, "route").map(|route| route.parse().unwrap()).collect();
    description.certificate_subject = bytes(args);
    let address = std::net::SocketAddr::from(([192, 0, 2, 1], 2377));
    description.manager_address = Some(address).filter(|_| !args.contains(&"old"));
    JoinNode {
        id: NodeId(u128::from(number)),
        key: word(args, "key").map(|key| KeyDigest([key.parse().unwrap(); 32])),
        role,
        availability: crate::spec::Availability::Active,
        description,
        manager: (role == Role::Manager).then_some(ManagerInfo { raft_id: number, address }),
    }
}

pub(super) fn offered(args: &[&str]) -> Vec<GenericResource> {
    let texts: Vec<String> = words(args, "generic").map(str::to_owned).collect();
    generic::parse(&texts).unwrap()
}

/// As many bytes as `bytes=…` says, for what is too large.
pub(super) fn bytes(args: &[&str]) -> String {
    word(args, "bytes").map_or_else(String::new, |count| "x".repeat(count.parse().unwrap()))
}

/// Labels of so many bytes.
pub(super) fn labels(args: &[&str]) -> Labels {
    words(args, "bytes").map(|_| ("x".to_owned(), bytes(args))).collect()
}

pub(super) fn network_spec(args: &[&str]) -> NetworkSpec {
    let mut spec = NetworkSpec { name: args[0].to_owned(), ..NetworkSpec::default() };
    spec.driver = word(args, "driver").unwrap_or("overlay").to_owned();
    spec.ingress = args.contains(&"ingress");
    spec.labels = labels(args);
    spec.enable_ipv6 = args.contains(&"ipv6");
    for option in words(args, "opt") {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        spec.options.insert(key.to_owned(), value.to_owned());
    }
    let texts = |key| words(args, key).map(str::to_owned);
    let (mut subnets, mut ranges, mut gateways) =
        (texts("subnet"), texts("range"), texts("gateway"));
    loop {
        let (subnet, range, gateway) = (subnets.next(), ranges.next(), gateways.next());
        if subnet.is_none() && range.is_none() && gateway.is_none() {
            break;
        }
        spec.ipam.config.push(IpamPool {
            subnet: subnet.unwrap_or_default(),
            ip_range: range.unwrap_or_default(),
            gateway: gateway.unwrap_or_default(),
            ..IpamPool::default()
        });
    }
    spec
}

pub(super) fn new_service(name: &str) -> ServiceSpec {
    let mut spec = ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() };
    spec.task_template.container_spec.image = "host".to_owned();
    spec
}

pub(super) fn edit_service(spec: &mut ServiceSpec, args: &[&str]) {
    for arg in args {
        let (key, value) = arg.split_once('=').unwrap_or((arg, ""));
        let restart = || spec.task_template.restart_policy.clone().unwrap_or_default();
        let ms = || Some(value.parse::<u64>().unwrap() * 1_000_000);
        match key {
            "name" => spec.name = value.to_owned(),
            "bytes" => spec.labels = labels(&[arg]),
            "image" | "env" | "hostname" | "seccomp" | "privilege" | "dns" | "search"
            | "resolve" => {
                edit_container(&mut spec.task_template.container_spec, key, value);
            }
            "log" => {
                let (name, option) = value.split_once(',').unwrap_or((value, ""));
                let mut driver = Driver { name: name.to_owned(), ..Driver::default() };
                let option = option.split_once('=');
                let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
                driver.options.extend(option.map(owned));
                spec.task_template.log_driver = Some(driver);
            }
            "label" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                spec.labels.insert(name.to_owned(), value.to_owned());
            }
            "global" => spec.mode = ServiceMode::Global(GlobalMode {}),
            "replicas" => {
                let replicas = value.parse().ok();
                spec.mode =
                    ServiceMode::Replicated(Replicated { replicas, ..Replicated::default() });
            }
            "network" => spec
                .task_template
                .networks
                .push(NetworkTarget { target: value.to_owned(), ..NetworkTarget::default() }),
            "publish" => spec.endpoint_spec.ports.push(port(value)),
            "unpublish" => spec.endpoint_spec.ports.clear(),
            "dnsrr" => spec.endpoint_spec.mode = ResolutionMode::Dnsrr,
            "constraint" => spec
                .task_template
                .placement
                .get_or_insert_with(Placement::default)
                .constraints
                .push(value.to_owned()),
            "max" | "spread" | "platform" => {
                let placement = spec.task_template.placement.get_or_insert_default();
                edit_placement(placement, key, value);
            }
            "reserve" => reserve(spec, value),
            "restart" => {
                let condition: RestartCondition =
                    serde_json::from_value(serde_json::Value::String(value.to_owned())).unwrap();
                let policy = RestartPolicy { condition: Some(condition), ..restart() };
                spec.task_template.restart_policy = Some(policy);
            }
            "delay" => {
                spec.task_template.restart_policy =
                    Some(RestartPolicy { delay: ms(), ..restart() });
            }
            "attempts" => {
                let policy = RestartPolicy { max_attempts: value.parse().ok(), ..restart() };
                spec.task_template.restart_policy = Some(policy);
            }
            _ => edit_update(spec.update_config.get_or_insert_default(), key, value),
        }
    }
}

/// `gpu=2`, `cpu=2`, `memory=1073741824`.
fn reserve(spec: &mut ServiceSpec, text: &str) {
    let (kind, count) = text.split_once('=').unwrap_or((text, ""));
    let count: i64 = count.parse().unwrap();
    let resource = json!({ "DiscreteResourceSpec": { "Kind": kind, "Value": count } });
    let resources = spec.task_template.resources.get_or_insert_default();
    let reserved = resources.reservations.get_or_insert_default();
    match (kind, u64::try_from(count).unwrap_or_default()) {
        ("cpu", count) => return reserved.nano_cpus = count * 1_000_000_000,
        ("memory", count) => return reserved.memory_bytes = count,
        _ => {}
    }
    reserved.generic_resources.push(serde_json::from_value(resource).unwrap());
}

fn edit_container(container: &mut ContainerSpec, key: &str, value: &str) {
    match key {
        "image" => container.image = value.to_owned(),
        "env" => container.env.push(value.to_owned()),
        "hostname" => container.hostname = value.to_owned(),
        "dns" | "search" | "resolve" => {
            let dns = container.dns_config.get_or_insert_default();
            let list = match key {
                "dns" => &mut dns.nameservers,
                "search" => &mut dns.search,
                _ => &mut dns.options,
            };
            list.push(value.replace("%20", " "));
        }
        _ => edit_privileges(container.privileges.get_or_insert_default(), key, value),
    }
}

fn edit_placement(placement: &mut Placement, key: &str, value: &str) {
    match key {
        "max" => placement.max_replicas = value.parse().unwrap(),
        "spread" => {
            let spread_descriptor = value.to_owned();
            let spread = Spread { spread_descriptor, ..Spread::default() };
            placement.preferences.push(Preference { spread, ..Preference::default() });
        }
        _ => {
            let (os, architecture) = value.split_once('/').unwrap_or((value, ""));
            let (os, architecture) = (os.to_owned(), architecture.to_owned());
            placement.platforms.push(Platform { architecture, os, ..Platform::default() });
        }
    }
}

fn edit_update(update: &mut UpdateConfig, key: &str, value: &str) {
    let ns = || value.parse::<u64>().unwrap() * 1_000_000;
    match key {
        "parallelism" => update.parallelism = value.parse().unwrap(),
        "update-delay" => update.delay = ns(),
        "monitor" => update.monitor = ns(),
        "ratio" => update.max_failure_ratio = value.parse().unwrap(),
        "order" => value.clone_into(&mut update.order),
        "on-failure" => value.clone_into(&mut update.failure_action),
        _ => panic!("unknown word {key}={value}"),
    }
}

fn edit_privileges(privileges: &mut Privileges, key: &str, value: &str) {
    if key == "seccomp" {
        privileges.seccomp.get_or_insert_default().mode = value.to_owned();
    } else {
        privileges.extra.insert(value.to_owned(), serde_json::json!({ "Mode": "other" }));
    }
}

/// `80`, `3000:80`, `host:3000:80`, `3000:80/udp`.
fn port(text: &str) -> PortConfig {
    let (text, publish_mode) = match text.strip_prefix("host:") {
        Some(rest) => (rest, PublishMode::Host),
        None => (text, PublishMode::Ingress),
    };
    let (text, protocol) = match text.split_once('/') {
        Some((rest, "udp")) => (rest, Protocol::Udp),
        Some((rest, "sctp")) => (rest, Protocol::Sctp),
        _ => (text, Protocol::Tcp),
    };
    let (address, text) = match text.rsplitn(3, ':').nth(2) {
        Some(address) => (address, &text[address.len() + 1..]),
        None => ("", text),
    };
    let (published, target) = text.split_once(':').unwrap_or(("0", text));
    PortConfig {
        name: String::new(),
        protocol,
        target_port: target.parse().unwrap(),
        published_port: published.parse().unwrap(),
        publish_mode,
        host_ip: address.to_owned(),
        ..PortConfig::default()
    }
}
