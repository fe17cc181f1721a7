//! Addresses, routes and policy rules.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netprog::op::RouteOp;
use netprog::plane::ipnet_text::Cidr;
use netprog::plane::{Route, Rule};
use nix::errno::Errno;

use crate::link::index;
use crate::namespace::Inside;
use crate::netlink::{Refusal, request};

/// Applies one operation.
pub(crate) async fn apply(inside: &Inside, op: &RouteOp) -> Result<(), Refusal> {
    match op {
        RouteOp::AddAddress(link, cidr) => add_address(inside, link, *cidr).await,
        RouteOp::DeleteAddress(link, cidr) => delete_address(inside, link, *cidr).await,
        RouteOp::AddRoute(route) => add_route(inside, route).await,
        RouteOp::DeleteRoute(route) => delete_route(inside, route).await,
        RouteOp::AddRule(rule) => add_rule(inside, rule).await,
        RouteOp::DeleteRule(rule) => delete_rule(inside, rule).await,
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn address_message(link: &str, cidr: Cidr) -> Result<AddressMessage, Refusal> {
    let mut message = AddressMessage::default();
    message.header.family = family(cidr.address);
    message.header.prefix_len = cidr.prefix_len;
    message.header.index = index(link)?;
    message.attributes.push(AddressAttribute::Address(cidr.address));
    message.attributes.push(AddressAttribute::Local(cidr.address));
    Ok(message)
}

/// Adds an address; success if it is there. Addresses are allocated by the cluster, so duplicate
/// detection would only delay them.
async fn add_address(inside: &Inside, link: &str, cidr: Cidr) -> Result<(), Refusal> {
    let mut message = address_message(link, cidr)?;
    if cidr.address.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    let message = RouteNetlinkMessage::NewAddress(message);
    match request(&inside.route, message, NLM_F_CREATE | NLM_F_EXCL).await {
        Err(refusal) if refusal.is(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// Removes an address; success if it or its link is gone.
async fn delete_address(inside: &Inside, link: &str, cidr: Cidr) -> Result<(), Refusal> {
    let Ok(message) = address_message(link, cidr) else { return Ok(()) };
    match request(&inside.route, RouteNetlinkMessage::DelAddress(message), 0).await {
        Err(refusal) if refusal.is(Errno::EADDRNOTAVAIL) || refusal.is(Errno::ENODEV) => Ok(()),
        other => other,
    }
}

fn route_message(route: &Route) -> Result<RouteMessage, Refusal> {
    let destination = route.destination;
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination.address);
    message.header.destination_prefix_length = destination.prefix_len;
    // Tables above 255 only fit the attribute, which wins where both are given.
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.attributes.push(RouteAttribute::Table(route.table));
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = if route.local { RouteType::Local } else { RouteType::Unicast };
    message.header.scope = match (route.local, route.via) {
        (true, _) => RouteScope::Host,
        (false, None) if destination.address.is_ipv4() => RouteScope::Link,
        (false, _) => RouteScope::Universe,
    };
    if destination.prefix_len > 0 {
        message.attributes.push(RouteAttribute::Destination(destination.address.into()));
    }
    if let Some(via) = route.via {
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(via)));
    }
    message.attributes.push(RouteAttribute::Oif(index(&route.device)?));
    Ok(message)
}

/// Adds a route, or replaces the one to the same destination in its table.
async fn add_route(inside: &Inside, route: &Route) -> Result<(), Refusal> {
    let message = RouteNetlinkMessage::NewRoute(route_message(route)?);
    request(&inside.route, message, NLM_F_CREATE | NLM_F_REPLACE).await
}

/// Removes a route; success if it or its link is gone.
async fn delete_route(inside: &Inside, route: &Route) -> Result<(), Refusal> {
    let Ok(message) = route_message(route) else { return Ok(()) };
    match request(&inside.route, RouteNetlinkMessage::DelRoute(message), 0).await {
        Err(refusal) if refusal.is(Errno::ESRCH) || refusal.is(Errno::ENODEV) => Ok(()),
        other => other,
    }
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.action = RuleAction::ToTable;
    message.attributes.extend([
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::FwMark(rule.fwmark),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(RouteProtocol::Static),
    ]);
    message
}

/// Adds a policy rule; success if it is there.
async fn add_rule(inside: &Inside, rule: &Rule) -> Result<(), Refusal> {
    let message = RouteNetlinkMessage::NewRule(rule_message(rule));
    match request(&inside.route, message, NLM_F_CREATE | NLM_F_EXCL).await {
        Err(refusal) if refusal.is(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// Removes a policy rule; succeeds if there is none.
async fn delete_rule(inside: &Inside, rule: &Rule) -> Result<(), Refusal> {
    let message = RouteNetlinkMessage::DelRule(rule_message(rule));
    match request(&inside.route, message, 0).await {
        Err(refusal) if refusal.is(Errno::ENOENT) => Ok(()),
        other => other,
    }
}
