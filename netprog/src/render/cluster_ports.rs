//! The cluster's own ports: tasks cannot reach those of any node, and the host accepts VXLAN from
//! known VTEPs only.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cluster::assignment::AssignedNode;
use cluster::spec::Protocol;

use super::{GWBRIDGE, INGRESS_LINK, Scene, TABLE, overlay, table};
use crate::plane::element::{Element, Part};
use crate::plane::{Family, Table, TableKey};

/// The set of VTEPs whose frames are accepted.
const VTEPS: &str = "vteps";

pub(crate) fn key() -> TableKey {
    TableKey { family: Family::Inet, name: TABLE.to_owned() }
}

/// The element that accepts frames of a VTEP, and whether the kernel has it.
pub(crate) fn evidence(host: &crate::plane::Space, vtep: IpAddr) -> (String, bool) {
    let vteps = host.nft.get(&key()).and_then(|table| table.sets.get(VTEPS));
    let present = vteps.is_some_and(|vteps| vteps.contains(&Element::of([vtep.into()])));
    (format!("{VTEPS} {{ {vtep} }}"), present)
}

pub(super) fn render(scene: &Scene<'_>) -> Table {
    let mut table = table(structure(scene), &["own", "members", "members6", VTEPS], &[]);
    let mut fill = |set: &str, elements: BTreeSet<Element>| {
        table.sets.insert(set.to_owned(), elements);
    };
    fill(VTEPS, vteps(scene).into_iter().map(|vtep| Element::of([vtep.into()])).collect());
    fill("own", own(scene));
    fill("members", members(scene, IpAddr::is_ipv4));
    fill("members6", members(scene, IpAddr::is_ipv6));
    table
}

/// VTEPs of all other nodes that the managers list.
fn vteps(scene: &Scene<'_>) -> BTreeSet<IpAddr> {
    let assignment = scene.assignment;
    let others = assignment.nodes.keys().filter(|node| **node != assignment.node);
    let vteps = others.filter_map(|node| overlay::vtep(scene, *node));
    vteps.filter(|vtep| vtep.is_ipv4() == scene.local.vtep.is_ipv4()).collect()
}

/// This node's ports, for every address of it.
fn own(scene: &Scene<'_>) -> BTreeSet<Element> {
    let node = scene.assignment.nodes.get(&scene.assignment.node);
    let gossip = node.map(|node| node.gossip.port());
    let gossip = gossip.into_iter().flat_map(|port| [(Protocol::Tcp, port), (Protocol::Udp, port)]);
    let ports = gossip.chain([(Protocol::Tcp, scene.local.cluster_port)]);
    let element = |(protocol, port)| Element::of([Part::protocol(protocol), Part::Port(port)]);
    ports.map(element).collect()
}

/// Every node's ports, by its addresses.
fn members(scene: &Scene<'_>, family: fn(&IpAddr) -> bool) -> BTreeSet<Element> {
    let listeners_of = |node: &AssignedNode| {
        let gossip = node.gossip.port();
        let mut ports = Vec::new();
        for address in [node.gossip.ip(), node.vtep] {
            ports.extend([(address, Protocol::Tcp, gossip), (address, Protocol::Udp, gossip)]);
            ports.extend(node.manager.map(|manager| (address, Protocol::Tcp, manager.port())));
        }
        ports.extend(node.manager.map(|manager| (manager.ip(), Protocol::Tcp, manager.port())));
        ports
    };
    let listeners = scene.assignment.nodes.values().flat_map(listeners_of);
    let listeners = listeners.filter(|(address, ..)| family(address));
    let element = |(address, protocol, port): (IpAddr, Protocol, u16)| {
        Element::of([address.into(), Part::protocol(protocol), Part::Port(port)])
    };
    listeners.map(element).collect()
}

/// Tasks cannot reach the VXLAN port of any address: a node may have addresses that the cluster
/// does not know, and a frame sent there would arrive as if from this node's VTEP. The chain sees
/// destinations before they are rewritten.
fn structure(scene: &Scene<'_>) -> String {
    let port = scene.assignment.data_path_port;
    let (ip, address) = match scene.local.vtep {
        IpAddr::V4(_) => ("ip", "ipv4_addr"),
        IpAddr::V6(_) => ("ip6", "ipv6_addr"),
    };
    format!(
        "set own {{ type inet_proto . inet_service; }}
set members {{ type ipv4_addr . inet_proto . inet_service; }}
set members6 {{ type ipv6_addr . inet_proto . inet_service; }}
set vteps {{ type {address}; }}
chain tasks {{
  type filter hook prerouting priority raw; policy accept;
  iifname != \"{GWBRIDGE}\" accept
  udp dport {port} drop
  ip daddr . meta l4proto . th dport @members drop
  ip6 daddr . meta l4proto . th dport @members6 drop
}}
chain input {{
  type filter hook input priority filter; policy accept;
  iifname {{ \"{INGRESS_LINK}\", \"{GWBRIDGE}\" }} meta l4proto . th dport @own drop
  udp dport {port} {ip} saddr != @vteps drop
}}
"
    )
}
