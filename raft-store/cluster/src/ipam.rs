//! What is free: addresses of a network, subnets of the pools, VNIs. Pure look-ups; the caller
//! takes what it finds by putting an object that holds it.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::net::{Subnet, Vni};
use crate::object::Network;
use crate::state::State;

/// The longest prefix of a network: two addresses for tasks beside the gateway need a /29, a /30
/// leaves one, and anything longer none.
pub(crate) const PREFIX_LEN_MAX: u8 = 30;

/// Address number 0 is the network's own; the search begins behind the gateway's usual place.
pub(crate) const FIRST_ADDRESS: u64 = 2;

/// A free address of a network and the number after which the next search begins. Addresses are
/// given out in turn, so that one that was freed rests as long as possible: caches and open flows
/// elsewhere may still mean its former holder (swarmkit's serial allocation).
pub(crate) fn next_address(state: &State, network: &Network) -> Option<(IpAddr, u64)> {
    let (first, last) = numbers(network)?;
    let start =
        if (first..=last).contains(&network.next_address) { network.next_address } else { first };
    // Each step meets a holder or ends, so there are at most as many as there are holders.
    (start..=last).chain(first..start).find_map(|number| {
        let address = network.subnet.address(number)?;
        state.holder(network.id, address).is_none().then_some((address, number + 1))
    })
}

/// First and last number that may be given out: neither the network address nor broadcast, and
/// within the user's range if one is set.
fn numbers(network: &Network) -> Option<(u64, u64)> {
    let IpNet::V4(net) = network.subnet.net() else { return None };
    let hosts = 1_u64.checked_shl(u32::from(32 - net.prefix_len()))?;
    let (mut first, mut last) = (1, hosts.checked_sub(2)?);
    let range = network.spec.ipam.config.first().map_or("", |pool| pool.ip_range.as_str());
    if let Ok(range) = range.parse::<Ipv4Net>() {
        let base = u32::from(net.network());
        let number = |address: u32| u64::from(address.saturating_sub(base));
        first = first.max(number(u32::from(range.network())));
        last = last.min(number(u32::from(range.broadcast())));
    }
    (first <= last).then_some((first, last))
}

/// The lowest subnet of the pools that overlaps neither a network nor a node's route.
pub(crate) fn next_subnet(state: &State, pools: &[Subnet], size: u8) -> Option<Subnet> {
    let networks = state.networks.values().map(|network| network.subnet);
    let routes = state.nodes.values().flat_map(|node| node.description.routes.iter().copied());
    let used: Vec<Subnet> = networks.chain(routes.filter(|route| route.prefix_len() > 0)).collect();
    pools.iter().find_map(|pool| free_within(*pool, size, &used))
}

fn free_within(pool: Subnet, size: u8, used: &[Subnet]) -> Option<Subnet> {
    let IpNet::V4(pool) = pool.net() else { return None };
    let mut at = pool.network();
    // Each step passes one of the used subnets, so there are at most as many as those.
    loop {
        let candidate = Subnet::holding(IpAddr::V4(at), size).ok()?;
        if !pool.contains(&at) || size < pool.prefix_len() {
            return None;
        }
        let Some(obstacle) = used.iter().find(|other| other.overlaps(&candidate)) else {
            return Some(candidate);
        };
        let (IpAddr::V4(end), IpAddr::V4(own_end)) = (obstacle.last(), candidate.last()) else {
            return None;
        };
        at = u32::from(end.max(own_end)).checked_add(1)?.into();
    }
}

/// A VNI above all that are in use, so that one that was just freed rests while nodes take its
/// device down; at the end of the range the lowest free one.
pub(crate) fn next_vni(state: &State) -> Option<Vni> {
    let highest = state.networks.values().map(|network| network.vni.get()).max();
    let next = highest.map_or(Vni::FIRST.get(), |vni| vni.saturating_add(1).max(Vni::FIRST.get()));
    if let Ok(vni) = Vni::try_from(next) {
        return Some(vni);
    }
    let used: std::collections::BTreeSet<Vni> =
        state.networks.values().map(|network| network.vni).collect();
    let mut all = Vni::FIRST.get()..=Vni::LAST.get();
    all.find_map(|number| Vni::try_from(number).ok().filter(|vni| !used.contains(vni)))
}
