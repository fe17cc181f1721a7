//! Published ports in the host's table: which there are, and those that are left to programs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cluster::spec::Protocol;

use super::host;
use crate::plane::element::{Element, Part};
use crate::plane::{Place, Plane, Table};
use crate::ports::Port;

/// The map of ports that all addresses of the host take calls to.
pub const PUBLISHED: &str = "published";
/// The map of ports that one address takes calls to.
pub const BOUND: &str = "bound";

/// The ports that lead to services in a host's namespace, desired or observed.
#[must_use]
pub fn published(plane: &Plane) -> BTreeSet<Port> {
    let host = plane.spaces.get(&Place::Host);
    let table = host.and_then(|host| host.nft.get(&host::key()));
    let maps = [PUBLISHED, BOUND].into_iter().filter_map(|map| table?.maps.get(map));
    maps.flatten().filter_map(|(key, _)| port(key)).collect()
}

/// Leaves these ports to the programs that have them.
pub fn withhold<'a>(plane: &mut Plane, ports: impl IntoIterator<Item = &'a Port>) {
    let host = plane.spaces.get_mut(&Place::Host);
    let Some(table) = host.and_then(|host| host.nft.get_mut(&host::key())) else { return };
    for (map, key) in ports.into_iter().map(element) {
        if let Some(elements) = table.maps.get_mut(map) {
            elements.remove(&key);
        }
    }
}

/// Publishes a port on the host.
pub(super) fn publish(table: &mut Table, port: &Port, target: Element) {
    let (map, key) = element(port);
    table.maps.entry(map.to_owned()).or_default().insert(key, target);
}

/// In which map a port is, and its key there: `[<address> . ]<protocol> . <port>`.
fn element(port: &Port) -> (&'static str, Element) {
    let (protocol, number) = (Part::protocol(port.protocol), Part::Port(port.number));
    match port.address {
        None => (PUBLISHED, Element::of([protocol, number])),
        Some(address) => (BOUND, Element::of([address.into(), protocol, number])),
    }
}

/// Of a key of either map.
fn port(key: &Element) -> Option<Port> {
    let (address, protocol, number) = match key.parts() {
        [protocol, Part::Port(number)] => (None, protocol, number),
        [Part::V4(address), protocol, Part::Port(number)] => {
            (Some(IpAddr::V4(*address)), protocol, number)
        }
        _ => return None,
    };
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = all.into_iter().find(|known| Part::protocol(*known) == *protocol)?;
    Some(Port { protocol, number: *number, address })
}
