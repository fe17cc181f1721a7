//! Facts about this machine, before anything is programmed: addresses, routes, resolvers, and
//! whether the kernel supports what is needed.

mod capability;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use cluster::net::Subnet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netprog::plane::ALIAS_PREFIX;

use crate::namespace::{Inside, Namespace};
use crate::netlink::{Refusal, dump};
use crate::spaces::own_namespace;

pub use capability::{Capabilities, Missing, probe};

/// The resolver library uses at most this many (`MAXNS` in resolv.h).
pub const RESOLVERS_MAX: usize = 3;
/// Where the host's resolvers are listed.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Docker's default pools for bridge networks, from the one after `docker0`'s.
const GWBRIDGE_SECOND_OCTETS: std::ops::RangeInclusive<u8> = 18..=31;
const GWBRIDGE_PREFIX_LEN: u8 = 16;

/// An interface of the host's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// Bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Made by us: its alias says so.
    pub ours: bool,
    /// Addresses with prefix length, in the kernel's order; those that are being checked or
    /// deprecated are left out.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// Interfaces and routes of the host's namespace at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    /// By name.
    pub interfaces: BTreeMap<String, Interface>,
    /// Interface of the default route with the lowest metric: IPv4's, else IPv6's.
    pub default_interface: Option<String>,
    /// Prefixes of the main table's routes and of addresses, but for the default route and what
    /// is ours.
    pub routes: Vec<Subnet>,
}

/// An address could not be chosen; `Display` says what to give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither an address of this machine nor an interface.
    #[error(
        "{given:?} is neither an address of this machine nor an interface: give one of {addresses}"
    )]
    Unknown {
        /// As given.
        given: String,
        /// What there is, by comma.
        addresses: String,
    },
    /// The interface has none.
    #[error("interface {0} has no address: give it one, or name another interface or address")]
    NoAddress(String),
    /// Docker's words (`errMustSpecifyListenAddr` and its neighbours in daemon/cluster).
    #[error("could not find the system's IP address - specify one with --advertise-addr")]
    NoDefault,
    /// Docker's words.
    #[error(
        "could not choose an IP address to advertise since this system has multiple addresses on \
         interface {interface} ({addresses}) - specify one with --advertise-addr"
    )]
    Several {
        /// The default route's.
        interface: String,
        /// By comma.
        addresses: String,
    },
}

impl HostFacts {
    /// Reads them in the calling thread's namespace. Blocks.
    pub fn read() -> io::Result<Self> {
        Self::read_in(own_namespace()?)
    }

    /// Reads them in a namespace. Blocks.
    pub fn read_in(namespace: OwnedFd) -> io::Result<Self> {
        let namespace = Namespace::enter("facts", namespace)?;
        let facts = namespace.start(|inside| async move { read(&inside).await })?.wait()?;
        facts.map_err(|refusal| io::Error::other(refusal.text))
    }

    /// The address meant by `--advertise-addr`: an address of this machine, an interface, or, if
    /// nothing is given, the only address of the default route's interface.
    pub fn advertise_address(&self, given: Option<&str>) -> Result<IpAddr, AddressError> {
        let Some(given) = given else { return self.default_address() };
        if let Ok(address) = given.parse::<IpAddr>()
            && self.interface_of(address).is_some()
        {
            return Ok(address);
        }
        match self.interfaces.get(given) {
            Some(interface) => {
                let usable = usable(interface);
                usable.first().copied().ok_or_else(|| AddressError::NoAddress(given.to_owned()))
            }
            None => Err(AddressError::Unknown {
                given: given.to_owned(),
                addresses: self.all_addresses(),
            }),
        }
    }

    fn default_address(&self) -> Result<IpAddr, AddressError> {
        let name = self.default_interface.as_ref().ok_or(AddressError::NoDefault)?;
        let addresses = self.interfaces.get(name).map(usable).unwrap_or_default();
        match addresses.as_slice() {
            [] => Err(AddressError::NoDefault),
            [only] => Ok(*only),
            // A single IPv4 address is unambiguous, whatever IPv6 addresses there are, as in
            // Docker.
            [first, second, ..] if first.is_ipv4() && !second.is_ipv4() => Ok(*first),
            several => {
                Err(AddressError::Several { interface: name.clone(), addresses: join(several) })
            }
        }
    }

    fn all_addresses(&self) -> String {
        let all: Vec<IpAddr> =
            self.interfaces.values().filter(|interface| !interface.ours).flat_map(usable).collect();
        join(&all)
    }

    /// Whether calls to the address reach this machine.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.interface_of(address).is_some()
    }

    fn interface_of(&self, address: IpAddr) -> Option<&Interface> {
        let has = |interface: &&Interface| interface.addresses.iter().any(|(a, _)| *a == address);
        self.interfaces.values().find(has)
    }

    /// The address that some interface has in `subnet`.
    #[must_use]
    pub fn address_in(&self, subnet: Subnet) -> Option<IpAddr> {
        let addresses = self.interfaces.values().flat_map(|interface| &interface.addresses);
        addresses.map(|(address, _)| *address).find(|address| subnet.contains(*address))
    }

    /// MTU of the interface that carries the address.
    #[must_use]
    pub fn mtu_of(&self, address: IpAddr) -> Option<u32> {
        self.interface_of(address).map(|interface| interface.mtu)
    }

    /// A prefix for the egress bridge: the one that `bridge` has already, else the first of
    /// 172.18.0.0/16 to 172.31.0.0/16 that no route of this machine overlaps.
    #[must_use]
    pub fn gwbridge_subnet(&self, bridge: &str) -> Option<Subnet> {
        let present = self.interfaces.get(bridge).filter(|interface| interface.ours);
        let kept = present.and_then(|interface| {
            let (address, prefix_len) = interface.addresses.iter().find(|(a, _)| a.is_ipv4())?;
            Subnet::holding(*address, *prefix_len).ok()
        });
        let free = |subnet: &Subnet| self.routes.iter().all(|route| !route.overlaps(subnet));
        kept.or_else(|| {
            GWBRIDGE_SECOND_OCTETS
                .filter_map(|octet| {
                    Subnet::holding(IpAddr::from([172, octet, 0, 0]), GWBRIDGE_PREFIX_LEN).ok()
                })
                .find(free)
        })
    }
}

/// Addresses that others can reach, IPv4 first.
fn usable(interface: &Interface) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = interface
        .addresses
        .iter()
        .map(|(address, _)| *address)
        .filter(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}

fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The resolvers of a resolv.conf, at most [`RESOLVERS_MAX`]. Those on loopback count: they are
/// queried from the host's namespace.
#[must_use]
pub fn resolvers(resolv_conf: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let keyword = words.next()?;
        let address = words.next()?;
        if keyword == "nameserver" { address.parse().ok() } else { None }
    };
    resolv_conf.lines().filter_map(address).take(RESOLVERS_MAX).collect()
}

async fn read(inside: &Inside) -> Result<HostFacts, Refusal> {
    let mut facts = HostFacts::default();
    let mut names = BTreeMap::new();
    let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
    for message in dump(&inside.route, message).await? {
        let RouteNetlinkMessage::NewLink(message) = message else { continue };
        let mut name = String::new();
        let up = message.header.flags.contains(LinkFlags::Up);
        let mut interface = Interface { up, ..Interface::default() };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name.clone_from(text),
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
                LinkAttribute::IfAlias(alias) => interface.ours = alias.starts_with(ALIAS_PREFIX),
                _ => {}
            }
        }
        names.insert(message.header.index, name.clone());
        facts.interfaces.insert(name, interface);
    }
    read_addresses(inside, &names, &mut facts).await?;
    read_routes(inside, &names, &mut facts).await?;
    facts.routes.sort();
    facts.routes.dedup();
    Ok(facts)
}

async fn read_addresses(
    inside: &Inside,
    names: &BTreeMap<u32, String>,
    facts: &mut HostFacts,
) -> Result<(), Refusal> {
    let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    for message in dump(&inside.route, message).await? {
        let RouteNetlinkMessage::NewAddress(message) = message else { continue };
        let name = names.get(&message.header.index);
        let Some(interface) = name.and_then(|name| facts.interfaces.get_mut(name)) else {
            continue;
        };
        let mut own = None;
        let mut flags = AddressFlags::empty();
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => own = Some(*address),
                AddressAttribute::Address(address) => own = own.or(Some(*address)),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        let unusable = AddressFlags::Tentative | AddressFlags::Deprecated | AddressFlags::Dadfailed;
        let Some(address) = own.filter(|_| !flags.intersects(unusable)) else { continue };
        let prefix_len = message.header.prefix_len;
        interface.addresses.push((address, prefix_len));
        if !interface.ours && !address.is_loopback() {
            facts.routes.extend(Subnet::holding(address, prefix_len));
        }
    }
    Ok(())
}

async fn read_routes(
    inside: &Inside,
    names: &BTreeMap<u32, String>,
    facts: &mut HostFacts,
) -> Result<(), Refusal> {
    // IPv4 before IPv6, then by metric: the first default route is the one that counts.
    let mut defaults = BTreeMap::new();
    let message = RouteNetlinkMessage::GetRoute(RouteMessage::default());
    for message in dump(&inside.route, message).await? {
        let RouteNetlinkMessage::NewRoute(message) = message else { continue };
        if message.header.table != RouteHeader::RT_TABLE_MAIN
            || message.header.kind != RouteType::Unicast
        {
            continue;
        }
        let mut device = None;
        let mut metric = 0;
        let mut destination = None;
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => device = names.get(index),
                RouteAttribute::Priority(number) => metric = *number,
                RouteAttribute::Destination(address) => destination = ip(address),
                _ => {}
            }
        }
        let ours = device.and_then(|name| facts.interfaces.get(name)).is_some_and(|i| i.ours);
        match (destination, device) {
            (None, Some(device)) => {
                let ipv6 =
                    message.header.address_family == netlink_packet_route::AddressFamily::Inet6;
                defaults.entry((ipv6, metric)).or_insert_with(|| device.clone());
            }
            (Some(address), _) if !ours && !is_local_only(address) => {
                let prefix_len = message.header.destination_prefix_length;
                facts.routes.extend(Subnet::holding(address, prefix_len));
            }
            _ => {}
        }
    }
    facts.default_interface = defaults.into_values().next();
    Ok(())
}

fn is_local_only(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast() || v6.is_loopback(),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
