//! Addresses, sysctls, routes, rules, FDB and neighbour entries.

use super::links::after_moves;
use super::{is_optional_sysctl, is_our_device};
use crate::op::{EntryOp, Op, RouteOp};
use crate::plane::{FdbTable, Place, Space};

pub(super) fn addresses(place: Place, wanted: &Space, there: &Space, ops: &mut Vec<Op>) {
    for (link, cidr) in wanted.addresses.difference(&there.addresses) {
        ops.push(Op::new(place, RouteOp::AddAddress(link.clone(), *cidr)));
    }
}

/// Sysctls that differ. In a namespace that has been read, an optional one that was not found does
/// not exist.
pub(super) fn sysctls(place: Place, wanted: &Space, there: &Space, known: bool, ops: &mut Vec<Op>) {
    for (name, value) in &wanted.sysctls {
        let now = there.sysctls.get(name);
        let absent = known && now.is_none() && is_optional_sysctl(name);
        if now != Some(value) && !absent {
            ops.push(Op::sysctl(place, name.clone(), value.clone()));
        }
    }
}

pub(super) fn routes(place: Place, wanted: &Space, there: &Space, ops: &mut Vec<Op>) {
    for route in wanted.routes.difference(&there.routes) {
        ops.push(Op::new(place, RouteOp::AddRoute(route.clone())));
    }
    for rule in wanted.rules.difference(&there.rules) {
        ops.push(Op::new(place, RouteOp::AddRule(rule.clone())));
    }
}

pub(super) fn forwarding(place: Place, wanted: &Space, there: &Space, ops: &mut Vec<Op>) {
    let there = &*after_moves(wanted, there);
    for (key, vtep) in &wanted.fdb {
        if there.fdb.get(key) != Some(vtep) {
            ops.push(Op::new(place, EntryOp::SetFdb(key.clone(), *vtep)));
        }
    }
    for ((device, address), mac) in &wanted.neighbours {
        if there.neighbours.get(&(device.clone(), *address)) != Some(mac) {
            ops.push(Op::new(place, EntryOp::SetNeighbour(device.clone(), *address, *mac)));
        }
    }
}

/// Removes undesired entries on devices that stay; other entries are removed with their device.
pub(super) fn remove(place: Place, wanted: &Space, there: &Space, ops: &mut Vec<Op>) {
    let there = &*after_moves(wanted, there);
    let ours = |device: &str| {
        let stays = !there.links.contains_key(device) || wanted.links.contains_key(device);
        stays && is_our_device(place, wanted, there, device)
    };
    for (device, address) in there.neighbours.keys() {
        let entry = (device.clone(), *address);
        if !wanted.neighbours.contains_key(&entry) && ours(device) {
            ops.push(Op::new(place, EntryOp::DeleteNeighbour(device.clone(), *address)));
        }
    }
    for key in there.fdb.keys().filter(|key| !wanted.fdb.contains_key(key)) {
        // A bridge has one entry for a MAC address: writing the new one has moved it.
        let moved = key.table == FdbTable::Bridge && wanted.in_bridges(key.mac).next().is_some();
        if !moved && ours(&key.device) {
            ops.push(Op::new(place, EntryOp::DeleteFdb(key.clone())));
        }
    }
    remove_rules(place, wanted, there, ops);
    for route in there.routes.difference(&wanted.routes) {
        // One to the same destination in the same table has been replaced.
        let replaced = wanted.routes_to(route.table, route.destination).next().is_some();
        if !replaced && ours(&route.device) {
            ops.push(Op::new(place, RouteOp::DeleteRoute(route.clone())));
        }
    }
    for (link, cidr) in there.addresses.difference(&wanted.addresses) {
        if ours(link) {
            ops.push(Op::new(place, RouteOp::DeleteAddress(link.clone(), *cidr)));
        }
    }
}

/// Rules carry no mark, so they are removed only in namespaces that belong to Skein entirely.
fn remove_rules(place: Place, wanted: &Space, there: &Space, ops: &mut Vec<Op>) {
    match place {
        Place::Fabric(_) => {
            for rule in there.rules.difference(&wanted.rules) {
                ops.push(Op::new(place, RouteOp::DeleteRule(rule.clone())));
            }
        }
        Place::Host | Place::Sandbox(_) => {}
    }
}
