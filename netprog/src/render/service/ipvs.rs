//! The IPVS balancer: a firewall mark for each VIP, a virtual service for each mark, direct routing
//! to each backend.
//!
//! - Table `ip skein` (or `ip6`) marks packets to a VIP; one service accepts all ports of all
//!   protocols.
//! - The scheduler is Maglev (`mh`) over the client's address and port. Entries expire after a day
//!   (the kernel's default is 15 minutes). A flow whose entry has expired is not cut off: the same
//!   hash leads it to the same backend (`sloppy_tcp`), unless the backends changed.
//! - A draining backend has weight 0: its flows continue, new ones use the next one in the hash
//!   (`mh-fallback`). The flows of a removed backend expire at once (`expire_nodest_conn`) and
//!   reach another backend, which resets them.
//! - The fabric's own stack sends to backends, so the bridge has a neighbour entry for each.

use std::net::IpAddr;

use super::super::{TABLE, table};
use super::{CLOSING_SECONDS, DATAGRAMS_SECONDS, OPEN_SECONDS};
use super::{Evidence, FabricFacts, LoadBalancer, VirtualService, returns};
use crate::plane::element::{Element, Part};
use crate::plane::ipvs::{FLAG_FALLBACK, FLAG_PORT, Scheduler, Timeouts, VirtualEntry, VirtualKey};
use crate::plane::{Family, Space, TableKey};

/// Weight of a backend that takes new flows.
const OPEN: u32 = 1;
/// Weight of a backend that only keeps its flows.
const DRAINING: u32 = 0;

/// Timeouts of connections, as in the nft balancer.
const TIMEOUTS: Timeouts =
    Timeouts { tcp: OPEN_SECONDS, tcp_fin: CLOSING_SECONDS, udp: DATAGRAMS_SECONDS };
/// Settings of IPVS in a fabric (Documentation/networking/ipvs-sysctl.rst).
const IPVS_SYSCTLS: [(&str, &str); 4] = [
    ("net/ipv4/vs/sloppy_tcp", "1"),
    ("net/ipv4/vs/expire_nodest_conn", "1"),
    // A SYN on a port that was used before is scheduled, also after a FIN whose answer is not seen.
    ("net/ipv4/vs/conn_reuse_mode", "3"),
    // Where memory runs short the kernel drops entries, those of half-open connections first.
    ("net/ipv4/vs/drop_entry", "1"),
];
/// Packets leave through the bridge through which they arrived: the kernel must neither drop their
/// source as spoofed nor send ICMP redirects.
const BRIDGE_SYSCTLS: [&str; 2] = ["rp_filter", "send_redirects"];

pub(super) struct IpvsBalancer;

impl LoadBalancer for IpvsBalancer {
    fn program(&self, facts: &FabricFacts, services: &[VirtualService], space: &mut Space) {
        let mut marks = table(structure(facts.ipv4), &[], &["marks"]);
        for service in services {
            let (key, entry) = (key(service.vip), entry(service));
            let elements = marks.maps.entry("marks".to_owned()).or_default();
            elements.insert(Element::of([service.vip.into()]), mark(key));
            for backend in &service.live {
                let neighbour = (facts.bridge.clone(), backend.address);
                space.neighbours.insert(neighbour, backend.mac);
            }
            space.ipvs.insert(key, entry);
        }
        space.ipvs_timeouts = Some(TIMEOUTS);
        space.nft.insert(marks_key(facts.ipv4), marks);
        sysctls(facts, space);
        if let Some(returns) = &facts.returns {
            let mut table = table(returns_structure(facts), &["vips"], &["returns"]);
            let vips = services.iter().map(|service| Element::of([service.vip.into()]));
            table.sets.insert("vips".to_owned(), vips.collect());
            returns::fill(returns, &mut table);
            let key = TableKey { family: Family::Bridge, name: TABLE.to_owned() };
            space.nft.insert(key, table);
        }
    }

    fn takes(&self, fabric: &Space, vip: IpAddr) -> Evidence {
        let mark = mark(key(vip));
        let table = fabric.nft.get(&marks_key(vip.is_ipv4()));
        let marks = table.and_then(|table| table.maps.get("marks"));
        let marked = marks.and_then(|marks| marks.get(&Element::of([vip.into()]))) == Some(&mark);
        (format!("marks {{ {vip} : {mark} }}"), marked)
    }

    fn shares(&self, fabric: &Space, service: &VirtualService) -> Vec<(String, Vec<Evidence>)> {
        let key = key(service.vip);
        let now = fabric.ipvs.get(&key);
        let share = |backend: &super::Backend| {
            let address = backend.address;
            let weight = now.and_then(|now| now.real.get(&address));
            let text = format!("ipvs {key} {} -r {address} -g -w {OPEN}", scheduler());
            let present = weight == Some(&OPEN) && now.is_some_and(|n| n.scheduler == scheduler());
            (format!("weight {OPEN}"), vec![(text, present)])
        };
        service.open.iter().map(share).collect()
    }
}

/// An element of the map `marks`.
fn mark(key: VirtualKey) -> Element {
    Element::of([Part::Mark(key.fwmark)])
}

fn marks_key(ipv4: bool) -> TableKey {
    TableKey { family: if ipv4 { Family::Ip } else { Family::Ip6 }, name: TABLE.to_owned() }
}

/// The mark is the last four bytes of the VIP, which are unique within a network: they
/// are allocated from the start of its subnet. So marks need no allocation, and a restarted daemon
/// finds its services under the same marks.
fn key(vip: IpAddr) -> VirtualKey {
    let fwmark = match vip {
        IpAddr::V4(v4) => u32::from(v4),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            u32::from_be_bytes([a, b, c, d])
        }
    };
    VirtualKey { ipv6: vip.is_ipv6(), fwmark }
}

fn scheduler() -> Scheduler {
    Scheduler { name: "mh".to_owned(), flags: FLAG_FALLBACK | FLAG_PORT }
}

fn entry(service: &VirtualService) -> VirtualEntry {
    let weight = |backend| if service.open.contains(backend) { OPEN } else { DRAINING };
    let real = service.live.iter().map(|backend| (backend.address, weight(backend)));
    VirtualEntry { scheduler: scheduler(), real: real.collect() }
}

fn sysctls(facts: &FabricFacts, space: &mut Space) {
    for (name, value) in IPVS_SYSCTLS {
        space.sysctls.insert(name.to_owned(), value.to_owned());
    }
    for link in ["all", &facts.bridge] {
        for name in BRIDGE_SYSCTLS {
            space.sysctls.insert(format!("net/ipv4/conf/{link}/{name}"), "0".to_owned());
        }
    }
}

/// Before routing, so that the mark is there when the packet reaches IPVS in the input hook.
fn structure(ipv4: bool) -> String {
    let (ip, address) = if ipv4 { ("ip", "ipv4_addr") } else { ("ip6", "ipv6_addr") };
    format!(
        "map marks {{ type {address} : mark; }}
chain pre {{
  type filter hook prerouting priority mangle; policy accept;
  meta mark set {ip} daddr map @marks
}}
"
    )
}

fn returns_structure(facts: &FabricFacts) -> String {
    let FabricFacts { vxlan, .. } = facts;
    let (fragments, map, chain) = (returns::fragments_map(), returns::MAP, returns::chain());
    format!(
        "set vips {{ type ipv4_addr; }}
{fragments}{map}{chain}chain pre {{
  type filter hook prerouting priority -300; policy accept;
  iifname \"{vxlan}\" accept
  ip saddr @vips goto from-vip
}}
"
    )
}
