//! Published ports in the host's table, without those that host programs hold.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cluster::spec::Protocol;

use super::TABLE;
use crate::plane::element::{Element, Part};
use crate::plane::{Family, Place, Plane, Table, TableKey};
use crate::ports::Port;

/// The map of ports that are published at all addresses of the host.
pub const PUBLISHED: &str = "published";
/// The map of ports that are published at one address.
pub const BOUND: &str = "bound";

/// The host's table.
pub(super) fn table_key() -> TableKey {
    TableKey { family: Family::Ip, name: TABLE.to_owned() }
}

/// The ports that lead to services in a host's namespace, desired or observed.
#[must_use]
pub fn published(plane: &Plane) -> BTreeSet<Port> {
    let host = plane.spaces.get(&Place::Host);
    let table = host.and_then(|host| host.nft.get(&table_key()));
    let maps = [PUBLISHED, BOUND].into_iter().filter_map(|map| table?.maps.get(map));
    maps.flatten().filter_map(|(key, _)| port(key)).collect()
}

/// Removes these ports, which host programs hold.
pub fn withhold<'a>(plane: &mut Plane, ports: impl IntoIterator<Item = &'a Port>) {
    let host = plane.spaces.get_mut(&Place::Host);
    let Some(table) = host.and_then(|host| host.nft.get_mut(&table_key())) else { return };
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

/// The map that contains a port, and its key there: `[<address> . ]<protocol> . <port>`.
fn element(port: &Port) -> (&'static str, Element) {
    let (protocol, number) = (Part::protocol(port.protocol), Part::Port(port.number));
    match port.address {
        None => (PUBLISHED, Element::of([protocol, number])),
        Some(address) => (BOUND, Element::of([address.into(), protocol, number])),
    }
}

/// The port of a key in either map.
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
