//! The numbers of published ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use imbl::OrdSet;

use crate::id::{NodeId, ServiceId};
use crate::object::PublishedPort;
use crate::rejection::{Code, Rejection};
use crate::spec::{CheckedSpec, PortConfig, Protocol, PublishMode};
use crate::state::{AUTO_PORTS, Port, State};

/// The published ports of a spec with their numbers. A port that the user left open keeps the
/// number that it has, and so does every port its ports towards the ingress VIP.
pub(crate) fn resolve(
    state: &State,
    id: ServiceId,
    spec: &CheckedSpec,
    before: &[PublishedPort],
) -> Result<Vec<PublishedPort>, Rejection> {
    let ports = &spec.endpoint_spec.ports;
    let mut free = free_for(state, id, ports, before);
    let mut result: Vec<PublishedPort> = Vec::with_capacity(ports.len());
    for (port, address) in ports.iter().zip(&spec.terms().addresses) {
        let address = address.clone()?;
        let published = if port.published_port == 0 {
            open_port((port, address), before, &result, &free)?
        } else {
            check_free(state, id, (port, address))?;
            port.published_port
        };
        free.remove(&(port.protocol, published));
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

/// Numbers for ports that a spec leaves open: those that nobody else has, nor the spec names.
fn free_for(
    state: &State,
    id: ServiceId,
    ports: &[PortConfig],
    before: &[PublishedPort],
) -> OrdSet<Port> {
    let held = &state.index.ports;
    let mut free = held.free().clone();
    let own = before.iter().map(|old| (old.protocol, old.published));
    free.extend(own.filter(|port| AUTO_PORTS.contains(&port.1) && !held.is_held_but_by(id, *port)));
    for port in data_path_port(state).into_iter().chain(ports.iter().map(number)) {
        free.remove(&port);
    }
    free
}

fn number(port: &PortConfig) -> Port {
    (port.protocol, port.published_port)
}

/// The number that the port has already, or the lowest free one of Docker's range.
fn open_port(
    (port, address): (&PortConfig, Option<IpAddr>),
    before: &[PublishedPort],
    given: &[PublishedPort],
    free: &OrdSet<Port>,
) -> Result<u16, Rejection> {
    let same = |old: &&PublishedPort| {
        (old.protocol, old.target, old.mode, old.address)
            == (port.protocol, port.target_port, port.publish_mode, address)
            && AUTO_PORTS.contains(&old.published)
    };
    let taken = |number: u16| {
        given.iter().any(|other| (other.protocol, other.published) == (port.protocol, number))
    };
    if let Some(old) = before.iter().filter(same).find(|old| !taken(old.published))
        && free.contains(&(port.protocol, old.published))
    {
        return Ok(old.published);
    }
    let mut lowest = free.range((port.protocol, 0)..=(port.protocol, u16::MAX));
    lowest.next().map(|(_, number)| *number).ok_or_else(|| {
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
    })
}

/// Two services may publish one port in mode `host` (never on one node: the scheduler sees to it);
/// in mode `ingress` it belongs to one on all nodes, or to one for each address.
fn check_free(
    state: &State,
    id: ServiceId,
    (port, address): (&PortConfig, Option<IpAddr>),
) -> Result<(), Rejection> {
    let held = &state.index.ports;
    let wanted = number(port);
    // Gossip, VXLAN and the managers: publishing one on every node would cut the cluster.
    if held.is_of_nodes(wanted) || data_path_port(state) == Some(wanted) {
        return Err(Rejection::invalid(format!(
            "port '{}' is already in use by the cluster itself ({}): publish another",
            port.published_port,
            port.protocol.name()
        )));
    }
    let modes: &[PublishMode] = match port.publish_mode {
        PublishMode::Ingress => &[PublishMode::Ingress, PublishMode::Host],
        PublishMode::Host => &[PublishMode::Ingress],
    };
    let holders = modes.iter().filter_map(|mode| held.holder(wanted, *mode, address, id));
    let Some(other) = holders.min().and_then(|holder| state.services.get(&holder)) else {
        return Ok(());
    };
    let overlaps = |taken: &&PublishedPort| {
        (taken.protocol, taken.published) == wanted
            && modes.contains(&taken.mode)
            && (taken.address == address || taken.address.is_none() || address.is_none())
    };
    let how = match other.ports.iter().find(overlaps).map(|taken| taken.mode) {
        Some(PublishMode::Host) => "a host-published port",
        Some(PublishMode::Ingress) | None => "an ingress port",
    };
    Err(Rejection::invalid(format!(
        "port '{}' is already in use by service '{}' ({}) as {how}",
        port.published_port, other.spec.name, other.id
    )))
}

fn data_path_port(state: &State) -> Option<Port> {
    state.cluster.as_ref().map(|cluster| (Protocol::Udp, cluster.data_path_port))
}

/// What is given out within one service: the ports towards its ingress VIP, by published port and
/// node.
pub(crate) fn ingress_ports_in_use(ports: &[PublishedPort]) -> BTreeSet<u16> {
    ports.iter().flat_map(|port| port.ingress_ports.values().copied()).collect()
}

/// The numbers of one port for exactly these nodes; `None` if they ran out.
pub(crate) fn cover(
    port: &PublishedPort,
    nodes: &BTreeSet<NodeId>,
    used: &mut BTreeSet<u16>,
) -> Option<BTreeMap<NodeId, u16>> {
    let mut numbers = port.ingress_ports.clone();
    numbers.retain(|node, _| nodes.contains(node));
    let free = INGRESS_PORTS.filter(|number| !used.contains(number));
    let lacking = nodes.iter().filter(|node| !numbers.contains_key(node));
    let given: Vec<(NodeId, u16)> = lacking.copied().zip(free).collect();
    used.extend(given.iter().map(|(_, number)| *number));
    numbers.extend(given);
    (numbers.len() == nodes.len()).then_some(numbers)
}

/// 60,000 ports towards an ingress VIP, clear of well-known ones.
pub(crate) const INGRESS_PORTS: std::ops::RangeInclusive<u16> = 5536..=65_535;

#[cfg(test)]
mod tests;
