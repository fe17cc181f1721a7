//! Virtual services of a network, and the balancers that can program them.

mod nft;

use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster::assignment::AssignedNetwork;
use cluster::id::NetworkId;
use cluster::net::MacAddr;

use super::{Scene, bridge_name, ingress, overlay, vxlan_name};
use crate::endpoint::{Endpoint, open};
use crate::local::Balancer;
use crate::plane::Space;

/// A real server of a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Its address on the network.
    pub address: IpAddr,
    /// Its MAC address there.
    pub mac: MacAddr,
}

impl From<&Endpoint> for Backend {
    fn from(endpoint: &Endpoint) -> Self {
        Self { address: endpoint.address, mac: endpoint.mac }
    }
}

/// A VIP and who serves it, as every balancer needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualService {
    /// The virtual address.
    pub vip: IpAddr,
    /// Take new flows.
    pub open: Vec<Backend>,
    /// Keep the flows that they have (IPVS: the others of these have weight 0).
    pub live: Vec<Backend>,
}

/// What a balancer must know of the fabric that it works in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FabricFacts {
    /// The bridge.
    pub bridge: String,
    /// Its MAC address: where a frame goes that no backend takes.
    pub bridge_mac: MacAddr,
    /// The VXLAN device: what comes by it has been balanced already.
    pub vxlan: String,
    /// Whether addresses are IPv4.
    pub ipv4: bool,
    /// On the ingress network: VIP and port towards it → `ing0` of the node that it stands for.
    pub returns: Option<BTreeMap<(IpAddr, u16), MacAddr>>,
}

/// Programs virtual services into a fabric. Frames to a VIP enter addressed to the bridge and
/// leave addressed to a backend; source and destination address stay as they are, and nothing may
/// depend on the source MAC address, because IPVS routes a frame anew.
pub trait LoadBalancer: Sync {
    /// Adds to the fabric what balances these services; the bridge already answers for their VIPs.
    fn program(&self, facts: &FabricFacts, services: &[VirtualService], space: &mut Space);
}

/// The balancer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {name} balancer is not available in this version: use --load-balancer nft")]
pub struct Unsupported {
    /// Its name.
    pub name: &'static str,
}

/// The balancer by that name, refused where it is not built: to be asked once at start.
pub fn balancer(choice: Balancer) -> Result<&'static dyn LoadBalancer, Unsupported> {
    match choice {
        Balancer::Nft => Ok(&nft::NftBalancer),
        Balancer::Ipvs => Err(Unsupported { name: choice.name() }),
    }
}

/// Who serves a service's VIP on a network.
pub(crate) fn virtual_service(vip: IpAddr, endpoints: &[&Endpoint]) -> VirtualService {
    let backends = |chosen: Vec<&Endpoint>| chosen.into_iter().map(Backend::from).collect();
    VirtualService {
        vip,
        open: backends(open(endpoints.iter().copied())),
        live: backends(endpoints.iter().copied().filter(|e| e.is_live()).collect()),
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
        bridge_mac: MacAddr::for_address(network.gateway),
        vxlan: vxlan_name(id, network),
        ipv4: network.subnet.net().addr().is_ipv4(),
        returns: network.ingress.then(|| ingress::returns(scene)),
    };
    let by_service = scene.directory.by_service(id);
    let services: Vec<VirtualService> = scene
        .assignment
        .services
        .iter()
        .filter_map(|(service, assigned)| {
            let vip = *assigned.vips.get(&id)?;
            Some(virtual_service(vip, by_service.get(service).map_or(&[], Vec::as_slice)))
        })
        .collect();
    for service in &services {
        overlay::answer_for(space, &facts.bridge, service.vip);
    }
    scene.balancer.program(&facts, &services, space);
}
