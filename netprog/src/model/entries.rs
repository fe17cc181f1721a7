//! Addresses, routes and forwarding entries.

use std::net::IpAddr;

use super::{Model, Refused, links::existing};
use crate::plane::ipnet_text::Cidr;
use crate::plane::{FdbKey, FdbTable, LinkKind, Place, Route, Space};

impl Model {
    pub(super) fn add_address(&mut self, place: Place, link: &str, cidr: Cidr) -> Refused {
        let space = self.space(place)?;
        existing(space, link)?;
        space.addresses.insert((link.to_owned(), cidr));
        Ok(())
    }

    /// Replaces the route to the same destination in the same table.
    pub(super) fn add_route(&mut self, place: Place, route: &Route) -> Refused {
        let space = self.space(place)?;
        existing(space, &route.device)?;
        if space.links.get(&route.device).is_some_and(|link| !link.up) {
            return Err(format!("{} is down", route.device));
        }
        if let Some(via) = route.via
            && !is_on_link(space, &route.device, via)
        {
            return Err(format!("gateway {via} is not reached by {}", route.device));
        }
        let routes = space.routes_to(route.table, route.destination);
        for replaced in routes.cloned().collect::<Vec<_>>() {
            space.routes.remove(&replaced);
        }
        space.routes.insert(route.clone());
        Ok(())
    }

    /// Replaces the entry of that MAC address; a bridge's table has one whatever the port.
    pub(super) fn set_fdb(&mut self, place: Place, key: &FdbKey, vtep: Option<IpAddr>) -> Refused {
        let space = self.space(place)?;
        existing(space, &key.device)?;
        let link = space.links.get(&key.device);
        match key.table {
            FdbTable::Device => {
                if !link.is_some_and(|link| matches!(link.kind, LinkKind::Vxlan { .. })) {
                    return Err(format!("{} has no table of its own", key.device));
                }
                if vtep.is_none() {
                    return Err("an entry of a VXLAN device needs a VTEP".to_owned());
                }
            }
            FdbTable::Bridge => {
                let master = link.and_then(|link| link.master.clone());
                let Some(master) = master else {
                    return Err(format!("{} is not a port of a bridge", key.device));
                };
                let is_here = |other: &&FdbKey| {
                    let port = space.links.get(&other.device);
                    port.is_some_and(|port| port.master.as_ref() == Some(&master))
                };
                let replaced: Vec<_> = space.in_bridges(key.mac).filter(is_here).cloned().collect();
                for other in replaced {
                    space.fdb.remove(&other);
                }
            }
        }
        space.fdb.insert(key.clone(), vtep);
        Ok(())
    }
}

/// With its last IPv4 address a link loses its IPv4 routes and neighbours (`fib_disable_ip` in
/// net/ipv4/fib_frontend.c).
pub(super) fn delete_address(space: &mut Space, link: &str, cidr: Cidr) {
    let removed = space.addresses.remove(&(link.to_owned(), cidr));
    if removed && cidr.address.is_ipv4() && !space.has_ipv4(link) {
        space.routes.retain(|r| r.device != link || r.destination.address.is_ipv6());
        space.neighbours.retain(|(device, address), _| device != link || address.is_ipv6());
    }
}

fn is_on_link(space: &Space, device: &str, address: IpAddr) -> bool {
    space.addresses.iter().any(|(link, cidr)| link == device && prefix_holds(*cidr, address))
}

fn prefix_holds(cidr: Cidr, address: IpAddr) -> bool {
    cluster::net::Subnet::holding(cidr.address, cidr.prefix_len)
        .is_ok_and(|subnet| subnet.contains(address))
}
