//! Virtual services of a network, and the balancers that can program them.

mod ipvs;
mod nft;
mod returns;

use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster::assignment::AssignedNetwork;
use cluster::id::NetworkId;
use cluster::net::MacAddr;

use super::{Scene, bridge_name, exactly, ingress, vip_route, vxlan_name};
use crate::endpoint::{Endpoint, open};
use crate::local::Balancer;
use crate::plane::Space;

/// How long an open TCP connection is remembered after its caller's last packet. RFC 5382, REQ-5
/// asks for 2 h 4 min, keepalives are sent every 2 h (tcp(7)); a day covers a connection
/// pool that is idle overnight.
const OPEN_SECONDS: u32 = 86_400;
/// The same after the caller's FIN or the last packet after it: the backend may still send, and the
/// caller acknowledges. This is the default of IPVS (`tcp_timeouts`,
/// net/netfilter/ipvs/ip_vs_proto_tcp.c).
const CLOSING_SECONDS: u32 = 120;
/// The same for a flow of datagrams (RFC 4787, REQ-5).
const DATAGRAMS_SECONDS: u32 = 300;

/// A real server of a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Backend {
    /// Its address on the network.
    pub(crate) address: IpAddr,
    /// Its MAC address there.
    pub(crate) mac: MacAddr,
}

/// A VIP and its backends, as every balancer needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VirtualService {
    /// The virtual address.
    pub(crate) vip: IpAddr,
    /// Take new flows.
    pub(crate) open: Vec<Backend>,
    /// Keep the flows that they have (IPVS: the others of these have weight 0).
    pub(crate) live: Vec<Backend>,
}

/// Facts about a fabric that its balancer needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FabricFacts {
    pub(crate) bridge: String,
    /// Its MAC address: the destination of frames without a backend.
    pub(crate) bridge_mac: MacAddr,
    /// The VXLAN device: frames from it are already balanced.
    pub(crate) vxlan: String,
    /// Whether addresses are IPv4.
    pub(crate) ipv4: bool,
    /// On the ingress network: VIP and ingress port → `ing0` of the node that the port belongs to.
    pub(crate) returns: Option<BTreeMap<(IpAddr, u16), MacAddr>>,
}

/// A kernel entry that a call to a VIP needs, in the notation of the tool that shows it, and
/// whether the kernel has it.
pub(crate) type Evidence = (String, bool);

/// Programs virtual services into a fabric. Frames to a VIP enter addressed to the bridge and
/// leave addressed to a backend; source and destination address stay as they are, and nothing may
/// depend on the source MAC address, because IPVS routes a frame again.
pub(crate) trait LoadBalancer: Sync {
    /// Adds the balancer's entries for these services; the bridge already answers for their VIPs.
    fn program(&self, facts: &FabricFacts, services: &[VirtualService], space: &mut Space);

    /// The entry that leads packets to this VIP to the balancer.
    fn takes(&self, fabric: &Space, vip: IpAddr) -> Evidence;

    /// For each backend of the service that takes new flows: its share as text, and the entries
    /// that lead to it.
    fn shares(&self, fabric: &Space, service: &VirtualService) -> Vec<(String, Vec<Evidence>)>;
}

/// The balancer by that name.
pub(crate) fn balancer(choice: Balancer) -> &'static dyn LoadBalancer {
    match choice {
        Balancer::Nft => &nft::NftBalancer,
        Balancer::Ipvs => &ipvs::IpvsBalancer,
    }
}

/// The endpoints of a service that can be backends of a VIP: those with an address of its family.
pub(crate) fn behind<'a>(vip: IpAddr, endpoints: &[&'a Endpoint]) -> Vec<&'a Endpoint> {
    endpoints.iter().copied().filter(|e| e.addresses.like(vip).is_some()).collect()
}

/// A service's VIP on a network, with its backends.
pub(crate) fn virtual_service(vip: IpAddr, endpoints: &[&Endpoint]) -> VirtualService {
    let endpoints = behind(vip, endpoints);
    let backend = |endpoint: &Endpoint| {
        let address = endpoint.addresses.like(vip)?;
        Some(Backend { address, mac: endpoint.mac })
    };
    VirtualService {
        vip,
        open: open(endpoints.iter().copied()).into_iter().filter_map(backend).collect(),
        live: endpoints.into_iter().filter(|e| e.is_live()).filter_map(backend).collect(),
    }
}

pub(super) fn render(
    scene: &Scene<'_>,
    id: NetworkId,
    network: &AssignedNetwork,
    space: &mut Space,
) {
    let facts = FabricFacts {
        bridge: bridge_name(id, network),
        bridge_mac: MacAddr::for_address(network.subnets.gateways().first()),
        vxlan: vxlan_name(id, network),
        ipv4: network.subnets.v4().is_some(),
        returns: network.ingress.then(|| ingress::returns(scene)),
    };
    let by_service = scene.directory.by_service(id);
    let services: Vec<VirtualService> = scene
        .assignment
        .services
        .iter()
        .filter_map(|(service, assigned)| Some((service, assigned.vips.get(&id)?)))
        .flat_map(|(service, vips)| {
            let endpoints = by_service.get(service).map_or(&[][..], Vec::as_slice);
            vips.iter().map(move |vip| virtual_service(vip, endpoints))
        })
        .collect();
    for service in &services {
        answer_for(space, &facts.bridge, service.vip);
    }
    scene.balancer.program(&facts, &services, space);
}

/// Makes the bridge answer for a VIP: IPv4 by a local route, IPv6 only by an address.
fn answer_for(space: &mut Space, bridge: &str, vip: IpAddr) {
    match vip_route(vip) {
        Some(route) => space.routes.insert(route),
        None => space.addresses.insert((bridge.to_owned(), exactly(vip))),
    };
}
