//! Creating and removing overlay networks.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::Value;

use super::size::{self, NETWORK_BYTES_MAX};
use crate::draft::Draft;
use crate::id::NetworkId;
use crate::ipam;
use crate::net::{Subnet, Subnets, Vni};
use crate::object::Network;
use crate::rejection::{Code, Rejection};
use crate::request::Answer;
use crate::spec::{IpamPool, NetworkSpec};
use crate::state::{State, routes};
use crate::transaction::Object;

/// The one driver.
pub(super) const DRIVER: &str = "overlay";
/// Docker's option that asks for a VNI.
pub(crate) const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// Docker's option that gives the MTU of the underlay.
pub(crate) const MTU_OPTION: &str = "com.docker.network.driver.mtu";
/// What IPv4 needs (RFC 791) plus VXLAN's 50 bytes, and the largest packet.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 118..=65535;
/// Names that every Docker host has for itself.
const PREDEFINED: [&str; 4] = ["bridge", "host", "none", "default"];
/// Docker's limit on names of objects.
const NAME_CHARS_MAX: usize = 63;

pub(super) fn create(draft: &mut Draft<'_>, spec: &NetworkSpec) -> Result<Answer, Rejection> {
    let spec = checked(spec)?;
    let state = draft.state();
    if let Some(other) = state.network_named(&spec.name) {
        return Err(Rejection::new(
            Code::NameTaken,
            format!("network with name {} already exists", other.spec.name),
        ));
    }
    if let Some(ingress) = state.ingress_network().filter(|_| spec.ingress) {
        let message = format!("ingress network ({}) is already present", ingress.id);
        return Err(Rejection::new(Code::Conflict, message));
    }
    size::check(format_args!("the spec of network {}", spec.name), &spec, NETWORK_BYTES_MAX)?;
    let subnets = place(state, &spec)?;
    let vni = vni(state, &spec)?;
    let warning = warning(&spec);
    let id = NetworkId(draft.draw());
    let network = Network {
        id,
        meta: draft.new_meta(),
        spec,
        vni,
        subnets,
        next_address: ipam::FIRST_ADDRESS,
        removed: false,
    };
    draft.put(Object::Network(Arc::new(network)));
    Ok(Answer::Network { id, warning })
}

pub(super) fn remove(draft: &mut Draft<'_>, id: NetworkId) -> Result<Answer, Rejection> {
    let state = draft.state();
    let network = state.networks.get(&id).filter(|network| !network.removed);
    let network = network.ok_or_else(|| Rejection::not_found("network", id))?;
    let user = state.services_on(id).find(|service| !service.removed);
    if let Some(service) = user {
        let message = if network.spec.ingress {
            format!(
                "ingress network cannot be removed because service {} depends on it",
                service.id
            )
        } else {
            format!("network {id} is in use by service {}", service.id)
        };
        return Err(Rejection::new(Code::FailedPrecondition, message));
    }
    // Stopping tasks may still be on it; the reaper forgets it when the last one has ended.
    draft.edit_network(id, |network| network.removed = true);
    Ok(Answer::Done)
}

/// The spec with its defaults filled in, or what is wrong with it.
fn checked(spec: &NetworkSpec) -> Result<NetworkSpec, Rejection> {
    check_name(&spec.name)?;
    let mut spec = spec.clone();
    if spec.driver.is_empty() {
        DRIVER.clone_into(&mut spec.driver);
    }
    if spec.driver != DRIVER {
        return Err(Rejection::new(
            Code::NotFound,
            format!("plugin \"{}\" not found: the driver here is {DRIVER}", spec.driver),
        ));
    }
    if !["", "default"].contains(&spec.ipam.driver.as_str()) {
        return Err(Rejection::new(
            Code::NotFound,
            format!("plugin \"{}\" not found: the IPAM driver here is default", spec.ipam.driver),
        ));
    }
    "default".clone_into(&mut spec.ipam.driver);
    if spec.enable_ipv6 {
        return Err(unimplemented(&spec.name, "IPv6", "leave EnableIPv6 out"));
    }
    if spec.extra.get("ConfigOnly").and_then(Value::as_bool).unwrap_or(false) {
        return Err(unimplemented(&spec.name, "ConfigOnly", "leave it out"));
    }
    if spec.options.contains_key("encrypted") {
        return Err(unimplemented(&spec.name, "encryption", "leave the option encrypted out"));
    }
    if let Some(mtu) = spec.options.get(MTU_OPTION)
        && !mtu.parse().is_ok_and(|mtu: u32| MTU_RANGE.contains(&mtu))
    {
        return Err(Rejection::invalid(format!(
            "invalid MTU {mtu} in option {MTU_OPTION}: give one from {} to {}",
            MTU_RANGE.start(),
            MTU_RANGE.end()
        )));
    }
    if spec.ipam.config.len() > 1 {
        return Err(unimplemented(&spec.name, "more than one subnet", "give one"));
    }
    Ok(spec)
}

/// What the user should know that is kept and not acted on.
fn warning(spec: &NetworkSpec) -> String {
    let known = [VNI_OPTION, MTU_OPTION];
    let options = spec.options.keys().filter(|option| !known.contains(&option.as_str()));
    let options =
        options.map(|option| format!("option {option} is not supported: it has no effect"));
    let attachable = spec.attachable.then(|| {
        "Attachable is not supported: there are no containers but tasks of services".to_owned()
    });
    let ipam = spec.ipam.options.keys();
    let ipam =
        ipam.map(|option| format!("IPAM option {option} is not supported: it has no effect"));
    options.chain(attachable).chain(ipam).collect::<Vec<_>>().join("; ")
}

fn unimplemented(name: &str, what: &str, remedy: &str) -> Rejection {
    let message = format!("network {name} asks for {what}, which is not supported yet: {remedy}");
    Rejection::new(Code::Unimplemented, message)
}

fn check_name(name: &str) -> Result<(), Rejection> {
    if PREDEFINED.contains(&name) {
        let message = format!("operation is not permitted on predefined {name} network");
        return Err(Rejection::new(Code::NotAllowed, message));
    }
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if starts_well && name.chars().all(good) && name.len() <= NAME_CHARS_MAX {
        return Ok(());
    }
    Err(Rejection::invalid(format!(
        "invalid network name \"{name}\": give up to {NAME_CHARS_MAX} characters of a-z, A-Z, \
         0-9, _ . -, the first a letter or digit"
    )))
}

/// The subnet and the gateway that the user gave, or the next free ones.
fn place(state: &State, spec: &NetworkSpec) -> Result<Subnets, Rejection> {
    let pool = spec.ipam.config.first();
    let subnet = match pool.filter(|pool| !pool.subnet.is_empty()) {
        Some(pool) => given_subnet(state, pool)?,
        None => free_subnet(state)?,
    };
    let Some(pool) = pool else { return with_first_host(subnet) };
    if pool
        .extra
        .get("AuxiliaryAddresses")
        .is_some_and(|value| value.as_object().is_some_and(|addresses| !addresses.is_empty()))
    {
        return Err(unimplemented(&spec.name, "auxiliary addresses", "leave them out"));
    }
    check_range(subnet, &pool.ip_range)?;
    if pool.gateway.is_empty() {
        with_first_host(subnet)
    } else {
        with_given_gateway(subnet, &pool.gateway)
    }
}

fn given_subnet(state: &State, pool: &IpamPool) -> Result<Subnet, Rejection> {
    let subnet: Subnet =
        pool.subnet.parse().map_err(|error| Rejection::invalid(capitalised(&error)))?;
    let IpNet::V4(net) = subnet.net() else {
        return Err(Rejection::new(
            Code::Unimplemented,
            format!("subnet {subnet} is IPv6, which is not supported yet: give an IPv4 subnet"),
        ));
    };
    if subnet.prefix_len() > ipam::PREFIX_LEN_MAX {
        return Err(Rejection::invalid(format!(
            "subnet {subnet} has no room for a task: give a prefix length of at most {}",
            ipam::PREFIX_LEN_MAX
        )));
    }
    let first = net.network();
    if first.is_loopback() || first.is_multicast() || first.octets()[0] == 0 {
        return Err(Rejection::invalid(format!(
            "subnet {subnet} is not usable by hosts: give a private one, like 10.0.9.0/24"
        )));
    }
    if let Some(other) = state.networks_over(subnet).next()
        && let Some(overlapped) = other.subnets.overlapping(&subnet)
    {
        return Err(Rejection::new(
            Code::Conflict,
            format!(
                "subnet {subnet} overlaps {overlapped} of network {}: give another, or none to \
                 have a free one chosen",
                other.spec.name
            ),
        ));
    }
    if let Some(node) = state.index.routes.overlapping(subnet).min()
        && let Some(node) = state.nodes.get(&node)
        && let Some(route) = routes(node).find(|route| route.overlaps(&subnet))
    {
        return Err(Rejection::new(
            Code::Conflict,
            format!(
                "subnet {subnet} overlaps route {route} of node {}: give another, or none to have \
                 a free one chosen",
                node.name()
            ),
        ));
    }
    Ok(subnet)
}

/// Docker begins this message with a capital.
fn capitalised(error: &crate::net::NetError) -> String {
    let text = error.to_string();
    match text.strip_prefix("invalid subnet") {
        Some(rest) => format!("Invalid subnet{rest}"),
        None => text,
    }
}

fn free_subnet(state: &State) -> Result<Subnet, Rejection> {
    let (pools, size) = match &state.cluster {
        Some(cluster) => (cluster.address_pools.as_slice(), cluster.subnet_size),
        None => (&[] as &[Subnet], 0),
    };
    ipam::next_subnet(state, pools, size).ok_or_else(|| {
        let pools: Vec<String> = pools.iter().map(Subnet::to_string).collect();
        Rejection::new(
            Code::Exhausted,
            format!(
                "could not find an available, non-overlapping IPv4 address pool: no /{size} of {} \
                 is free on all nodes; remove a network or give a subnet",
                pools.join(", ")
            ),
        )
    })
}

fn with_first_host(subnet: Subnet) -> Result<Subnets, Rejection> {
    let no_room = || Rejection::invalid(format!("subnet {subnet} has no room for a gateway"));
    subnet.address(1).and_then(|gateway| Subnets::one(subnet, gateway)).ok_or_else(no_room)
}

fn with_given_gateway(subnet: Subnet, text: &str) -> Result<Subnets, Rejection> {
    let invalid = |why: &str| {
        Rejection::invalid(format!(
            "invalid gateway {text} for subnet {subnet}: {why}; leave it out to have the first \
             address taken"
        ))
    };
    let address: IpAddr = text.parse().map_err(|_not_one| invalid("it is not an address"))?;
    let subnets = Subnets::one(subnet, address);
    let subnets = subnets.ok_or_else(|| invalid("it is not in the subnet"))?;
    if subnet.address(0) == Some(address) || subnet.last() == address {
        return Err(invalid("it is the network or the broadcast address"));
    }
    Ok(subnets)
}

fn check_range(subnet: Subnet, text: &str) -> Result<(), Rejection> {
    if text.is_empty() {
        return Ok(());
    }
    let inside = |range: &Subnet| {
        subnet.contains(range.net().network()) && subnet.prefix_len() <= range.prefix_len()
    };
    if text.parse().is_ok_and(|range: Subnet| inside(&range)) {
        return Ok(());
    }
    Err(Rejection::invalid(format!(
        "invalid IP range {text} for subnet {subnet}: give a prefix within the subnet"
    )))
}

/// The VNI that the user asked for, or the next free one.
fn vni(state: &State, spec: &NetworkSpec) -> Result<Vni, Rejection> {
    let Some(list) = spec.options.get(VNI_OPTION) else {
        return ipam::next_vni(state)
            .ok_or_else(|| Rejection::new(Code::Exhausted, "no VNI is free: remove a network"));
    };
    let invalid = |why: String| {
        Rejection::invalid(format!("invalid VNI {list} in option {VNI_OPTION}: {why}"))
    };
    let number: u32 =
        list.trim().parse().map_err(|_not_one| invalid("give one number".to_owned()))?;
    let vni = Vni::try_from(number).map_err(|error| invalid(error.to_string()))?;
    let other = state.index.vnis.of(vni).next().and_then(|id| state.networks.get(&id));
    match other {
        None => Ok(vni),
        Some(other) => Err(Rejection::new(
            Code::Conflict,
            format!(
                "VNI {vni} is in use by network {}: give another, or leave the option out",
                other.spec.name
            ),
        )),
    }
}
