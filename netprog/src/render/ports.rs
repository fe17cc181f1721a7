//! Published ports in the host's table: which there are, and those that are left to programs.

use std::collections::BTreeSet;

use cluster::spec::Protocol;

use super::host;
use crate::plane::{Place, Plane, Table};
use crate::ports::Port;

/// The ports that lead to services in a host's namespace, desired or observed.
#[must_use]
pub fn published(plane: &Plane) -> BTreeSet<Port> {
    let host = plane.spaces.get(&Place::Host);
    let table = host.and_then(|host| host.nft.get(&host::key()));
    let elements = table.and_then(|table| table.maps.get(host::PUBLISHED));
    elements.into_iter().flatten().filter_map(|(key, _)| port(key)).collect()
}

/// Leaves these ports to the programs that have them.
pub fn withhold<'a>(plane: &mut Plane, ports: impl IntoIterator<Item = &'a Port>) {
    let host = plane.spaces.get_mut(&Place::Host);
    let Some(table) = host.and_then(|host| host.nft.get_mut(&host::key())) else { return };
    withhold_from(table, ports);
}

fn withhold_from<'a>(table: &mut Table, ports: impl IntoIterator<Item = &'a Port>) {
    let Some(elements) = table.maps.get_mut(host::PUBLISHED) else { return };
    let ports: BTreeSet<&Port> = ports.into_iter().collect();
    elements.retain(|key, _| port(key).is_none_or(|port| !ports.contains(&port)));
}

/// Of a key `<protocol> . <port>`, as [`host`] writes it.
fn port(key: &str) -> Option<Port> {
    let mut words = key.split(" . ");
    let (protocol, number) = (words.next()?, words.next()?);
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = all.into_iter().find(|known| known.name() == protocol)?;
    Some((protocol, number.parse().ok()?))
}
