//! A network's fabric: bridge, VXLAN device, ports of local endpoints, entries for remote ones.

use std::net::IpAddr;

use cluster::assignment::AssignedNetwork;
use cluster::id::{NetworkId, NodeId};
use cluster::net::MacAddr;

use super::{Scene, bridge_name, bridge_port, fabric, on, senders, service, vxlan_name};
use crate::endpoint::Endpoint;
use crate::plane::{ALIAS_PREFIX, FdbKey, FdbTable, Link, LinkKind, Plane, PortFlags, Space};

pub(super) fn render(
    scene: &Scene<'_>,
    id: NetworkId,
    network: &AssignedNetwork,
    plane: &mut Plane,
) {
    let mut space = Space::default();
    devices(scene, id, network, &mut space);
    // Bridged frames must not meet iptables where br_netfilter is loaded: a new namespace starts
    // with it on. Nor may a fabric forward: what its balancer does not take ends here.
    space.sysctls.insert("net/bridge/bridge-nf-call-iptables".to_owned(), "0".to_owned());
    space.sysctls.insert("net/bridge/bridge-nf-call-ip6tables".to_owned(), "0".to_owned());
    space.sysctls.insert("net/ipv4/ip_forward".to_owned(), "0".to_owned());
    for endpoint in scene.directory.of(id).iter().filter(|e| e.node != scene.assignment.node) {
        if let Some(vtep) = vtep(scene, endpoint.node) {
            remote(&vxlan_name(id, network), endpoint, vtep, &mut space);
        }
    }
    space.nft.insert(
        senders::key(),
        senders::empty(network.subnets.v4().is_some(), Some(&vxlan_name(id, network))),
    );
    service::render(scene, id, network, &mut space);
    plane.spaces.insert(fabric(id), space);
}

fn devices(scene: &Scene<'_>, id: NetworkId, network: &AssignedNetwork, space: &mut Space) {
    let (bridge, vxlan) = (bridge_name(id, network), vxlan_name(id, network));
    let alias = format!("{ALIAS_PREFIX}{id}");
    let mtu = scene.mtu(network);
    space.links.insert(
        bridge.clone(),
        Link {
            kind: LinkKind::Bridge,
            up: true,
            mtu,
            // Fixed, because a bridge otherwise takes the least of its ports' and clients would
            // hold an outdated neighbour entry whenever a port comes or goes.
            mac: Some(MacAddr::for_address(network.subnets.gateways().first())),
            master: None,
            alias: alias.clone(),
            port: None,
        },
    );
    space.links.insert(
        vxlan,
        Link {
            kind: LinkKind::Vxlan {
                vni: network.vni,
                local: scene.local.vtep,
                port: scene.assignment.data_path_port,
            },
            up: true,
            mtu,
            mac: None,
            master: Some(bridge.clone()),
            alias,
            port: Some(PortFlags { hairpin: false, proxied: false, ..bridge_port::STATIC }),
        },
    );
    for gateway in network.subnets.gateways().iter() {
        space.addresses.insert((bridge.clone(), on(network, gateway)));
    }
}

/// The VTEP of a node according to the managers, so that no member can redirect frames.
pub(super) fn vtep(scene: &Scene<'_>, node: NodeId) -> Option<IpAddr> {
    scene.assignment.nodes.get(&node).map(|node| node.vtep)
}

/// Two FDB entries, and a neighbour entry for each address, from which the VXLAN device answers ARP
/// (`proxy`).
fn remote(vxlan: &str, endpoint: &Endpoint, vtep: IpAddr, space: &mut Space) {
    let key = |table| FdbKey { device: vxlan.to_owned(), mac: endpoint.mac, table };
    space.fdb.insert(key(FdbTable::Device), Some(vtep));
    space.fdb.insert(key(FdbTable::Bridge), None);
    for address in endpoint.addresses.iter() {
        space.neighbours.insert((vxlan.to_owned(), address), endpoint.mac);
    }
}
