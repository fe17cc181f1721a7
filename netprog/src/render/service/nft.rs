//! The nft balancer: one bridge-family table for each network rewrites the destination MAC
//! address of frames to a VIP.
//!
//! - `live` holds (VIP, MAC): a learned flow counts only while its backend is in it. To remove a
//!   backend is to delete its one element; its flows meet another backend from then on.
//! - `slots` holds (VIP, slot → MAC) for new flows; `flows` what they learned.
//! - A flow's digest is a 32-bit jhash, because nft 1.0.6 aborts on long map keys with data; it
//!   cannot delete from a map on the packet path either, hence `live`.

use std::net::IpAddr;

use cluster::net::MacAddr;

use super::super::{TABLE, table};
use super::{Evidence, FabricFacts, LoadBalancer, VirtualService, returns};
use crate::maglev;
use crate::plane::{Family, Space, Table, TableKey};

/// Flows that a network remembers; beyond it new flows are balanced by their slot alone.
const FLOWS_MAX: u32 = 262_144;

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
            table.sets.entry("vips".to_owned()).or_default().insert(vip.to_string());
            let live = table.sets.entry("live".to_owned()).or_default();
            live.extend(service.live.iter().map(|b| format!("{vip} . {}", b.mac)));
            let open: Vec<MacAddr> = service.open.iter().map(|b| b.mac).collect();
            let slots = table.maps.entry("slots".to_owned()).or_default();
            for (slot, mac) in maglev::table(&open).iter().enumerate() {
                slots.insert(slot_element(vip, slot), mac.to_string());
            }
        }
        if let Some(returns) = &facts.returns {
            returns::fill(returns, &mut table);
        }
        space.nft.insert(key(), table);
    }

    fn takes(&self, fabric: &Space, vip: IpAddr) -> Evidence {
        let vips = fabric.nft.get(&key()).and_then(|table| table.sets.get("vips"));
        let balanced = vips.is_some_and(|vips| vips.contains(&vip.to_string()));
        (format!("vips {{ {vip} }}"), balanced)
    }

    fn shares(&self, fabric: &Space, service: &VirtualService) -> Vec<(String, Vec<Evidence>)> {
        let VirtualService { vip, open, .. } = service;
        let table = fabric.nft.get(&key());
        let macs: Vec<MacAddr> = open.iter().map(|backend| backend.mac).collect();
        let slots = maglev::table(&macs);
        let share = |mac: &MacAddr| {
            let share = slots.iter().filter(|slot| *slot == mac).count();
            let live = format!("{vip} . {mac}");
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

/// Key of a slot in the map `slots`.
pub(crate) fn slot_element(vip: IpAddr, slot: usize) -> String {
    format!("{vip} . {slot}")
}

/// Slots of a VIP that lead to a MAC address in the kernel.
fn slots_of(table: &Table, vip: IpAddr, mac: MacAddr) -> usize {
    let (prefix, mac) = (format!("{vip} . "), mac.to_string());
    let slots = table.maps.get("slots").into_iter().flatten();
    slots.filter(|(key, value)| key.starts_with(&prefix) && **value == mac).count()
}

fn structure(facts: &FabricFacts) -> String {
    let FabricFacts { bridge_mac, vxlan, .. } = facts;
    let words = Words::of(facts.ipv4);
    let Words { ip, address, slot, flow, flow_type, .. } = &words;
    let digest = words.digest_of(words.digest);
    let returning = facts.returns.is_some();
    let fragments = words.fragments();
    let first_fragment = words.first_fragment();
    let later_fragment = words.later_fragment();
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
  type {flow_type} : ether_addr; flags dynamic,timeout; timeout 15m; size {FLOWS_MAX};
}}
{fragments}{returns}chain balance {{
{digest}  ether daddr set {flow} map @flows
  {ip} daddr . ether daddr @live update @flows {{ {flow} : ether daddr }} return
  ether daddr set {bridge_mac}
  meta mark set jhash {slot} mod {slots} seed 0x5eed
  ether daddr set {ip} daddr . meta mark map @slots
  ether daddr {bridge_mac} return
{digest}  add @flows {{ {flow} : ether daddr }}
}}
{quoted}chain to-vip {{
{later_fragment}  {icmp} goto quoted
  meta l4proto {{ tcp, udp }} jump balance
{first_fragment}}}
{from_vip}chain pre {{
  type filter hook prerouting priority -300; policy accept;
  iifname \"{vxlan}\" accept
  {ip} daddr @vips goto to-vip
{from_vip_jump}}}
",
        slots = maglev::SLOTS,
    )
}

/// What differs between the families.
struct Words {
    ipv4: bool,
    ip: &'static str,
    address: &'static str,
    /// What chooses a new flow's slot: the ports of one client's service calls share it.
    slot: &'static str,
    /// What tells flows to one VIP apart.
    digest: &'static str,
    /// Key of a learned flow, and its type. An IPv6 address is part of the digest instead,
    /// because nft 1.0.6 aborts on writing such a long key.
    flow: &'static str,
    flow_type: &'static str,
    /// Errors that quote a packet.
    icmp: &'static str,
    /// The same two of the quoted packet, which goes the other way: raw offsets into the error
    /// (8 bytes, then the quoted header of 20 or 40 bytes, then ports).
    quoted_slot: &'static str,
    quoted_digest: &'static str,
}

impl Words {
    fn of(ipv4: bool) -> Self {
        if ipv4 {
            Self {
                ipv4,
                ip: "ip",
                address: "ipv4_addr",
                slot: "ip saddr . th sport",
                digest: "ip saddr . th sport . th dport",
                flow: "ip daddr . meta mark",
                flow_type: "ipv4_addr . mark",
                icmp: "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
                quoted_slot: "@th,192,32 . @th,240,16",
                quoted_digest: "@th,192,32 . @th,240,16 . @th,224,16",
            }
        } else {
            Self {
                ipv4,
                ip: "ip6",
                address: "ipv6_addr",
                slot: "ip6 saddr . th sport",
                digest: "ip6 saddr . th sport . th dport",
                flow: "meta mark",
                flow_type: "mark",
                icmp: "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, \
                       parameter-problem }",
                quoted_slot: "@th,256,128 . @th,400,16",
                quoted_digest: "@th,256,128 . @th,400,16 . @th,384,16",
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

    /// IPv6 fragments are not followed, because the key is beyond nft 1.0.6.
    fn fragments(&self) -> String {
        if self.ipv4 { returns::fragments_map() } else { String::new() }
    }

    fn later_fragment(&self) -> &'static str {
        if self.ipv4 { returns::FRAGMENTS.later } else { "" }
    }

    fn first_fragment(&self) -> &'static str {
        if self.ipv4 { returns::FRAGMENTS.first } else { "" }
    }

    /// An ICMP error goes where the flow goes that it quotes.
    fn quoted(&self, bridge_mac: MacAddr) -> String {
        let Self { ip, flow, quoted_slot, .. } = self;
        let digest = self.digest_of(self.quoted_digest);
        format!(
            "chain quoted {{
{digest}  ether daddr set {flow} map @flows
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
