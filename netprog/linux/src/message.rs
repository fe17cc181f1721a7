//! Route netlink messages that both observation and drift detection read.

use std::net::IpAddr;

use cluster::net::MacAddr;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteFlags, RouteHeader, RouteProtocol};

/// Attributes of an FDB or neighbour entry.
#[derive(Default)]
pub(crate) struct EntryParts {
    pub(crate) mac: Option<MacAddr>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) in_bridge: bool,
    pub(crate) in_vlan: bool,
}

impl EntryParts {
    pub(crate) fn of(message: &NeighbourMessage) -> Self {
        let mut parts = Self::default();
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(octets) => {
                    parts.mac = <[u8; 6]>::try_from(octets.as_slice()).ok().map(MacAddr);
                }
                NeighbourAttribute::Destination(address) => parts.address = ip(address),
                NeighbourAttribute::Controller(_) => parts.in_bridge = true,
                NeighbourAttribute::Vlan(_) => parts.in_vlan = true,
                _ => {}
            }
        }
        parts
    }
}

/// In FDB entries the family does not say how long the address is.
fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        NeighbourAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        NeighbourAddress::Other(octets) => {
            if let Ok(v4) = <[u8; 4]>::try_from(octets.as_slice()) {
                Some(IpAddr::from(v4))
            } else {
                <[u8; 16]>::try_from(octets.as_slice()).ok().map(IpAddr::from)
            }
        }
        _ => None,
    }
}

/// Whether the kernel made a route: from an address, from a router advertisement, or as a cached
/// clone (`RTM_F_CLONED`), for example for a path MTU.
pub(crate) fn is_by_kernel(header: &RouteHeader) -> bool {
    matches!(header.protocol, RouteProtocol::Kernel | RouteProtocol::Ra)
        || header.flags.contains(RouteFlags::Cloned)
}
