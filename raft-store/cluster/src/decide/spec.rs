//! A service's spec as it is stored: checked, defaults filled in, network targets as ids.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::fields;
use super::size::{self, SERVICE_BYTES_MAX};
use crate::constraint::Requirement;
use crate::generic::check_reserved;
use crate::rejection::{Code, Rejection};
use crate::rights::{Capabilities, check_sysctl, check_ulimit};
use crate::spec::{
    CheckedSpec, ContainerSpec, DnsConfig, EndpointSpec, FailureAction, Mount, MountKind,
    NetworkTarget, PortConfig, Protocol, PublishMode, Replicated, ResolutionMode, ServiceMode,
    ServiceSpec, TaskSpec, TaskTerms, UpdateConfig, UpdateTerms,
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
) -> Result<(CheckedSpec, Vec<String>), Rejection> {
    let targets = resolved(state, spec.network_targets());
    let spec = CheckedSpec::of(as_stored(spec, targets.as_deref().unwrap_or_default()));
    let terms = spec.terms();
    check_name(&spec.name)?;
    check_task(&spec.task_template, &terms.task)?;
    check_mode(&spec.mode)?;
    check_endpoint(&spec.endpoint_spec, &terms.addresses)?;
    if let Some(config) = &spec.update_config {
        check_update(config, &terms.update, "update")?;
    }
    if let Some(config) = &spec.rollback_config {
        check_update(config, &terms.rollback, "rollback")?;
    }
    targets?;
    size::check(format_args!("the spec of service {}", spec.name), &*spec, SERVICE_BYTES_MAX)?;
    let whole = template::check(&spec)?;
    let what = format_args!("the spec of service {} with its templates written out", spec.name);
    size::check(what, &whole, SERVICE_BYTES_MAX)?;
    let mut warnings = fields::check(&spec)?;
    if let Some(driver) = terms.task.log_driver.as_deref() {
        warnings.extend(driver.clone()?.warnings);
    }
    Ok((spec, warnings))
}

/// With one place for networks, which older clients give next to the template, and one replica
/// where none are given.
fn as_stored(spec: &ServiceSpec, targets: &[NetworkTarget]) -> ServiceSpec {
    let mut spec = spec.clone();
    spec.networks.clear();
    spec.task_template.networks = targets.to_vec();
    match &mut spec.mode {
        ServiceMode::Global(_) => {}
        ServiceMode::Replicated(Replicated { replicas, .. }) => {
            replicas.get_or_insert(1);
        }
    }
    spec
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

fn check_task(task: &TaskSpec, terms: &TaskTerms) -> Result<(), Rejection> {
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
    check_placement(terms)
}

fn check_placement(terms: &TaskTerms) -> Result<(), Rejection> {
    if let Some(fault) = terms.constraints.iter().find_map(Requirement::fault) {
        return Err(Rejection::invalid(fault));
    }
    let count = terms.spread.len();
    if count > PREFERENCES_MAX {
        let message = format!("{count} placement preferences: give {PREFERENCES_MAX} at most");
        return Err(Rejection::invalid(message));
    }
    let fault = terms.spread.iter().find_map(|over| over.as_ref().err());
    fault.map_or(Ok(()), |fault| Err(Rejection::invalid(fault)))
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

fn check_mode(mode: &ServiceMode) -> Result<(), Rejection> {
    match mode {
        ServiceMode::Global(_) => Ok(()),
        ServiceMode::Replicated(Replicated { replicas, .. }) => {
            let number = replicas.unwrap_or(1);
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

fn check_endpoint(
    endpoint: &EndpointSpec,
    addresses: &[Result<Option<IpAddr>, Rejection>],
) -> Result<(), Rejection> {
    let mut published: Vec<(&PortConfig, Option<IpAddr>)> = Vec::new();
    for (port, address) in endpoint.ports.iter().zip(addresses) {
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
        let address = address.clone()?;
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

fn check_update(config: &UpdateConfig, terms: &UpdateTerms, name: &str) -> Result<(), Rejection> {
    let goes_back_twice =
        name == "rollback" && terms.failure_action == Some(FailureAction::Rollback);
    if terms.failure_action.is_none() || goes_back_twice {
        return Err(Rejection::invalid(format!(
            "unrecognized {name} failure action {}: use pause or continue{}",
            config.failure_action,
            if name == "update" { " or rollback" } else { "" }
        )));
    }
    if terms.order.is_none() {
        let message =
            format!("unrecognized {name} order {}: use stop-first or start-first", config.order);
        return Err(Rejection::invalid(message));
    }
    if !(0.0..=1.0).contains(&terms.max_failure_ratio) {
        return Err(Rejection::invalid(format!(
            "{name} MaxFailureRatio {} cannot be less than 0 or bigger than 1",
            terms.max_failure_ratio
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
