//! The nft balancer: one bridge-family table for each network rewrites the destination MAC
//! address of frames to a VIP.
//!
//! - `live` holds (VIP, MAC): a learned flow counts only while its backend is in it. A backend is
//!   removed by deleting its one element; its flows then reach another backend.
//! - `slots` holds (VIP, slot → MAC) for new connections and for unknown flows: a SYN always
//!   uses it. `flows` holds open flows, `closing` those that their caller has closed.
//! - Only packets to the backend are seen, because a backend replies to its caller directly. A
//!   connection that the backend closes ends here when the caller closes it too; one that the
//!   backend resets is remembered until it times out.
//! - A flow's key is its VIP, its caller's address, and a 32-bit jhash of the rest, because
//!   nft 1.0.6 aborts on longer map keys of IPv6, and cannot name a quoted port in a key.
//! - `update` does not change the value of an existing element: an element that leads elsewhere is
//!   deleted first.

use std::net::IpAddr;

use cluster::net::MacAddr;

use super::super::{TABLE, table};
use super::{CLOSING_SECONDS, DATAGRAMS_SECONDS, OPEN_SECONDS};
use super::{Evidence, FabricFacts, LoadBalancer, VirtualService, returns};
use crate::maglev;
use crate::plane::element::{Element, Part};
use crate::plane::{Family, Space, Table, TableKey};

/// Open flows remembered per network, and as many closing ones. Flows beyond that use their slot
/// and stay with their backend until the slots change.
const FLOWS_MAX: u32 = 262_144;
/// How long a connection with only one packet is remembered: SYN retransmits within a minute reach
/// the same backend, and a stray packet does not take up space for a day. IPVS has the same
/// (`tcp_timeouts`, ip_vs_proto_tcp.c).
const OPENING_SECONDS: u32 = 60;

pub(super) struct NftBalancer;

impl LoadBalancer for NftBalancer {
    fn program(&self, facts: &FabricFacts, services: &[VirtualService], space: &mut Space) {
        let mut maps = vec!["slots"];
        if facts.returns.is_some() {
            maps.push("returns");
        }
        let mut table = table(structure(facts), &["live", "vips"], &maps);
        for service in services {
            let vip = service.vip;
            table.sets.entry("vips".to_owned()).or_default().insert(Element::of([vip.into()]));
            let live = table.sets.entry("live".to_owned()).or_default();
            live.extend(service.live.iter().map(|b| live_element(vip, b.mac)));
            let open: Vec<MacAddr> = service.open.iter().map(|b| b.mac).collect();
            let slots = table.maps.entry("slots".to_owned()).or_default();
            for (slot, mac) in (0..).zip(maglev::table(&open)) {
                let key = Element::of([vip.into(), Part::Mark(slot)]);
                slots.insert(key, Element::of([Part::Mac(mac)]));
            }
        }
        if let Some(returns) = &facts.returns {
            returns::fill(returns, &mut table);
        }
        space.nft.insert(key(), table);
    }

    fn takes(&self, fabric: &Space, vip: IpAddr) -> Evidence {
        let vips = fabric.nft.get(&key()).and_then(|table| table.sets.get("vips"));
        let balanced = vips.is_some_and(|vips| vips.contains(&Element::of([vip.into()])));
        (format!("vips {{ {vip} }}"), balanced)
    }

    fn shares(&self, fabric: &Space, service: &VirtualService) -> Vec<(String, Vec<Evidence>)> {
        let VirtualService { vip, open, .. } = service;
        let table = fabric.nft.get(&key());
        let macs: Vec<MacAddr> = open.iter().map(|backend| backend.mac).collect();
        let slots = maglev::table(&macs);
        let share = |mac: &MacAddr| {
            let share = slots.iter().filter(|slot| *slot == mac).count();
            let live = live_element(*vip, *mac);
            let is_live =
                table.is_some_and(|t| t.sets.get("live").is_some_and(|s| s.contains(&live)));
            let there = table.map_or(0, |table| slots_of(table, *vip, *mac));
            let text = format!("slots {{ {vip} . * : {mac} }}: {there} of {share}");
            let entries = vec![(format!("live {{ {live} }}"), is_live), (text, there == share)];
            (format!("{share} slots"), entries)
        };
        macs.iter().map(share).collect()
    }
}

fn key() -> TableKey {
    TableKey { family: Family::Bridge, name: TABLE.to_owned() }
}

/// An element of the set `live`.
fn live_element(vip: IpAddr, mac: MacAddr) -> Element {
    Element::of([vip.into(), Part::Mac(mac)])
}

/// Slots of a VIP that lead to a MAC address in the kernel.
fn slots_of(table: &Table, vip: IpAddr, mac: MacAddr) -> usize {
    let (vip, mac) = (Part::from(vip), Element::of([Part::Mac(mac)]));
    let slots = table.maps.get("slots").into_iter().flatten();
    slots.filter(|(key, value)| key.parts().first() == Some(&vip) && **value == mac).count()
}

fn structure(facts: &FabricFacts) -> String {
    let FabricFacts { bridge_mac, vxlan, .. } = facts;
    let words = Words::of(facts.ipv4);
    let Words { ip, address, flow, .. } = &words;
    let returning = facts.returns.is_some();
    let fragments = words.fragments();
    let first_fragment = words.first_fragment();
    let later_fragment = words.later_fragment();
    let balance = words.balance(*bridge_mac);
    let quoted = words.quoted(*bridge_mac);
    let returns = if returning { returns::MAP } else { "" };
    let from_vip = if returning { returns::chain() } else { String::new() };
    let from_vip_jump =
        if returning { format!("  {ip} saddr @vips goto from-vip\n") } else { String::new() };
    let icmp = words.icmp;
    format!(
        "set vips {{ type {address}; }}
set live {{ type {address} . ether_addr; }}
map slots {{ type {address} . mark : ether_addr; }}
map flows {{
  typeof {flow} : ether daddr; flags dynamic,timeout; timeout {OPEN_SECONDS}s; size {FLOWS_MAX};
}}
map closing {{
  typeof {flow} : ether daddr; flags dynamic,timeout; timeout {CLOSING_SECONDS}s; size {FLOWS_MAX};
}}
{fragments}{returns}{balance}{quoted}chain to-vip {{
{later_fragment}  {icmp} goto quoted
  meta l4proto {{ tcp, udp }} jump balance
{first_fragment}}}
{from_vip}chain pre {{
  type filter hook prerouting priority -300; policy accept;
  iifname \"{vxlan}\" accept
  {ip} daddr @vips goto to-vip
{from_vip_jump}}}
"
    )
}

/// The parts that differ between the address families.
struct Words {
    ipv4: bool,
    ip: &'static str,
    address: &'static str,
    /// What chooses a new flow's slot: the ports of one client's service calls share it.
    slot: &'static str,
    /// The fields that identify a flow to one VIP.
    digest: &'static str,
    /// Key of a learned flow, with the digest in the mark. The caller's address is written as an
    /// offset, so that a quoted one has the same type. Of IPv6 addresses these are the last four
    /// bytes, and the VIP is part of the digest, because nft 1.0.6 aborts on a longer key.
    flow: &'static str,
    /// Errors that quote a packet.
    icmp: &'static str,
    /// The same three of the quoted packet, which goes the other way: raw offsets into the error
    /// (8 bytes, then the quoted header of 20 or 40 bytes, then ports).
    quoted_slot: &'static str,
    quoted_digest: &'static str,
    quoted_flow: &'static str,
}

impl Words {
    fn of(ipv4: bool) -> Self {
        if ipv4 {
            Self {
                ipv4,
                ip: "ip",
                address: "ipv4_addr",
                slot: "ip saddr . th sport",
                digest: "ip saddr . th sport . th dport . meta l4proto",
                flow: "ip daddr . meta mark . @nh,96,32",
                icmp: "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
                quoted_slot: "@th,192,32 . @th,240,16",
                quoted_digest: "@th,192,32 . @th,240,16 . @th,224,16 . @th,136,8",
                quoted_flow: "ip daddr . meta mark . @th,192,32",
            }
        } else {
            Self {
                ipv4,
                ip: "ip6",
                address: "ipv6_addr",
                slot: "ip6 saddr . th sport",
                digest: "ip6 saddr . th sport . th dport . meta l4proto",
                flow: "meta mark . @nh,160,32",
                icmp: "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, \
                       parameter-problem }",
                quoted_slot: "@th,256,128 . @th,400,16",
                quoted_digest: "@th,256,128 . @th,400,16 . @th,384,16 . @th,112,8",
                quoted_flow: "meta mark . @th,352,32",
            }
        }
    }

    /// Statements that leave the digest of these parts in the mark.
    fn digest_of(&self, parts: &str) -> String {
        let flow = format!("  meta mark set jhash {parts} mod 0xffffffff seed 0x5eed\n");
        if self.ipv4 {
            flow
        } else {
            let vip = "  meta mark set jhash ip6 daddr . meta mark mod 0xffffffff seed 0x5eed\n";
            flow + vip
        }
    }

    /// IPv6 fragments are not followed, because nft 1.0.6 does not support the key.
    fn fragments(&self) -> String {
        if self.ipv4 { returns::fragments_map() } else { String::new() }
    }

    fn later_fragment(&self) -> &'static str {
        if self.ipv4 { returns::FRAGMENTS.later } else { "" }
    }

    fn first_fragment(&self) -> &'static str {
        if self.ipv4 { returns::FRAGMENTS.first } else { "" }
    }

    /// Leads a packet to a backend and remembers it: `by-slot` for new flows, `remember` for all.
    fn balance(&self, bridge_mac: MacAddr) -> String {
        let Self { ip, flow, slot, .. } = self;
        let digest = self.digest_of(self.digest);
        let opening =
            format!("update @flows {{ {flow} timeout {OPENING_SECONDS}s : ether daddr }} return");
        format!(
            "chain balance {{
{digest}  tcp flags & (fin | syn | rst | ack) == syn goto by-slot
  ether daddr set {flow} map @flows
  {ip} daddr . ether daddr @live goto remember
  ether daddr set {flow} map @closing
  {ip} daddr . ether daddr @live update @closing {{ {flow} : ether daddr }} return
  goto by-slot
}}
chain by-slot {{
  ether daddr set {bridge_mac}
  meta mark set jhash {slot} mod {slots} seed 0x5eed
  ether daddr set {ip} daddr . meta mark map @slots
  ether daddr {bridge_mac} return
{digest}  delete @flows {{ {flow} : ether daddr }} delete @closing {{ {flow} : ether daddr }}
  tcp flags & (fin | rst) == 0 {opening}
  goto remember
}}
chain remember {{
  meta l4proto udp update @flows {{ {flow} timeout {DATAGRAMS_SECONDS}s : ether daddr }} return
  tcp flags & (fin | syn | rst) == 0 update @flows {{ {flow} : ether daddr }} return
  tcp flags & syn == syn {opening}
  delete @flows {{ {flow} : ether daddr }}
  tcp flags & rst == 0 update @closing {{ {flow} : ether daddr }}
}}
",
            slots = maglev::SLOTS,
        )
    }

    /// An ICMP error follows the flow that it quotes.
    fn quoted(&self, bridge_mac: MacAddr) -> String {
        let Self { ip, quoted_flow, quoted_slot, .. } = self;
        let digest = self.digest_of(self.quoted_digest);
        format!(
            "chain quoted {{
{digest}  ether daddr set {quoted_flow} map @flows
  {ip} daddr . ether daddr @live accept
  ether daddr set {quoted_flow} map @closing
  {ip} daddr . ether daddr @live accept
  ether daddr set {bridge_mac}
  meta mark set jhash {quoted_slot} mod {slots} seed 0x5eed
  ether daddr set {ip} daddr . meta mark map @slots
}}
",
            slots = maglev::SLOTS,
        )
    }
}
