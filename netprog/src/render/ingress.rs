//! The ingress network: the host's endpoint on it, published ports, and the return path.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster::assignment::{AssignedNetwork, AssignedService};
use cluster::id::NetworkId;
use cluster::net::MacAddr;
use cluster::spec::PublishMode;

use super::{INGRESS_LINK, Scene, bridge_name, bridge_port, everywhere, fabric, on};
use crate::plane::element::{Element, Part};
use crate::plane::{ALIAS_PREFIX, Link, LinkKind, Place, Plane, Route, TABLE_MAIN, VethPair};
use crate::ports::Port;

/// The other end of `ing0`, in the ingress fabric.
const OUTER: &str = "ve-ing0";

/// Makes the host an endpoint of the ingress network.
pub(super) fn attach_host(
    scene: &Scene<'_>,
    id: NetworkId,
    network: &AssignedNetwork,
    plane: &mut Plane,
) {
    let own = scene.assignment.nodes.get(&scene.assignment.node);
    let Some(attachment) = own.and_then(|node| node.ingress.as_ref()) else { return };
    let (mtu, bridge) = (scene.mtu(network), bridge_name(id, network));
    let alias = format!("{ALIAS_PREFIX}{id}");
    let space = plane.spaces.entry(fabric(id)).or_default();
    bridge_port::add(space, OUTER, (&bridge, mtu), attachment, &alias);
    // So that the fabric itself can refuse a call that no backend takes: the caller is outside.
    space.routes.extend(attachment.addresses.iter().map(|address| Route {
        table: TABLE_MAIN,
        destination: everywhere(address),
        local: false,
        via: Some(address),
        device: bridge.clone(),
    }));
    let host = plane.spaces.entry(Place::Host).or_default();
    host.links.insert(
        INGRESS_LINK.to_owned(),
        Link {
            kind: LinkKind::Veth,
            up: true,
            mtu,
            mac: Some(attachment.mac),
            master: None,
            alias,
            port: None,
        },
    );
    for address in attachment.addresses.iter() {
        host.addresses.insert((INGRESS_LINK.to_owned(), on(network, address)));
    }
    // A caller at 127.0.0.1 leaves by this link, with its source rewritten.
    let sysctl = format!("net/ipv4/conf/{INGRESS_LINK}/route_localnet");
    host.sysctls.insert(sysctl, "1".to_owned());
    plane.veths.insert(VethPair {
        outer: (fabric(id), OUTER.to_owned()),
        inner: (Place::Host, INGRESS_LINK.to_owned()),
    });
}

/// Published ports are IPv4 only.
fn vip_on(ingress: NetworkId, service: &AssignedService) -> Option<IpAddr> {
    service.vips.get(&ingress)?.v4().map(IpAddr::V4)
}

/// VIP and ingress port → `ing0` of the node that the port belongs to, which is where a reply from
/// that port goes.
pub(super) fn returns(scene: &Scene<'_>) -> BTreeMap<(IpAddr, u16), MacAddr> {
    let Some((ingress, _)) = scene.ingress() else { return BTreeMap::new() };
    let mut returns = BTreeMap::new();
    for service in scene.assignment.services.values() {
        let Some(vip) = vip_on(ingress, service) else { continue };
        for (node, port) in service.ports.iter().flat_map(|port| &port.ingress_ports) {
            let attachment = scene.assignment.nodes.get(node).and_then(|n| n.ingress.as_ref());
            if let Some(attachment) = attachment {
                returns.insert((vip, *port), attachment.mac);
            }
        }
    }
    returns
}

/// Published port → `<VIP> . <this node's port>`.
pub(super) fn published(scene: &Scene<'_>) -> BTreeMap<Port, Element> {
    let Some((ingress, _)) = scene.ingress() else { return BTreeMap::new() };
    let mut published = BTreeMap::new();
    for service in scene.assignment.services.values() {
        let Some(vip) = vip_on(ingress, service) else { continue };
        for port in service.ports.iter().filter(|port| port.mode == PublishMode::Ingress) {
            if let Some(own) = port.ingress_ports.get(&scene.assignment.node) {
                let target = Element::of([vip.into(), Part::Port(*own)]);
                published.insert(port.into(), target);
            }
        }
    }
    published
}
