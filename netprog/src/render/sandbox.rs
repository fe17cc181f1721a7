//! A task's sandbox: its links, and the address translation that lets any server answer for a VIP.

use std::net::{IpAddr, Ipv4Addr};

use cluster::assignment::AssignedNetwork;
use cluster::net::Addresses;
use cluster::object::Attachment;
use cluster::spec::PublishMode;

use super::senders::Sender;
use super::{
    LocalTask, Scene, TABLE, bridge_name, bridge_port, egress, everywhere, fabric, on, senders,
    table,
};
use crate::local::LocalSandbox;
use crate::plane::element::{Element, Part};
use crate::plane::{
    ALIAS_PREFIX, Family, Link, LinkKind, Place, Plane, Route, Rule, Space, Table, TableKey,
    VethPair,
};

/// Routes of replies that leave through the ingress network.
const TABLE_INGRESS: u32 = 101;
/// Mark of such replies, and of their connections.
const INGRESS_MARK: u32 = 1;
/// Preference of the rule for that mark: before the main table's (32766).
const INGRESS_PRIORITY: u32 = 20;

/// ARP requests for peers that this node's fabric does not know yet: ten times as often as the
/// kernel's default, for the same 3 s. A task may call, or be called, shortly before all nodes have
/// heard of it; with the kernel's default its first connection would take a whole second longer
/// (arp(7); Documentation/networking/ip-sysctl.rst, neigh/).
const ASK_OFTEN: [(&str, &str); 3] =
    [("retrans_time_ms", "100"), ("mcast_solicit", "30"), ("ucast_solicit", "30")];

/// An attachment of the task, its link and its network.
struct Leg<'a> {
    link: String,
    attachment: &'a Attachment,
    network: &'a AssignedNetwork,
}

pub(super) fn render(
    scene: &Scene<'_>,
    task: &LocalTask<'_>,
    sandbox: &LocalSandbox,
    plane: &mut Plane,
) {
    let mut space = Space::default();
    let legs: Vec<Leg<'_>> = task
        .assigned
        .attachments
        .iter()
        .enumerate()
        .filter_map(|(index, attachment)| {
            let network = scene.assignment.networks.get(&attachment.network)?;
            Some(Leg { link: LocalTask::link(index), attachment, network })
        })
        .collect();
    for leg in &legs {
        attach(scene, task, leg, plane, &mut space);
    }
    space.sysctls.insert("net/ipv4/conf/all/rp_filter".to_owned(), "0".to_owned());
    // A packet is matched to a socket before chain `clash` may give it another source port. Kernels
    // before 6.3 keep that match: a clashing call would meet the other one's connection and hang.
    // This is for both families (ip6_rcv_finish_core, net/ipv6/ip6_input.c).
    space.sysctls.insert("net/ipv4/ip_early_demux".to_owned(), "0".to_owned());
    // A backend that is called by a VIP and by its address sees one client with timestamps of two
    // clocks, and takes a call that goes back for an old one while it remembers the pair of ports:
    // 2 is one clock for all (Documentation/networking/ip-sysctl.rst, tcp_timestamps).
    space.sysctls.insert("net/ipv4/tcp_timestamps".to_owned(), "2".to_owned());
    let egress = LocalTask::link(task.assigned.attachments.len());
    if egress::has_leg(scene, task) {
        egress::attach(scene, task, (&egress, sandbox), plane, &mut space);
    }
    let key = |family| TableKey { family, name: TABLE.to_owned() };
    space.nft.insert(key(Family::Ip), ipv4(scene, task, sandbox, &legs));
    if legs.iter().any(|leg| leg.attachment.addresses.v6().is_some()) {
        let mut table = table(vip_structure(false), &["vips"], &["own"]);
        fill_vips(scene, task, &legs, false, &mut table);
        space.nft.insert(key(Family::Ip6), table);
    }
    plane.spaces.insert(Place::Sandbox(task.id), space);
}

fn attach(
    scene: &Scene<'_>,
    task: &LocalTask<'_>,
    leg: &Leg<'_>,
    plane: &mut Plane,
    space: &mut Space,
) {
    let Leg { link, attachment, network } = leg;
    let (id, mtu) = (attachment.network, scene.mtu(network));
    let alias = format!("{ALIAS_PREFIX}{}", task.id);
    let outer = task.outer();
    let bridge = bridge_name(id, network);
    let fabric_space = plane.spaces.entry(fabric(id)).or_default();
    bridge_port::add(fabric_space, &outer, (&bridge, mtu), attachment, &alias);
    let service = scene.assignment.services.get(&task.assigned.service);
    let vips = service.and_then(|service| service.vips.get(&id).copied());
    let (mac, addresses) = (attachment.mac, attachment.addresses);
    senders::allow(fabric_space, &Sender { port: &outer, mac, addresses, vips });
    space.links.insert(
        link.clone(),
        Link {
            kind: LinkKind::Veth,
            up: true,
            mtu,
            mac: Some(attachment.mac),
            master: None,
            alias,
            port: None,
        },
    );
    // A backend that calls its own VIP meets its own address as a source from outside.
    for (name, value) in [("accept_local", "1"), ("rp_filter", "0")] {
        space.sysctls.insert(format!("net/ipv4/conf/{link}/{name}"), value.to_owned());
    }
    for address in addresses.iter() {
        space.addresses.insert((link.clone(), on(network, address)));
        let family = if address.is_ipv6() { "ipv6" } else { "ipv4" };
        for (name, value) in ASK_OFTEN {
            space.sysctls.insert(format!("net/{family}/neigh/{link}/{name}"), value.to_owned());
        }
    }
    if network.ingress {
        for gateway in network.subnets.gateways().iter() {
            answer_by_ingress(link, gateway, space);
        }
    }
    plane.veths.insert(VethPair {
        outer: (fabric(id), outer),
        inner: (Place::Sandbox(task.id), link.clone()),
    });
}

/// Replies to calls from the ingress network leave through it, although the default route is the
/// egress leg. The gateway is not involved: the fabric sets the destination MAC.
fn answer_by_ingress(link: &str, gateway: IpAddr, space: &mut Space) {
    space.routes.insert(Route {
        table: TABLE_INGRESS,
        destination: everywhere(gateway),
        local: false,
        via: Some(gateway),
        device: link.to_owned(),
    });
    space.rules.insert(Rule {
        priority: INGRESS_PRIORITY,
        fwmark: INGRESS_MARK,
        table: TABLE_INGRESS,
        ipv6: gateway.is_ipv6(),
    });
}

fn ipv4(
    scene: &Scene<'_>,
    task: &LocalTask<'_>,
    sandbox: &LocalSandbox,
    legs: &[Leg<'_>],
) -> Table {
    let mut structure = vip_structure(true);
    structure.push_str(&dns_structure(sandbox));
    let ingress = legs.iter().find(|leg| leg.network.ingress);
    let address = ingress.and_then(|leg| leg.attachment.addresses.v4());
    let (Some(ingress), Some(address)) = (ingress, address) else {
        let mut table = table(structure, &["vips"], &["own"]);
        fill_vips(scene, task, legs, true, &mut table);
        return table;
    };
    structure.push_str(&ingress_structure(&ingress.link));
    let sets = ["vips", "ingress_vips", "open"];
    let mut table = table(structure, &sets, &["own", "targets"]);
    fill_vips(scene, task, legs, true, &mut table);
    fill_targets(scene, task, (ingress, address, sandbox), &mut table);
    table
}

/// Packets to the VIP of this task's service are translated to its own address; conntrack sends the
/// reply from the VIP. The task's own calls to the VIP are not tracked on the way out: otherwise
/// they would return as a known flow and not be translated. The empty input chain gives a clashing
/// flow another source port.
fn vip_structure(ipv4: bool) -> String {
    let (ip, address) = if ipv4 { ("ip", "ipv4_addr") } else { ("ip6", "ipv6_addr") };
    format!(
        "set vips {{ type {address}; }}
map own {{ type {address} : {address}; }}
chain own-calls {{
  type filter hook output priority raw; policy accept;
  {ip} daddr @vips notrack
}}
chain vip {{
  type nat hook prerouting priority dstnat; policy accept;
  dnat to {ip} daddr map @own
}}
chain clash {{
  type nat hook input priority 100; policy accept;
}}
"
    )
}

/// Queries to 127.0.0.11 port 53 go to sockets on other ports, so that a task may serve port 53
/// itself; conntrack restores the source of the reply.
fn dns_structure(sandbox: &LocalSandbox) -> String {
    let LocalSandbox { dns_udp_port, dns_tcp_port, .. } = sandbox;
    format!(
        "chain dns {{
  type nat hook output priority -100; policy accept;
  ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:{dns_udp_port}
  ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:{dns_tcp_port}
}}
"
    )
}

/// Calls to published ports: translated to the egress leg's address, from which an unbound UDP
/// server replies to an outside client, and marked, so that the reply returns through the ingress
/// network. Nothing else answers on that link.
fn ingress_structure(link: &str) -> String {
    format!(
        "set ingress_vips {{ type ipv4_addr; }}
set open {{ type ipv4_addr . inet_proto . inet_service; }}
map targets {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
chain came {{
  type filter hook prerouting priority mangle; policy accept;
  iifname \"{link}\" ip daddr @ingress_vips ct mark set {INGRESS_MARK}
}}
chain published {{
  type nat hook prerouting priority dstnat; policy accept;
  iifname \"{link}\" dnat ip to ip daddr . meta l4proto . th dport map @targets
}}
chain back {{
  type route hook output priority mangle; policy accept;
  ct mark {INGRESS_MARK} ct direction reply meta mark set {INGRESS_MARK}
}}
chain closed {{
  type filter hook input priority filter; policy accept;
  iifname != \"{link}\" accept
  ct state established,related accept
  ip daddr . meta l4proto . th dport @open accept
  drop
}}
"
    )
}

/// VIPs of the task's own service on its networks; the VIP on the ingress network is reached only
/// through published ports.
fn fill_vips(
    scene: &Scene<'_>,
    task: &LocalTask<'_>,
    legs: &[Leg<'_>],
    ipv4: bool,
    table: &mut Table,
) {
    let Some(service) = scene.assignment.services.get(&task.assigned.service) else { return };
    for leg in legs.iter().filter(|leg| !leg.network.ingress) {
        let vips = service.vips.get(&leg.attachment.network).into_iter().flat_map(Addresses::iter);
        for vip in vips.filter(|vip| vip.is_ipv4() == ipv4) {
            table.sets.entry("vips".to_owned()).or_default().insert(Element::of([vip.into()]));
            let own = table.maps.entry("own".to_owned()).or_default();
            if let Some(address) = leg.attachment.addresses.like(vip) {
                own.insert(Element::of([vip.into()]), Element::of([address.into()]));
            }
        }
    }
}

fn fill_targets(
    scene: &Scene<'_>,
    task: &LocalTask<'_>,
    (ingress, address, sandbox): (&Leg<'_>, Ipv4Addr, &LocalSandbox),
    table: &mut Table,
) {
    let Some(service) = scene.assignment.services.get(&task.assigned.service) else { return };
    let vips = service.vips.get(&ingress.attachment.network);
    let Some(vip) = vips.and_then(Addresses::v4).map(IpAddr::V4) else { return };
    let ingress_vips = table.sets.entry("ingress_vips".to_owned()).or_default();
    ingress_vips.insert(Element::of([vip.into()]));
    let Some(own) = scene.assignment.own.get(&task.id) else { return };
    let open = table.sets.entry("open".to_owned()).or_default();
    let targets = table.maps.entry("targets".to_owned()).or_default();
    for port in own.ports.iter().filter(|port| port.mode == PublishMode::Ingress) {
        let (protocol, target) = (Part::protocol(port.protocol), Part::Port(port.target));
        // Rewritten calls, and those of peers to the address itself.
        for address in [sandbox.egress, address.into()] {
            open.insert(Element::of([address.into(), protocol.clone(), target.clone()]));
        }
        // The service may have another target by now; where this task listens is as it was made.
        let here = service.ports.iter().filter(|now| now.is_same_publication(port));
        for number in here.flat_map(|now| now.ingress_ports.values()) {
            let key = Element::of([vip.into(), protocol.clone(), Part::Port(*number)]);
            targets.insert(key, Element::of([sandbox.egress.into(), target.clone()]));
        }
    }
}
