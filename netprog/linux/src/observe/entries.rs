//! FDB and neighbour entries that a program has set.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster::net::MacAddr;
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netprog::plane::{FdbKey, FdbTable, LinkKind};

use super::links::Links;
use crate::message::EntryParts;
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

/// Permanent entries of VXLAN devices and static ones of their and other ports' bridges.
pub(super) async fn fdb(
    inside: &Inside,
    links: &Links,
) -> Result<BTreeMap<FdbKey, Option<IpAddr>>, Refusal> {
    let mut found = BTreeMap::new();
    for message in read(inside, AddressFamily::Bridge).await? {
        let Some((device, link)) = links.get(message.header.ifindex) else { continue };
        let parts = EntryParts::of(&message);
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
            let parts = EntryParts::of(&message);
            if message.header.state == NeighbourState::Permanent
                && let (Some(address), Some(mac)) = (parts.address, parts.mac)
            {
                found.insert((device.to_owned(), address), mac);
            }
        }
    }
    Ok(found)
}
