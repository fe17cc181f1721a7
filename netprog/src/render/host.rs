//! The host's namespace: egress bridge, masquerade, published ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster::net::MacAddr;

use super::ports::{BOUND, PUBLISHED};
use super::{
    GWBRIDGE, INGRESS_LINK, Scene, cluster_ports, egress, ingress, ports, senders, table, within,
};
use crate::plane::element::{Element, Part};
use crate::plane::{ALIAS_PREFIX, Link, LinkKind, Place, Plane, Space};
use crate::ports::Port;

/// Limits of the neighbour tables, for networks of many thousand endpoints: Docker's
/// (libnetwork, drivers/overlay/ostweaks_linux.go).
const NEIGHBOUR_LIMITS: [(&str, &str); 3] = [
    ("net/ipv4/neigh/default/gc_thresh1", "8192"),
    ("net/ipv4/neigh/default/gc_thresh2", "49152"),
    ("net/ipv4/neigh/default/gc_thresh3", "65536"),
];

pub(super) fn render(scene: &Scene<'_>, plane: &mut Plane) {
    let mut space = Space::default();
    let subnet = scene.local.gwbridge;
    if let Some(gateway) = subnet.address(1) {
        space.links.insert(
            GWBRIDGE.to_owned(),
            Link {
                kind: LinkKind::Bridge,
                up: true,
                mtu: egress::mtu(scene),
                mac: Some(MacAddr::for_address(gateway)),
                master: None,
                alias: format!("{ALIAS_PREFIX}gwbridge"),
                port: None,
            },
        );
        space.addresses.insert((GWBRIDGE.to_owned(), within(gateway, subnet)));
        // A caller at 127.0.0.1 leaves by this bridge for a port in mode `host`.
        let sysctl = format!("net/ipv4/conf/{GWBRIDGE}/route_localnet");
        space.sysctls.insert(sysctl, "1".to_owned());
    }
    space.sysctls.insert("net/ipv4/ip_forward".to_owned(), "1".to_owned());
    let limits = NEIGHBOUR_LIMITS.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    space.sysctls.extend(limits);
    let mut table = table(structure(scene), &[], &[PUBLISHED, BOUND]);
    for (port, target) in published(scene) {
        ports::publish(&mut table, &port, target);
    }
    space.nft.insert(ports::table_key(), table);
    space.nft.insert(cluster_ports::key(), cluster_ports::render(scene));
    space.nft.insert(senders::key(), senders::empty(subnet.net().addr().is_ipv4(), None));
    plane.spaces.insert(Place::Host, space);
}

/// Every published port of this node and its target: a VIP on the ingress network, or, in mode
/// `host`, the task's address on the egress bridge.
fn published(scene: &Scene<'_>) -> BTreeMap<Port, Element> {
    let mut published = ingress::published(scene);
    for (task, sandbox) in scene.sandboxes().filter(|(task, _)| !task.assigned.draining) {
        let Some(own) = scene.assignment.own.get(&task.id) else { continue };
        for port in own.host_ports() {
            let target = Element::of([sandbox.egress.into(), Part::Port(port.target)]);
            published.insert(port.into(), target);
        }
    }
    published
}

/// A caller whose address belongs to a link of the task, or is loopback, gets the node's underlay
/// address as its source. Otherwise an unbound UDP server would reply from its address on that
/// link, and no connection would match the reply.
fn source(scene: &Scene<'_>) -> String {
    let gwbridge = scene.local.gwbridge;
    let ingress = scene.ingress().and_then(|(_, network)| network.subnets.v4());
    let ingress = ingress.map(|subnet| format!(", {}", subnet.trunc()));
    let near = format!("{{ 127.0.0.0/8, {gwbridge}{} }}", ingress.unwrap_or_default());
    let how = match scene.local.vtep {
        IpAddr::V4(vtep) => format!("snat to {vtep}"),
        IpAddr::V6(_) => "masquerade".to_owned(),
    };
    format!("oifname \"{INGRESS_LINK}\" ip saddr {near} {how}")
}

fn structure(scene: &Scene<'_>) -> String {
    let gwbridge = scene.local.gwbridge;
    let source = source(scene);
    format!(
        "map published {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
map bound {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
chain raw {{
  type filter hook prerouting priority raw; policy accept;
  iifname {{ \"{INGRESS_LINK}\", \"{GWBRIDGE}\" }} ip daddr 127.0.0.0/8 drop
}}
chain prerouting {{
  type nat hook prerouting priority dstnat; policy accept;
  fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @bound
  fib daddr type local dnat ip to meta l4proto . th dport map @published
}}
chain output {{
  type nat hook output priority -100; policy accept;
  fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @bound
  fib daddr type local dnat ip to meta l4proto . th dport map @published
}}
chain postrouting {{
  type nat hook postrouting priority srcnat; policy accept;
  {source}
  ip saddr 127.0.0.0/8 oifname \"{GWBRIDGE}\" masquerade
  ip saddr {gwbridge} oifname != \"{GWBRIDGE}\" masquerade
  ip saddr {gwbridge} oifname \"{GWBRIDGE}\" ct status dnat masquerade
}}
chain input {{
  type filter hook input priority filter; policy accept;
  iifname \"{INGRESS_LINK}\" meta l4proto {{ tcp, udp }} ct state new drop
}}
chain forward {{
  type filter hook forward priority filter; policy accept;
  iifname \"{INGRESS_LINK}\" ct state new drop
  iifname \"{GWBRIDGE}\" oifname != {{ \"{INGRESS_LINK}\", \"{GWBRIDGE}\" }} accept
  oifname {{ \"{INGRESS_LINK}\", \"{GWBRIDGE}\" }} ct state established,related accept
  oifname {{ \"{INGRESS_LINK}\", \"{GWBRIDGE}\" }} ct status dnat accept
  oifname {{ \"{INGRESS_LINK}\", \"{GWBRIDGE}\" }} drop
}}
"
    )
}
