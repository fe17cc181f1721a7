//! The numbers of published ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::id::ServiceId;
use crate::object::{PublishedPort, Service};
use crate::rejection::{Code, Rejection};
use crate::spec::{PortConfig, Protocol, PublishMode, ServiceSpec};
use crate::state::State;

/// Docker's range for ports that the user leaves open.
pub(crate) const AUTO_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

type Used = BTreeSet<(Protocol, u16)>;

/// The published ports of a spec with their numbers. A port that the user left open keeps the
/// number that it has, and so does every port its ports towards the ingress VIP.
pub(crate) fn resolve(
    state: &State,
    id: ServiceId,
    spec: &ServiceSpec,
    before: &[PublishedPort],
) -> Result<Vec<PublishedPort>, Rejection> {
    let ports = &spec.endpoint_spec.ports;
    if ports.is_empty() {
        // Nothing to look for among all services and nodes.
        return Ok(Vec::new());
    }
    let others: Vec<&Service> =
        state.live_services().filter(|other| other.id != id).map(|other| &**other).collect();
    let mut used: Used = cluster_ports(state);
    used.extend(others.iter().flat_map(|other| &other.ports).map(|p| (p.protocol, p.published)));
    used.extend(ports.iter().map(|port| (port.protocol, port.published_port)));
    let mut result: Vec<PublishedPort> = Vec::with_capacity(ports.len());
    for port in ports {
        let address = address(port)?;
        let published = if port.published_port == 0 {
            open_port(port, before, &result, &used)?
        } else {
            check_free(state, (port, address), &others)?;
            port.published_port
        };
        used.insert((port.protocol, published));
        let kept = before.iter().find(|old| {
            (old.protocol, old.published, old.mode, old.address)
                == (port.protocol, published, port.publish_mode, address)
        });
        result.push(PublishedPort {
            name: port.name.clone(),
            protocol: port.protocol,
            target: port.target_port,
            published,
            mode: port.publish_mode,
            address,
            ingress_ports: kept.map(|old| old.ingress_ports.clone()).unwrap_or_default(),
        });
    }
    Ok(result)
}

/// The number that the port has already, or the lowest free one of Docker's range.
fn open_port(
    port: &PortConfig,
    before: &[PublishedPort],
    given: &[PublishedPort],
    used: &Used,
) -> Result<u16, Rejection> {
    let same = |old: &&PublishedPort| {
        (old.protocol, old.target, old.mode) == (port.protocol, port.target_port, port.publish_mode)
            && address(port).is_ok_and(|address| address == old.address)
            && AUTO_PORTS.contains(&old.published)
    };
    let taken = |number: u16| {
        given.iter().any(|other| (other.protocol, other.published) == (port.protocol, number))
    };
    if let Some(old) = before.iter().filter(same).find(|old| !taken(old.published))
        && !used.contains(&(port.protocol, old.published))
    {
        return Ok(old.published);
    }
    AUTO_PORTS.into_iter().find(|number| !used.contains(&(port.protocol, *number))).ok_or_else(
        || {
            Rejection::new(
                Code::Exhausted,
                format!(
                    "no {} port from {} to {} is free for target port {}: give a published port",
                    port.protocol.name(),
                    AUTO_PORTS.start(),
                    AUTO_PORTS.end(),
                    port.target_port
                ),
            )
        },
    )
}

/// The address of a node that alone takes calls to the port; none for all of them.
pub(crate) fn address(port: &PortConfig) -> Result<Option<IpAddr>, Rejection> {
    let given = &port.host_ip;
    if given.is_empty() {
        return Ok(None);
    }
    let refuse = |why: &str| {
        let target = port.target_port;
        Rejection::invalid(format!(
            "HostIP {given:?} of target port {target} {why}: give an IPv4 address of a node, or \
             none for all of them"
        ))
    };
    match given.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Ok(None),
        Ok(IpAddr::V4(address)) if address.is_multicast() || address.is_broadcast() => {
            Err(refuse("is no address of one machine"))
        }
        Ok(address @ IpAddr::V4(_)) => Ok(Some(address)),
        Ok(IpAddr::V6(_)) => Err(Rejection {
            code: Code::Unimplemented,
            ..refuse("is of IPv6, which published ports do not have yet")
        }),
        Err(_) => Err(refuse("is no IP address")),
    }
}

/// Two services may publish one port in mode `host` (never on one node: the scheduler sees to it);
/// in mode `ingress` it belongs to one on all nodes, or to one for each address.
fn check_free(
    state: &State,
    (port, address): (&PortConfig, Option<IpAddr>),
    others: &[&Service],
) -> Result<(), Rejection> {
    let wanted = (port.protocol, port.published_port);
    if cluster_ports(state).contains(&wanted) {
        return Err(Rejection::invalid(format!(
            "port '{}' is already in use by the cluster itself ({}): publish another",
            port.published_port,
            port.protocol.name()
        )));
    }
    for other in others {
        let overlaps = |taken: &&PublishedPort| {
            (taken.protocol, taken.published) == wanted
                && (taken.address == address || taken.address.is_none() || address.is_none())
        };
        for taken in other.ports.iter().filter(overlaps) {
            let how = match (taken.mode, port.publish_mode) {
                (PublishMode::Ingress, _) => "an ingress port",
                (PublishMode::Host, PublishMode::Ingress) => "a host-published port",
                (PublishMode::Host, PublishMode::Host) => continue,
            };
            return Err(Rejection::invalid(format!(
                "port '{}' is already in use by service '{}' ({}) as {how}",
                port.published_port, other.spec.name, other.id
            )));
        }
    }
    Ok(())
}

/// The ports of gossip, VXLAN and the managers: publishing one on every node would cut the cluster.
fn cluster_ports(state: &State) -> Used {
    let mut used = Used::new();
    if let Some(cluster) = &state.cluster {
        used.insert((Protocol::Udp, cluster.data_path_port));
    }
    for node in state.nodes.values() {
        used.insert((Protocol::Tcp, node.description.gossip.port()));
        used.insert((Protocol::Udp, node.description.gossip.port()));
        if let Some(place) = node.raft() {
            used.insert((Protocol::Tcp, place.address.port()));
        }
    }
    used
}

/// What is given out within one service: the ports towards its ingress VIP, by published port and
/// node.
pub(crate) fn ingress_ports_in_use(ports: &[PublishedPort]) -> BTreeSet<u16> {
    ports.iter().flat_map(|port| port.ingress_ports.values().copied()).collect()
}

/// The numbers of one port for exactly these nodes; `None` if they ran out.
pub(crate) fn cover(
    port: &PublishedPort,
    nodes: &BTreeSet<crate::id::NodeId>,
    used: &mut BTreeSet<u16>,
) -> Option<BTreeMap<crate::id::NodeId, u16>> {
    let mut numbers = port.ingress_ports.clone();
    numbers.retain(|node, _| nodes.contains(node));
    for node in nodes {
        if !numbers.contains_key(node) {
            let free = INGRESS_PORTS.into_iter().find(|number| !used.contains(number))?;
            used.insert(free);
            numbers.insert(*node, free);
        }
    }
    Some(numbers)
}

/// 60,000 ports towards an ingress VIP, clear of well-known ones.
pub(crate) const INGRESS_PORTS: std::ops::RangeInclusive<u16> = 5536..=65_535;
