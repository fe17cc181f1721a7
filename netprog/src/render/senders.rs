//! Which source addresses are accepted from which bridge port. A task sends from its own MAC
//! address, with its own address or a VIP of its service (direct server return), and sends ARP for
//! itself only. Everything else from its port is dropped before the bridge processes it. Ports that
//! are not listed belong to Skein: VXLAN and the host's.
//!
//! The table is evaluated before the balancer's and is separate from it, so that each is loaded
//! only for its own changes.

use std::net::{IpAddr, Ipv6Addr};

use cluster::net::{Addresses, MacAddr};

use super::table;
use crate::plane::element::{Element, Part};
use crate::plane::{Family, Space, TABLES, Table, TableKey};

/// Name of the table, in fabrics and on the host.
const SENDERS: &str = TABLES[1];
/// Name of its set for IP.
const BY_IP: &str = "senders";
/// Name of its set for ARP.
const BY_ARP: &str = "owners";
/// Name of its set of restricted ports.
const PORTS: &str = "ports";

pub(crate) fn key() -> TableKey {
    TableKey { family: Family::Bridge, name: SENDERS.to_owned() }
}

/// The table of a bridge without tasks, which may have a VXLAN device.
pub(super) fn empty(ipv4: bool, vxlan: Option<&str>) -> Table {
    table(structure(ipv4, vxlan), &[PORTS, BY_ARP, BY_IP], &[])
}

/// A task's port on a bridge.
pub(super) struct Sender<'a> {
    pub(super) port: &'a str,
    pub(super) mac: MacAddr,
    /// The task's own.
    pub(super) addresses: Addresses,
    /// The VIPs that it may also send from.
    pub(super) vips: Option<Addresses>,
}

/// Restricts a port to what its task may send. The bridge's table must exist.
pub(super) fn allow(space: &mut Space, sender: &Sender<'_>) {
    let Sender { port, mac, addresses, vips } = sender;
    let Some(table) = space.nft.get_mut(&key()) else { return };
    let mut add = |set: &str, element| {
        table.sets.entry(set.to_owned()).or_default().insert(element);
    };
    add(PORTS, Element::of([Part::Iface((*port).to_owned())]));
    for address in addresses.iter() {
        add(BY_ARP, element(port, *mac, address));
    }
    let automatic = addresses.v6().map(|_| IpAddr::V6(link_local(*mac)));
    let vips = vips.iter().flat_map(Addresses::iter);
    for address in addresses.iter().chain(vips).chain(automatic) {
        add(BY_IP, element(port, *mac, address));
    }
}

/// An element of the set for IP: port, MAC and source address.
fn element(port: &str, mac: MacAddr, address: IpAddr) -> Element {
    Element::of([Part::Iface(port.to_owned()), Part::Mac(mac), address.into()])
}

/// The element that lets a task send, and whether the kernel has it.
pub(crate) fn evidence(space: &Space, port: &str, mac: MacAddr, address: IpAddr) -> (String, bool) {
    let element = element(port, mac, address);
    let senders = space.nft.get(&key()).and_then(|table| table.sets.get(BY_IP));
    let present = senders.is_some_and(|senders| senders.contains(&element));
    (format!("senders {{ {element} }}"), present)
}

/// The address that IPv6 probes neighbours from (RFC 4291 appendix A).
fn link_local(MacAddr([a, b, c, d, e, f]): MacAddr) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// Before the balancer (-300). A network has addresses of one family; frames of another are
/// dropped. The common case comes first: a frame of a task needs one lookup.
fn structure(ipv4: bool, vxlan: Option<&str>) -> String {
    let (ip, address) = if ipv4 { ("ip", "ipv4_addr") } else { ("ip6", "ipv6_addr") };
    let arp = "  arp htype 1 arp ptype ip arp hlen 6 arp plen 4 \
               iifname . ether saddr . arp saddr ip @owners \
               iifname . arp saddr ether . arp saddr ip @owners accept\n";
    let arp = if ipv4 { arp } else { "" };
    let vxlan = vxlan.map(|name| format!("  iifname \"{name}\" accept\n")).unwrap_or_default();
    format!(
        "set ports {{ type ifname; }}
set owners {{ type ifname . ether_addr . {address}; }}
set senders {{ type ifname . ether_addr . {address}; }}
chain pre {{
  type filter hook prerouting priority -310; policy accept;
{vxlan}  iifname . ether saddr . {ip} saddr @senders accept
  iifname != @ports accept
{arp}  drop
}}
"
    )
}
