//! Messages of the family IPVS (include/uapi/linux/ip_vs.h, net/netfilter/ipvs/ip_vs_ctl.c).
//! Addresses are always 16 bytes; ports and IPv4 netmasks are in network order, all else in the
//! machine's.

use std::net::IpAddr;

use netprog::plane::ipvs::{SCHEDULER_FLAGS, Scheduler, Timeouts, VirtualKey};

use crate::generic::HEADER_BYTES;
use crate::netlink::raw::{Attributes, ne16, ne32, nested, text};

pub(super) const VERSION: u8 = 1;

pub(super) const NEW_SERVICE: u8 = 1;
pub(super) const SET_SERVICE: u8 = 2;
pub(super) const DELETE_SERVICE: u8 = 3;
pub(super) const GET_SERVICE: u8 = 4;
pub(super) const NEW_REAL: u8 = 5;
pub(super) const SET_REAL: u8 = 6;
pub(super) const DELETE_REAL: u8 = 7;
pub(super) const GET_REAL: u8 = 8;
pub(super) const SET_CONFIG: u8 = 12;
pub(super) const GET_CONFIG: u8 = 13;

/// `IPVS_CMD_ATTR_…`.
const SERVICE: u16 = 1;
const REAL: u16 = 2;
const TIMEOUT_TCP: u16 = 4;
const TIMEOUT_TCP_FIN: u16 = 5;
const TIMEOUT_UDP: u16 = 6;

/// `IPVS_SVC_ATTR_…`.
const SERVICE_FAMILY: u16 = 1;
const SERVICE_FWMARK: u16 = 5;
const SERVICE_SCHEDULER: u16 = 6;
const SERVICE_FLAGS: u16 = 7;
const SERVICE_TIMEOUT: u16 = 8;
const SERVICE_NETMASK: u16 = 9;

/// `IPVS_DEST_ATTR_…`.
const REAL_ADDRESS: u16 = 1;
const REAL_PORT: u16 = 2;
const REAL_METHOD: u16 = 3;
const REAL_WEIGHT: u16 = 4;
const REAL_UPPER: u16 = 5;
const REAL_LOWER: u16 = 6;
const REAL_FAMILY: u16 = 11;

/// `IP_VS_CONN_F_DROUTE`.
const DIRECT_ROUTING: u32 = 3;
/// The mask of flags that the request sets.
const ALL_FLAGS: u32 = u32::MAX;
/// Bytes of an address (`union nf_inet_addr`).
const ADDRESS_BYTES: usize = 16;

/// AF_INET6 or AF_INET.
fn family(ipv6: bool) -> u16 {
    if ipv6 { 10 } else { 2 }
}

fn name(key: VirtualKey) -> Attributes {
    Attributes::default().u16(SERVICE_FAMILY, family(key.ipv6)).u32(SERVICE_FWMARK, key.fwmark)
}

/// Names a service.
pub(super) fn named(key: VirtualKey) -> Attributes {
    Attributes::default().nest(SERVICE, &name(key))
}

/// A whole service without persistence.
pub(crate) fn service(key: VirtualKey, scheduler: &Scheduler) -> Attributes {
    let mut flags = scheduler.flags.to_ne_bytes().to_vec();
    flags.extend(ALL_FLAGS.to_ne_bytes());
    // IPv4: a mask; IPv6: the length of a prefix.
    let netmask = if key.ipv6 { 128 } else { u32::MAX };
    let service = name(key)
        .text(SERVICE_SCHEDULER, &scheduler.name)
        .bytes(SERVICE_FLAGS, &flags)
        .u32(SERVICE_TIMEOUT, 0)
        .u32(SERVICE_NETMASK, netmask);
    Attributes::default().nest(SERVICE, &service)
}

fn real_name(address: IpAddr) -> Attributes {
    let mut bytes = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    bytes.resize(ADDRESS_BYTES, 0);
    Attributes::default()
        .u16(REAL_FAMILY, family(address.is_ipv6()))
        .bytes(REAL_ADDRESS, &bytes)
        .bytes(REAL_PORT, &0_u16.to_be_bytes())
}

/// Names a real server.
pub(super) fn real_named(key: VirtualKey, address: IpAddr) -> Attributes {
    named(key).nest(REAL, &real_name(address))
}

/// A whole real server without limits of connections.
pub(crate) fn real(key: VirtualKey, address: IpAddr, weight: u32) -> Attributes {
    let real = real_name(address)
        .u32(REAL_METHOD, DIRECT_ROUTING)
        .u32(REAL_WEIGHT, weight)
        .u32(REAL_UPPER, 0)
        .u32(REAL_LOWER, 0);
    named(key).nest(REAL, &real)
}

/// The attributes within the one that a message of a dump consists of.
fn inner(message: &[u8], wanted: u16) -> Option<&[u8]> {
    value(message.get(HEADER_BYTES..)?, wanted)
}

fn value(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    nested(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A service by mark; `None` for one by address.
pub(crate) fn read_service(message: &[u8]) -> Option<(VirtualKey, Scheduler)> {
    let service = inner(message, SERVICE)?;
    let ipv6 = value(service, SERVICE_FAMILY).and_then(ne16)? == family(true);
    let fwmark = value(service, SERVICE_FWMARK).and_then(ne32)?;
    let name = value(service, SERVICE_SCHEDULER).map(text).unwrap_or_default();
    let flags = value(service, SERVICE_FLAGS)?.get(..4).and_then(ne32)? & SCHEDULER_FLAGS;
    Some((VirtualKey { ipv6, fwmark }, Scheduler { name, flags }))
}

/// A real server's address and weight. A server with another forwarding method is read with a
/// weight that is never desired, so that it is written again.
pub(crate) fn read_real(message: &[u8], ipv6: bool) -> Option<(IpAddr, u32)> {
    let real = inner(message, REAL)?;
    let bytes: [u8; ADDRESS_BYTES] = value(real, REAL_ADDRESS)?.try_into().ok()?;
    let address = if ipv6 {
        IpAddr::from(bytes)
    } else {
        let [a, b, c, d, ..] = bytes;
        IpAddr::from([a, b, c, d])
    };
    let method = value(real, REAL_METHOD).and_then(ne32)?;
    let weight = value(real, REAL_WEIGHT).and_then(ne32)?;
    Some((address, if method == DIRECT_ROUTING { weight } else { u32::MAX }))
}

/// A namespace's timeouts.
pub(crate) fn timeouts(timeouts: Timeouts) -> Attributes {
    let Timeouts { tcp, tcp_fin, udp } = timeouts;
    Attributes::default().u32(TIMEOUT_TCP, tcp).u32(TIMEOUT_TCP_FIN, tcp_fin).u32(TIMEOUT_UDP, udp)
}

/// The same, read.
pub(crate) fn read_timeouts(message: &[u8]) -> Option<Timeouts> {
    let seconds = |wanted| inner(message, wanted).and_then(ne32);
    let (tcp, tcp_fin) = (seconds(TIMEOUT_TCP)?, seconds(TIMEOUT_TCP_FIN)?);
    Some(Timeouts { tcp, tcp_fin, udp: seconds(TIMEOUT_UDP)? })
}

#[cfg(test)]
mod tests;
