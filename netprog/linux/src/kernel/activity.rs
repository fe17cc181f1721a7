//! An operation in words, for errors: what was tried, with names and values.

use netprog::op::{LinkChange, Op};
use netprog::plane::{FdbKey, FdbTable, Link, LinkKind, TableKey};

/// As in `set fdb 02:42:0a:00:00:05 on vx-001000-abcde to 192.0.2.2 in fabric-…`.
pub(super) fn activity(op: &Op) -> String {
    match op {
        Op::CreateSpace(place) => format!("create namespace {place}"),
        Op::DeleteSpace(place) => format!("delete namespace {place}"),
        Op::CreateVeth(pair) => format!(
            "create veth {} in {} with peer {} in {}",
            pair.outer.1, pair.outer.0, pair.inner.1, pair.inner.0
        ),
        Op::CreateLink(place, name, link) => {
            format!("create {} {name} in {place}", kind(link))
        }
        Op::DeleteLink(place, name) => format!("delete link {name} in {place}"),
        Op::SetLink(place, name, change) => {
            format!("set link {name} {} in {place}", property(change))
        }
        Op::AddAddress(place, link, cidr) => format!("add address {cidr} to {link} in {place}"),
        Op::DeleteAddress(place, link, cidr) => {
            format!("delete address {cidr} from {link} in {place}")
        }
        Op::AddRoute(place, route) => format!(
            "add route {} dev {} table {} in {place}",
            route.destination, route.device, route.table
        ),
        Op::DeleteRoute(place, route) => format!(
            "delete route {} dev {} table {} in {place}",
            route.destination, route.device, route.table
        ),
        Op::AddRule(place, rule) => {
            format!("add rule {} for mark {} in {place}", rule.priority, rule.fwmark)
        }
        Op::DeleteRule(place, rule) => {
            format!("delete rule {} for mark {} in {place}", rule.priority, rule.fwmark)
        }
        Op::SetFdb(place, key, Some(vtep)) => format!("set {} to {vtep} in {place}", fdb(key)),
        Op::SetFdb(place, key, None) => format!("set {} in {place}", fdb(key)),
        Op::DeleteFdb(place, key) => format!("delete {} in {place}", fdb(key)),
        Op::SetNeighbour(place, device, address, mac) => {
            format!("set neighbour {address} on {device} to {mac} in {place}")
        }
        Op::DeleteNeighbour(place, device, address) => {
            format!("delete neighbour {address} on {device} in {place}")
        }
        Op::SetSysctl(place, name, value) => format!("set sysctl {name} to {value} in {place}"),
        Op::SetVirtualService(place, key, scheduler) => {
            format!("set virtual service {key} {scheduler} in {place}")
        }
        Op::DeleteVirtualService(place, key) => {
            format!("delete virtual service {key} in {place}")
        }
        Op::SetRealServer(place, key, address, weight) => {
            format!("set real server {address} of {key} to weight {weight} in {place}")
        }
        Op::DeleteRealServer(place, key, address) => {
            format!("delete real server {address} of {key} in {place}")
        }
        Op::SetIpvsTimeouts(place, to) => format!("set timeouts {to} of IPVS in {place}"),
        Op::LoadTable(place, key, _) => format!("load table {} in {place}", table(key)),
        Op::DeleteTable(place, key) => format!("delete table {} in {place}", table(key)),
        Op::AddElement(place, key, set, element) => {
            format!("add {element} to set {set} of {} in {place}", table(key))
        }
        Op::DeleteElement(place, key, set, element) => {
            format!("delete {element} from set {set} of {} in {place}", table(key))
        }
        Op::SetMapElement { place, table: of, map, key, new: Some(new), .. } => {
            format!("set {key} to {new} in map {map} of {} in {place}", table(of))
        }
        Op::SetMapElement { place, table: of, map, key, new: None, .. } => {
            format!("delete {key} from map {map} of {} in {place}", table(of))
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

fn table(key: &TableKey) -> String {
    format!("{} {}", key.family.name(), key.name)
}
