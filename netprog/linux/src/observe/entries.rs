//! FDB and neighbour entries that somebody has set.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster::net::MacAddr;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netprog::plane::{FdbKey, FdbTable, LinkKind};

use super::links::Links;
use crate::namespace::Inside;
use crate::netlink::{Refusal, dump};

async fn read(inside: &Inside, family: AddressFamily) -> Result<Vec<NeighbourMessage>, Refusal> {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    let messages = dump(&inside.route, RouteNetlinkMessage::GetNeighbour(message)).await?;
    let neighbour = |message| match message {
        RouteNetlinkMessage::NewNeighbour(message) => Some(message),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(neighbour).collect())
}

/// Attributes of an entry that matter here.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) mac: Option<MacAddr>,
    pub(crate) address: Option<IpAddr>,
    in_bridge: bool,
    in_vlan: bool,
}

impl Parts {
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

/// Permanent entries of VXLAN devices and static ones of their and other ports' bridges.
pub(super) async fn fdb(
    inside: &Inside,
    links: &Links,
) -> Result<BTreeMap<FdbKey, Option<IpAddr>>, Refusal> {
    let mut found = BTreeMap::new();
    for message in read(inside, AddressFamily::Bridge).await? {
        let Some((device, link)) = links.get(message.header.ifindex) else { continue };
        let parts = Parts::of(&message);
        let Some(mac) = parts.mac else { continue };
        let own = message.header.flags.contains(NeighbourFlags::Own);
        let state = message.header.state;
        let is_vxlan = matches!(link.kind, LinkKind::Vxlan { .. });
        let table = if parts.in_bridge && state == NeighbourState::Noarp && !parts.in_vlan {
            FdbTable::Bridge
        } else if own && is_vxlan && state == NeighbourState::Permanent {
            FdbTable::Device
        } else {
            continue;
        };
        let destination = match table {
            FdbTable::Device => parts.address,
            FdbTable::Bridge => None,
        };
        found.insert(FdbKey { device: device.to_owned(), mac, table }, destination);
    }
    Ok(found)
}

/// Permanent neighbour entries.
pub(super) async fn neighbours(
    inside: &Inside,
    links: &Links,
) -> Result<BTreeMap<(String, IpAddr), MacAddr>, Refusal> {
    let mut found = BTreeMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for message in read(inside, family).await? {
            let Some(device) = links.ours(message.header.ifindex) else { continue };
            let parts = Parts::of(&message);
            if message.header.state == NeighbourState::Permanent
                && let (Some(address), Some(mac)) = (parts.address, parts.mac)
            {
                found.insert((device.to_owned(), address), mac);
            }
        }
    }
    Ok(found)
}
