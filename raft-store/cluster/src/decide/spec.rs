//! A service's spec as it is stored: checked, defaults filled in, network targets as ids.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::size::{self, SERVICE_BYTES_MAX};
use super::{fields, ports};
use crate::constraint::{Constraint, check_preference};
use crate::generic::check_reserved;
use crate::log_driver::LogDriver;
use crate::rejection::{Code, Rejection};
use crate::rights::{Capabilities, check_sysctl, check_ulimit};
use crate::spec::{
    ContainerSpec, DnsConfig, EndpointSpec, Mount, MountKind, NetworkTarget, Placement, PortConfig,
    Protocol, PublishMode, Replicated, ResolutionMode, ServiceMode, ServiceSpec, TaskSpec,
    UpdateConfig,
};
use crate::state::State;
use crate::template;

/// The most replicas of one service; a /16 holds six times as many addresses.
pub(super) const REPLICAS_MAX: u64 = 10_000;
/// How mounts go on below a bind mount, in Docker's words (mount_namespaces(7)).
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
/// RFC 1035: the octets of a label.
const NAME_CHARS_MAX: usize = 63;
/// The resolver library asks no more (`MAXNS` in resolv.h), and Docker's server neither.
const NAMESERVERS_MAX: usize = 3;
/// Levels of a service's spread; two or three are used.
const PREFERENCES_MAX: usize = 16;
/// Where every task asks for names.
const SANDBOX_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// The spec as it is stored, and what the user should know about it.
pub(super) fn checked(
    state: &State,
    spec: &ServiceSpec,
) -> Result<(ServiceSpec, Vec<String>), Rejection> {
    let mut spec = spec.clone();
    check_name(&spec.name)?;
    check_task(&spec.task_template)?;
    check_mode(&mut spec.mode)?;
    check_endpoint(&spec.endpoint_spec)?;
    for (config, name) in [(&spec.update_config, "update"), (&spec.rollback_config, "rollback")] {
        if let Some(config) = config {
            check_update(config, name)?;
        }
    }
    // Older clients give networks beside the template; there is one place for them here.
    let targets = resolved(state, spec.network_targets())?;
    spec.networks.clear();
    spec.task_template.networks = targets;
    size::check(format_args!("the spec of service {}", spec.name), &spec, SERVICE_BYTES_MAX)?;
    let whole = template::check(&spec)?;
    let what = format_args!("the spec of service {} with its templates written out", spec.name);
    size::check(what, &whole, SERVICE_BYTES_MAX)?;
    let mut warnings = fields::check(&spec)?;
    if let Some(driver) = &spec.task_template.log_driver {
        warnings.extend(LogDriver::check(driver)?.warnings);
    }
    Ok((spec, warnings))
}

fn check_name(name: &str) -> Result<(), Rejection> {
    let edge = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| edge(c) || c == '-' || c == '_';
    if name.is_empty() {
        return Err(Rejection::invalid("name must be valid as a DNS name component: give a name"));
    }
    if !(name.starts_with(edge) && name.ends_with(edge) && name.chars().all(inner)) {
        return Err(Rejection::invalid(format!(
            "name must be valid as a DNS name component: \"{name}\" has other characters than \
             letters, digits, - and _, or begins or ends with one of the latter"
        )));
    }
    if name.len() > NAME_CHARS_MAX {
        return Err(Rejection::invalid(format!(
            "name must be {NAME_CHARS_MAX} characters or fewer: \"{name}\" has {}",
            name.len()
        )));
    }
    Ok(())
}

fn check_task(task: &TaskSpec) -> Result<(), Rejection> {
    let container = &task.container_spec;
    if container.image.is_empty() {
        return Err(Rejection::invalid(
            "image reference must be provided: host, or dir:/path of a root file system",
        ));
    }
    if !["", "container"].contains(&task.runtime.as_str()) {
        let message = format!("runtime {} is not supported: leave it out", task.runtime);
        return Err(Rejection::new(Code::Unimplemented, message));
    }
    check_privileges(container)?;
    check_rights(container).map_err(Rejection::invalid)?;
    if let Some(dns) = &container.dns_config {
        check_dns(dns)?;
    }
    let mut targets = BTreeSet::new();
    if let Some(mount) = container.mounts.iter().find(|mount| !targets.insert(&mount.target)) {
        let message = format!("duplicate mount point: {}: give each mount its own", mount.target);
        return Err(Rejection::invalid(message));
    }
    for mount in &container.mounts {
        check_mount(mount).map_err(Rejection::invalid)?;
        let kind = match mount.kind {
            MountKind::Bind | MountKind::Volume | MountKind::Tmpfs => continue,
            MountKind::Npipe => "npipe",
            MountKind::Cluster => "cluster",
        };
        return Err(Rejection::new(
            Code::Unimplemented,
            format!("mount type {kind} of {} is not supported: use bind or tmpfs", mount.target),
        ));
    }
    if let Some(reserved) = task.resources.as_ref().and_then(|all| all.reservations.as_ref()) {
        check_reserved(&reserved.generic_resources).map_err(Rejection::invalid)?;
    }
    task.placement.as_ref().map_or(Ok(()), check_placement)
}

fn check_placement(placement: &Placement) -> Result<(), Rejection> {
    for text in &placement.constraints {
        Constraint::parse(text).map_err(Rejection::invalid)?;
    }
    let count = placement.preferences.len();
    if count > PREFERENCES_MAX {
        let message = format!("{count} placement preferences: give {PREFERENCES_MAX} at most");
        return Err(Rejection::invalid(message));
    }
    placement.preferences.iter().try_for_each(check_preference).map_err(Rejection::invalid)
}

/// A task has Docker's default privileges, or those without a filter of system calls.
fn check_privileges(container: &ContainerSpec) -> Result<(), Rejection> {
    let missing = |what: String, remedy: &str| {
        let message = format!("{what} is not supported: {remedy}");
        Err(Rejection::new(Code::Unimplemented, message))
    };
    match container.seccomp_mode() {
        "" | "default" | "unconfined" => {}
        mode => return missing(format!("seccomp mode {mode}"), "use default or unconfined"),
    }
    let Some(privileges) = &container.privileges else { return Ok(()) };
    let app_armor = privileges.extra.get("AppArmor").and_then(|value| value["Mode"].as_str());
    match app_armor.unwrap_or_default() {
        "" | "disabled" => Ok(()),
        mode => missing(format!("AppArmor mode {mode}"), "use disabled, or leave it out"),
    }
}

fn check_rights(container: &ContainerSpec) -> Result<(), String> {
    Capabilities::of(&container.capability_add, &container.capability_drop)?;
    container.sysctls.keys().try_for_each(|name| check_sysctl(name))?;
    container.ulimits.iter().try_for_each(check_ulimit)
}

fn check_mount(mount: &Mount) -> Result<(), String> {
    let propagation = mount.bind_options.as_ref().map_or("", |options| &options.propagation);
    if !propagation.is_empty() && !PROPAGATIONS.contains(&propagation) {
        return Err(format!(
            "invalid propagation mode: {propagation:?} of {}: give one of {}",
            mount.target,
            PROPAGATIONS.join(", ")
        ));
    }
    let subpath = mount.volume_options.as_ref().map_or("", |options| &options.subpath);
    if subpath.starts_with('/') || subpath.split('/').any(|part| part == "..") {
        return Err(format!(
            "subpath {subpath:?} of {} must be a relative path within the volume",
            mount.target
        ));
    }
    Ok(())
}

fn check_dns(dns: &DnsConfig) -> Result<(), Rejection> {
    if dns.nameservers.len() > NAMESERVERS_MAX {
        let count = dns.nameservers.len();
        return Err(Rejection::invalid(format!(
            "{count} name servers: give {NAMESERVERS_MAX} at most"
        )));
    }
    for server in &dns.nameservers {
        let Ok(address) = server.parse::<IpAddr>() else {
            let message = format!("name server {server:?} is not an IP address: give one");
            return Err(Rejection::invalid(message));
        };
        if address.to_canonical() == SANDBOX_SERVER {
            return Err(Rejection::invalid(format!(
                "name server {server} is the task's own, which asks this one: give another"
            )));
        }
    }
    let is_word = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
    match dns.search.iter().chain(&dns.options).find(|text| !is_word(text)) {
        None => Ok(()),
        Some(text) => Err(Rejection::invalid(format!(
            "{text:?} is no search domain or resolver option: give words without white space"
        ))),
    }
}

fn check_mode(mode: &mut ServiceMode) -> Result<(), Rejection> {
    match mode {
        ServiceMode::Global(_) => Ok(()),
        ServiceMode::Replicated(Replicated { replicas, .. }) => {
            let number = *replicas.get_or_insert(1);
            if number > REPLICAS_MAX {
                return Err(Rejection::invalid(format!(
                    "{number} replicas are more than one service may have: give {REPLICAS_MAX} \
                     at most"
                )));
            }
            Ok(())
        }
    }
}

fn check_endpoint(endpoint: &EndpointSpec) -> Result<(), Rejection> {
    let mut published: Vec<(&PortConfig, Option<IpAddr>)> = Vec::new();
    for port in &endpoint.ports {
        if port.protocol == Protocol::Sctp {
            return Err(Rejection::new(
                Code::Unimplemented,
                format!(
                    "port {} asks for sctp, which is not supported yet: use tcp or udp",
                    port.target_port
                ),
            ));
        }
        if port.target_port == 0 {
            return Err(Rejection::invalid(format!(
                "published port {} has no target port: give the port that the task listens on",
                port.published_port
            )));
        }
        if endpoint.mode == ResolutionMode::Dnsrr && port.publish_mode == PublishMode::Ingress {
            return Err(Rejection::invalid(format!(
                "port published with ingress mode can't be used with dnsrr mode: publish port {} \
                 in mode host, or use vip",
                port.target_port
            )));
        }
        let address = ports::address(port)?;
        let twice = published.iter().any(|(other, at)| {
            (other.protocol, other.published_port) == (port.protocol, port.published_port)
                && (*at == address || at.is_none() || address.is_none())
        });
        if twice && port.published_port != 0 {
            return Err(Rejection::invalid(format!(
                "duplicate published ports provided: {}/{}",
                port.published_port,
                port.protocol.name()
            )));
        }
        published.push((port, address));
    }
    Ok(())
}

fn check_update(config: &UpdateConfig, name: &str) -> Result<(), Rejection> {
    if !["", "pause", "continue", "rollback"].contains(&config.failure_action.as_str())
        || (name == "rollback" && config.failure_action == "rollback")
    {
        return Err(Rejection::invalid(format!(
            "unrecognized {name} failure action {}: use pause or continue{}",
            config.failure_action,
            if name == "update" { " or rollback" } else { "" }
        )));
    }
    if !["", "stop-first", "start-first"].contains(&config.order.as_str()) {
        let message =
            format!("unrecognized {name} order {}: use stop-first or start-first", config.order);
        return Err(Rejection::invalid(message));
    }
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return Err(Rejection::invalid(format!(
            "{name} MaxFailureRatio {} cannot be less than 0 or bigger than 1",
            config.max_failure_ratio
        )));
    }
    Ok(())
}

/// Network targets as ids, each network once.
fn resolved(state: &State, targets: &[NetworkTarget]) -> Result<Vec<NetworkTarget>, Rejection> {
    let mut result: Vec<NetworkTarget> = Vec::with_capacity(targets.len());
    for target in targets {
        // Docker answers a missing network with an error of the service's request, not with 404.
        let network = state
            .find_network(&target.target)
            .map_err(|rejection| Rejection::invalid(rejection.message))?;
        if network.spec.ingress {
            return Err(Rejection::invalid(format!(
                "Service cannot be explicitly attached to the ingress network \"{}\": publish a \
                 port instead",
                network.spec.name
            )));
        }
        let id = network.id.to_string();
        if result.iter().any(|other| other.target == id) {
            return Err(Rejection::invalid(format!(
                "network {} is given twice: leave one out",
                network.spec.name
            )));
        }
        result.push(NetworkTarget { target: id, ..target.clone() });
    }
    Ok(result)
}
