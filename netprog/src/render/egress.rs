//! The egress leg of a sandbox: its link to `skein_gwbridge`.

use cluster::net::MacAddr;

use super::senders::{self, Sender};
use super::{GWBRIDGE, LocalTask, Scene, everywhere, within};
use crate::local::LocalSandbox;
use crate::plane::{
    ALIAS_PREFIX, Link, LinkKind, Place, Plane, PortFlags, Route, Space, TABLE_MAIN, VethPair,
};

/// Over the egress bridge tasks reach the outside but not each other.
const PORT: PortFlags =
    PortFlags { learning: true, flood: true, hairpin: false, isolated: true, proxied: false };

/// MTU of the egress bridge and its ports. It equals that of the overlay links, so that a task's
/// sockets use the same MTU whichever link a reply takes: a call through the ingress network
/// arrives on that link, but its socket takes the MTU of the default route.
pub(super) fn mtu(scene: &Scene<'_>) -> u32 {
    let own = scene.overlay_mtu(scene.underlay_mtu());
    scene.ingress().map_or(own, |(_, network)| own.min(scene.mtu(network)))
}

/// Whether a task has an egress leg: it is on no network at all, on a network that is not internal,
/// or it publishes a port in mode `host`, which leads to this leg.
pub(super) fn has_leg(scene: &Scene<'_>, task: &LocalTask<'_>) -> bool {
    let networks = &scene.assignment.networks;
    let attachments = &task.assigned.attachments;
    let mut attached = attachments.iter().filter_map(|a| networks.get(&a.network)).peekable();
    let own = scene.assignment.own.get(&task.id);
    let publishes = own.is_some_and(|own| own.host_ports().next().is_some());
    attached.peek().is_none() || attached.any(|network| !network.internal) || publishes
}

/// Attaches a sandbox as `ethN`.
pub(super) fn attach(
    scene: &Scene<'_>,
    task: &LocalTask<'_>,
    (name, sandbox): (&str, &LocalSandbox),
    plane: &mut Plane,
    space: &mut Space,
) {
    let subnet = scene.local.gwbridge;
    let mtu = mtu(scene);
    let alias = format!("{ALIAS_PREFIX}{}", task.id);
    let outer = task.outer();
    let end = Link {
        kind: LinkKind::Veth,
        up: true,
        mtu,
        mac: None,
        master: Some(GWBRIDGE.to_owned()),
        alias,
        port: Some(PORT),
    };
    let (mac, address) = (MacAddr::for_address(sandbox.egress), sandbox.egress);
    let inner = Link { mac: Some(mac), master: None, port: None, ..end.clone() };
    let host = plane.spaces.entry(Place::Host).or_default();
    host.links.insert(outer.clone(), end);
    host.neighbours.insert((GWBRIDGE.to_owned(), address), mac);
    senders::allow(host, &Sender { port: &outer, mac, addresses: address.into(), vips: None });
    space.links.insert(name.to_owned(), inner);
    space.addresses.insert((name.to_owned(), within(sandbox.egress, subnet)));
    if let Some(gateway) = subnet.address(1) {
        space.routes.insert(Route {
            table: TABLE_MAIN,
            destination: everywhere(gateway),
            local: false,
            via: Some(gateway),
            device: name.to_owned(),
        });
    }
    plane.veths.insert(VethPair {
        outer: (Place::Host, outer),
        inner: (Place::Sandbox(task.id), name.to_owned()),
    });
}
