//! An operation as text for error messages, with names and values.

use netprog::op::{
    EntryOp, IpvsOp, Kind, LinkChange, LinkOp, NewLink, NftChange, NftOp, Op, RouteOp, SpaceOp,
    Sysctl,
};
use netprog::plane::{FdbKey, FdbTable, Link, LinkKind, Route};

/// As in `set fdb 02:42:0a:00:00:05 on vx-001000-abcde to 192.0.2.2 in fabric-…`.
pub(super) fn activity(op: &Op) -> String {
    let place = op.place;
    let done = match &op.kind {
        Kind::Space(SpaceOp::Create) => return format!("create namespace {place}"),
        Kind::Space(SpaceOp::Delete) => return format!("delete namespace {place}"),
        Kind::NewLink(NewLink::Veth { name, peer: (peer_place, peer) }) => {
            return format!("create veth {name} in {place} with peer {peer} in {peer_place}");
        }
        Kind::NewLink(NewLink::Device(name, link)) => format!("create {} {name}", kind(link)),
        Kind::Link(LinkOp::Delete(name)) => format!("delete link {name}"),
        Kind::Link(LinkOp::Set(name, change)) => format!("set link {name} {}", property(change)),
        Kind::Route(op) => routes(op),
        Kind::Entry(op) => entries(op),
        Kind::Sysctl(Sysctl { name, value }) => format!("set sysctl {name} to {value}"),
        Kind::Ipvs(op) => ipvs(op),
        Kind::Nft(op) => nft(op),
    };
    format!("{done} in {place}")
}

fn routes(op: &RouteOp) -> String {
    let route = |route: &Route| {
        format!("route {} dev {} table {}", route.destination, route.device, route.table)
    };
    match op {
        RouteOp::AddAddress(link, cidr) => format!("add address {cidr} to {link}"),
        RouteOp::DeleteAddress(link, cidr) => format!("delete address {cidr} from {link}"),
        RouteOp::AddRoute(new) => format!("add {}", route(new)),
        RouteOp::DeleteRoute(old) => format!("delete {}", route(old)),
        RouteOp::AddRule(rule) => format!("add rule {} for mark {}", rule.priority, rule.fwmark),
        RouteOp::DeleteRule(rule) => {
            format!("delete rule {} for mark {}", rule.priority, rule.fwmark)
        }
    }
}

fn entries(op: &EntryOp) -> String {
    match op {
        EntryOp::SetFdb(key, Some(vtep)) => format!("set {} to {vtep}", fdb(key)),
        EntryOp::SetFdb(key, None) => format!("set {}", fdb(key)),
        EntryOp::DeleteFdb(key) => format!("delete {}", fdb(key)),
        EntryOp::SetNeighbour(device, address, mac) => {
            format!("set neighbour {address} on {device} to {mac}")
        }
        EntryOp::DeleteNeighbour(device, address) => {
            format!("delete neighbour {address} on {device}")
        }
    }
}

fn ipvs(op: &IpvsOp) -> String {
    match op {
        IpvsOp::SetService(key, scheduler) => format!("set virtual service {key} {scheduler}"),
        IpvsOp::DeleteService(key) => format!("delete virtual service {key}"),
        IpvsOp::SetReal(key, address, weight) => {
            format!("set real server {address} of {key} to weight {weight}")
        }
        IpvsOp::DeleteReal(key, address) => format!("delete real server {address} of {key}"),
        IpvsOp::SetTimeouts(to) => format!("set timeouts {to} of IPVS"),
    }
}

fn nft(op: &NftOp) -> String {
    let of = &op.table;
    match &op.change {
        NftChange::Load(_) => format!("load table {of}"),
        NftChange::Delete => format!("delete table {of}"),
        NftChange::AddElement(set, element) => format!("add {element} to set {set} of {of}"),
        NftChange::DeleteElement(set, element) => {
            format!("delete {element} from set {set} of {of}")
        }
        NftChange::SetMapElement { map, key, new: Some(new), .. } => {
            format!("set {key} to {new} in map {map} of {of}")
        }
        NftChange::SetMapElement { map, key, new: None, .. } => {
            format!("delete {key} from map {map} of {of}")
        }
    }
}

fn kind(link: &Link) -> String {
    match &link.kind {
        LinkKind::Bridge => "bridge".to_owned(),
        LinkKind::Vxlan { vni, local, port } => {
            format!("VXLAN device with VNI {vni} at {local} port {port}")
        }
        LinkKind::Veth => "veth".to_owned(),
        LinkKind::Other(other) => other.clone(),
    }
}

fn property(change: &LinkChange) -> String {
    match change {
        LinkChange::Up(true) => "up".to_owned(),
        LinkChange::Up(false) => "down".to_owned(),
        LinkChange::Mtu(mtu) => format!("mtu {mtu}"),
        LinkChange::Mac(mac) => format!("address {mac}"),
        LinkChange::Master(Some(bridge)) => format!("master {bridge}"),
        LinkChange::Master(None) => "nomaster".to_owned(),
        LinkChange::Alias(alias) => format!("alias {alias}"),
        LinkChange::Port(flags) => {
            let on = |value| if value { "on" } else { "off" };
            format!(
                "learning {} flood {} hairpin {} isolated {}",
                on(flags.learning),
                on(flags.flood),
                on(flags.hairpin),
                on(flags.isolated)
            )
        }
    }
}

fn fdb(key: &FdbKey) -> String {
    let table = match key.table {
        FdbTable::Device => "self",
        FdbTable::Bridge => "master",
    };
    format!("FDB entry {} on {} ({table})", key.mac, key.device)
}
