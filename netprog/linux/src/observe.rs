//! Reads one namespace.

mod entries;
mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netprog::plane::ipnet_text::Cidr;
use netprog::plane::{Place, Route, Rule, Space, TableKey};

use crate::message::is_by_kernel;
use crate::namespace::Inside;
use crate::netlink::{Refusal, dump};
use crate::nft;

/// What to read in a namespace besides what carries our mark: the names in the desired plane.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadScope {
    /// Links of the host's namespace that are read even without our mark: a veth pair that was
    /// made a moment before a crash does not carry it yet.
    pub(crate) links: BTreeSet<String>,
    pub(crate) sysctls: Vec<String>,
    /// Static sets and maps whose elements are compared.
    pub(crate) elements: BTreeMap<TableKey, nft::Names>,
    /// Priorities of our rules, where not every rule of the namespace is ours.
    pub(crate) rule_priorities: BTreeSet<u32>,
}

impl ReadScope {
    /// From the desired state of the namespace.
    pub(crate) fn of(space: &Space) -> Self {
        let names = |(key, table): (&TableKey, &netprog::plane::Table)| {
            let sets = table.sets.keys().cloned().collect();
            let maps = table.maps.keys().cloned().collect();
            (key.clone(), nft::Names { sets, maps })
        };
        Self {
            links: space.links.keys().cloned().collect(),
            sysctls: space.sysctls.keys().cloned().collect(),
            elements: space.nft.iter().map(names).collect(),
            rule_priorities: space.rules.iter().map(|rule| rule.priority).collect(),
        }
    }
}

/// A failure with what was being read.
pub(crate) struct ReadError {
    pub(crate) what: &'static str,
    pub(crate) refusal: Refusal,
}

fn reading(what: &'static str) -> impl FnOnce(Refusal) -> ReadError {
    move |refusal| ReadError { what, refusal }
}

/// Reads all our objects in the namespace.
pub(crate) async fn space(
    inside: &Inside,
    place: Place,
    scope: &ReadScope,
) -> Result<Space, ReadError> {
    let links = links::read(inside, place, &scope.links).await.map_err(reading("read links"))?;
    inside.ours.replace(Some(links.indexes()));
    let mut space = Space {
        addresses: addresses(inside, &links).await.map_err(reading("read addresses"))?,
        routes: routes(inside, &links).await.map_err(reading("read routes"))?,
        rules: rules(inside, place, scope).await.map_err(reading("read rules"))?,
        fdb: entries::fdb(inside, &links).await.map_err(reading("read FDB entries"))?,
        neighbours: entries::neighbours(inside, &links)
            .await
            .map_err(reading("read neighbour entries"))?,
        nft: inside.nft.borrow_mut().read(&scope.elements).map_err(reading("read nftables"))?,
        ..Space::default()
    };
    space.links = links.into_links();
    if matches!(place, Place::Fabric(_)) {
        ipvs(inside, &mut space).map_err(reading("read virtual services"))?;
    }
    for name in &scope.sysctls {
        if let Some(value) = crate::sysctl::read(name).map_err(reading("read sysctls"))? {
            space.sysctls.insert(name.clone(), value);
        }
    }
    Ok(space)
}

/// In fabrics only: elsewhere IPVS is not ours.
fn ipvs(inside: &Inside, space: &mut Space) -> Result<(), Refusal> {
    if let Some(client) = inside.ipvs()? {
        space.ipvs = client.read()?;
        space.ipvs_timeouts = client.read_timeouts()?;
    }
    Ok(())
}

async fn addresses(
    inside: &Inside,
    links: &links::Links,
) -> Result<BTreeSet<(String, Cidr)>, Refusal> {
    let mut found = BTreeSet::new();
    let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    for message in dump(&inside.route, message).await? {
        let RouteNetlinkMessage::NewAddress(message) = message else { continue };
        let Some(link) = links.ours(message.header.index) else { continue };
        // `Local` is the own address; on links without a peer both are given and equal, and
        // IPv6 gives only `Address`.
        let mut own = None;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => own = Some(*address),
                AddressAttribute::Address(address) => own = own.or(Some(*address)),
                _ => {}
            }
        }
        let Some(address) = own.filter(|address| !is_automatic(*address)) else { continue };
        let prefix_len = message.header.prefix_len;
        found.insert((link.to_owned(), Cidr { address, prefix_len }));
    }
    Ok(found)
}

/// The kernel assigns these by itself.
fn is_automatic(address: IpAddr) -> bool {
    address.is_loopback()
        || matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast())
}

async fn routes(inside: &Inside, links: &links::Links) -> Result<BTreeSet<Route>, Refusal> {
    let mut found = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        for message in dump(&inside.route, RouteNetlinkMessage::GetRoute(message)).await? {
            let RouteNetlinkMessage::NewRoute(message) = message else { continue };
            found.extend(route(&message, links));
        }
    }
    Ok(found)
}

/// A route that a program has set.
fn route(message: &RouteMessage, links: &links::Links) -> Option<Route> {
    let header = &message.header;
    if is_by_kernel(header) {
        return None;
    }
    let local = match header.kind {
        RouteType::Local => true,
        RouteType::Unicast => false,
        _ => return None,
    };
    let mut table = u32::from(header.table);
    let mut address = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        _ => IpAddr::from([0; 16]),
    };
    let mut via = None;
    let mut device = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(destination) => address = ip(destination)?,
            RouteAttribute::Gateway(gateway) => via = Some(ip(gateway)?),
            RouteAttribute::Oif(index) => device = links.ours_or_loopback(*index),
            _ => {}
        }
    }
    let destination = Cidr { address, prefix_len: header.destination_prefix_length };
    Some(Route { table, destination, local, via, device: device?.to_owned() })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

async fn rules(
    inside: &Inside,
    place: Place,
    scope: &ReadScope,
) -> Result<BTreeSet<Rule>, Refusal> {
    let mut found = BTreeSet::new();
    for (family, ipv6) in [(AddressFamily::Inet, false), (AddressFamily::Inet6, true)] {
        let mut message = RuleMessage::default();
        message.header.family = family;
        let rules = match dump(&inside.route, RouteNetlinkMessage::GetRule(message)).await {
            // A kernel without policy routing for the family has no rules of it.
            Err(refusal) if refusal.is(nix::errno::Errno::EOPNOTSUPP) => continue,
            other => other?,
        };
        for message in rules {
            let RouteNetlinkMessage::NewRule(message) = message else { continue };
            let Some(rule) = rule(&message, ipv6) else { continue };
            if place != Place::Host || scope.rule_priorities.contains(&rule.priority) {
                found.insert(rule);
            }
        }
    }
    Ok(found)
}

/// A rule by mark; the kernel's three of each family have none.
fn rule(message: &RuleMessage, ipv6: bool) -> Option<Rule> {
    let mut priority = 0;
    let mut table = u32::from(message.header.table);
    let mut fwmark = None;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::FwMark(mark) => fwmark = Some(*mark),
            RuleAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let fwmark = fwmark.filter(|_| message.header.action == RuleAction::ToTable)?;
    Some(Rule { priority, fwmark, table, ipv6 })
}

/// Reads one message of any kind as it is read in a dump. Says whether it is of a kind that is.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_any(message: RouteNetlinkMessage) -> bool {
    let place = Place::Fabric(cluster::id::NetworkId(1));
    let mut found = BTreeMap::new();
    match message {
        RouteNetlinkMessage::NewLink(link) => {
            found.insert(link.header.index, link);
            let links = links::Links::of(&found, place, &BTreeSet::new());
            let _links = (links.indexes(), links.into_links());
        }
        RouteNetlinkMessage::NewRoute(found_route) => {
            let _route = route(&found_route, &links::Links::of(&found, place, &BTreeSet::new()));
        }
        RouteNetlinkMessage::NewRule(found_rule) => {
            let _rules = (rule(&found_rule, false), rule(&found_rule, true));
        }
        RouteNetlinkMessage::NewNeighbour(entry) => drop(crate::message::EntryParts::of(&entry)),
        _ => return false,
    }
    true
}
