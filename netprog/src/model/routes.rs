//! Addresses, routes and policy rules.

use std::net::IpAddr;

use super::{Model, Refused, links::existing};
use crate::op::RouteOp;
use crate::plane::ipnet_text::Cidr;
use crate::plane::{Place, Route, Space};

impl Model {
    pub(super) fn change_routes(&mut self, place: Place, op: &RouteOp) -> Refused {
        match op {
            RouteOp::AddAddress(link, cidr) => self.add_address(place, link, *cidr),
            RouteOp::DeleteAddress(link, cidr) => {
                self.gone(place, |space| delete_address(space, link, *cidr))
            }
            RouteOp::AddRoute(route) => self.add_route(place, route),
            RouteOp::DeleteRoute(route) => self.gone(place, |space| {
                space.routes.remove(route);
            }),
            RouteOp::AddRule(rule) => {
                self.space(place)?.rules.insert(rule.clone());
                Ok(())
            }
            RouteOp::DeleteRule(rule) => self.gone(place, |space| {
                space.rules.remove(rule);
            }),
        }
    }

    fn add_address(&mut self, place: Place, link: &str, cidr: Cidr) -> Refused {
        let space = self.space(place)?;
        existing(space, link)?;
        space.addresses.insert((link.to_owned(), cidr));
        Ok(())
    }

    /// Replaces the route to the same destination in the same table.
    fn add_route(&mut self, place: Place, route: &Route) -> Refused {
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
}

/// With its last IPv4 address a link loses its IPv4 routes and neighbours (`fib_disable_ip` in
/// net/ipv4/fib_frontend.c).
fn delete_address(space: &mut Space, link: &str, cidr: Cidr) {
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
