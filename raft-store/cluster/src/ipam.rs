//! What is free: addresses of a network, subnets of the pools, VNIs. Pure look-ups; the caller
//! takes what it finds by putting an object that holds it.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::net::{Subnet, Subnets, Vni};
use crate::object::Network;
use crate::rejection::Code;
use crate::spec::IpamConfig;
use crate::state::State;

/// The longest prefix of a network: two addresses for tasks besides the gateway need a /29, a /30
/// leaves one, and anything longer none.
pub(crate) const PREFIX_LEN_MAX: u8 = 30;

/// Address number 0 is the network's own; the search begins behind the gateway's usual place.
pub(crate) const FIRST_ADDRESS: u64 = 2;

/// A free address of a network and the number after which the next search begins, if the network
/// has an IPv4 subnet and no other. Addresses are given out in turn, so that one that was freed
/// rests as long as possible: caches and open flows elsewhere may still mean its former holder
/// (swarmkit's serial allocation).
pub(crate) fn next_address(state: &State, network: &Network) -> Option<(IpAddr, u64)> {
    let Subnets::V4(net) = network.subnets else { return None };
    let subnet = Subnet::holding(IpAddr::V4(net.addr()), net.prefix_len()).ok()?;
    let (first, last) = numbers(net, &network.spec.ipam)?;
    let start =
        if (first..=last).contains(&network.next_address) { network.next_address } else { first };
    // Each step meets a holder or ends, so there are at most as many as there are holders.
    (start..=last).chain(first..start).find_map(|number| {
        let address = subnet.address(number)?;
        state.holder(network.id, address).is_none().then_some((address, number + 1))
    })
}

/// Why [`next_address`] finds none, and what the user can do.
pub(crate) struct NoAddress {
    pub(crate) code: Code,
    pub(crate) why: String,
    pub(crate) remedy: &'static str,
}

pub(crate) fn no_address(network: &Network) -> NoAddress {
    let (name, subnets) = (&network.spec.name, &network.subnets);
    let families = match subnets {
        Subnets::V4(_) => {
            return NoAddress {
                code: Code::Exhausted,
                why: format!("no available IPv4 addresses on network {name} ({subnets})"),
                remedy: "remove tasks or services from it, or use a larger subnet",
            };
        }
        Subnets::V6(_) => "IPv6",
        Subnets::Both(..) => "both IPv4 and IPv6",
    };
    NoAddress {
        code: Code::Unimplemented,
        why: format!(
            "network {name} ({subnets}) asks for addresses of {families}, which is not supported \
             yet"
        ),
        remedy: "use a network with an IPv4 subnet only",
    }
}

/// First and last number that may be given out: neither the network address nor broadcast, and
/// within the user's range if one is set.
fn numbers(net: Ipv4Net, ipam: &IpamConfig) -> Option<(u64, u64)> {
    let hosts = 1_u64.checked_shl(u32::from(32 - net.prefix_len()))?;
    let (mut first, mut last) = (1, hosts.checked_sub(2)?);
    let ranges = ipam.config.iter().map(|pool| pool.ip_range.parse::<Ipv4Net>());
    if let Some(range) = ranges.flatten().next() {
        let base = u32::from(net.network());
        let number = |address: u32| u64::from(address.saturating_sub(base));
        first = first.max(number(u32::from(range.network())));
        last = last.min(number(u32::from(range.broadcast())));
    }
    (first <= last).then_some((first, last))
}

/// The lowest subnet of the pools that overlaps neither a network nor a node's route.
pub(crate) fn next_subnet(state: &State, pools: &[Subnet], size: u8) -> Option<Subnet> {
    let index = &state.index;
    let used_until = |candidate: Subnet| {
        let (networks, routes) = (&index.subnets, &index.routes);
        networks.covered_until(candidate).max(routes.covered_until(candidate))
    };
    pools.iter().find_map(|pool| free_within(*pool, size, used_until))
}

/// `used_until` tells the last address of what is used around some address of a prefix.
fn free_within(
    pool: Subnet,
    size: u8,
    used_until: impl Fn(Subnet) -> Option<IpAddr>,
) -> Option<Subnet> {
    let IpNet::V4(pool) = pool.net() else { return None };
    let mut at = pool.network();
    // Each step passes a gap that is too small, or the end of what is used.
    loop {
        let candidate = Subnet::holding(IpAddr::V4(at), size).ok()?;
        if !pool.contains(&at) || size < pool.prefix_len() {
            return None;
        }
        let Some(end) = used_until(candidate) else { return Some(candidate) };
        let (IpAddr::V4(end), IpAddr::V4(own_end)) = (end, candidate.last()) else {
            return None;
        };
        at = u32::from(end.max(own_end)).checked_add(1)?.into();
    }
}

/// A VNI above all that are in use, so that one that was just freed rests while nodes take its
/// device down; at the end of the range the lowest free one.
pub(crate) fn next_vni(state: &State) -> Option<Vni> {
    let highest = state.index.vnis.last_key().map(|vni| vni.get());
    let next = highest.map_or(Vni::FIRST.get(), |vni| vni.saturating_add(1).max(Vni::FIRST.get()));
    if let Ok(vni) = Vni::try_from(next) {
        return Some(vni);
    }
    let free = |vni: &Vni| state.index.vnis.of(*vni).next().is_none();
    let mut all = Vni::FIRST.get()..=Vni::LAST.get();
    all.find_map(|number| Vni::try_from(number).ok().filter(free))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::Arc;

    use ipnet::Ipv6Net;
    use proptest::prelude::*;

    use super::*;
    use crate::fixture;
    use crate::object::Attachment;
    use crate::transaction::Object;

    /// What `Prefixes::covered_until` tells, by a look at all.
    fn last_of(used: &[Subnet], candidate: Subnet) -> Option<IpAddr> {
        used.iter().filter(|other| other.overlaps(&candidate)).map(Subnet::last).max()
    }

    proptest! {
        /// Goal: every address of a subnet but three is given out, each once.
        /// Method: take addresses until there are none, from any starting place.
        #[test]
        fn all_addresses_once(length in 24..31_u8, start: u64, gateway in 1..3_u64) {
            let mut network = fixture::network(3, "web", &format!("10.0.1.0/{length}"));
            let subnet: Subnet = format!("10.0.1.0/{length}").parse().unwrap();
            let gateway = subnet.address(gateway).unwrap();
            network.subnets = Subnets::one(subnet, gateway).unwrap();
            network.next_address = start;
            let mut state = State::default();
            state.put(Object::Network(Arc::new(network.clone()))).unwrap();
            let mut given = BTreeSet::new();
            while let Some((address, behind)) = next_address(&state, &network) {
                prop_assert!(given.insert(address));
                prop_assert!(subnet.contains(address) && address != gateway);
                network.next_address = behind;
                let plain = fixture::attachment(3, "10.0.1.1");
                let held = Attachment { addresses: address.into(), ..plain };
                let id = 100 + given.len() as u128;
                state.put(Object::Task(Arc::new(fixture::task(id, 5, vec![held])))).unwrap();
            }
            prop_assert_eq!(given.len(), (1 << (32 - length)) - 3);
        }

        /// Goal: a network whose addresses are not given out yet gives none, and says why by name.
        /// Method: networks with a subnet of IPv6, or of both families.
        #[test]
        fn other_families_are_refused_by_name(v4: Option<Ipv4Addr>, v6: Ipv6Addr, start: u64) {
            let mut network = fixture::network(3, "web", "10.0.1.0/24");
            let v4 = v4.map(|address| Ipv4Net::new(address, 24).unwrap());
            let v6 = Ipv6Net::new(v6, 64).unwrap();
            network.subnets = Subnets::new(v4, Some(v6)).unwrap();
            network.next_address = start;
            let mut state = State::default();
            state.put(Object::Network(Arc::new(network.clone()))).unwrap();
            prop_assert_eq!(next_address(&state, &network), None);
            let NoAddress { code, why, .. } = no_address(&network);
            prop_assert_eq!(code, Code::Unimplemented);
            let families = if v4.is_some() { "both IPv4 and IPv6" } else { "IPv6" };
            let expected = format!(" asks for addresses of {families}, which is not supported yet");
            prop_assert_eq!(why, format!("network web ({}){expected}", network.subnets));
        }

        /// Goal: a chosen subnet lies in its pool and overlaps nothing; none is missed.
        #[test]
        fn free_subnets_are_found(used in proptest::collection::vec((0..16_u8, 24..29_u8), 0..12)) {
            let pool: Subnet = "10.0.0.0/20".parse().unwrap();
            let used: Vec<Subnet> = used
                .iter()
                .map(|(third, length)| {
                    Subnet::holding(IpAddr::from([10, 0, *third, 0]), *length).unwrap()
                })
                .collect();
            let thirds: BTreeSet<IpAddr> =
                used.iter().map(|subnet| Subnet::holding(subnet.net().network(), 24).unwrap())
                    .map(|subnet| subnet.net().network())
                    .collect();
            let found = free_within(pool, 24, |candidate| last_of(&used, candidate));
            prop_assert_eq!(found.is_some(), thirds.len() < 16);
            if let Some(found) = found {
                prop_assert!(pool.contains(found.net().network()));
                prop_assert!(!used.iter().any(|other| other.overlaps(&found)));
            }
        }
    }

    #[test]
    fn vnis_wrap_at_the_end_of_their_range() {
        let mut state = State::default();
        assert_eq!(next_vni(&state), Some(Vni::FIRST));
        for (id, vni) in [(1, Vni::LAST.get()), (2, Vni::FIRST.get())] {
            let mut network = fixture::network(id, "n", "10.0.1.0/24");
            network.vni = vni.try_into().unwrap();
            state.put(Object::Network(Arc::new(network))).unwrap();
        }
        assert_eq!(next_vni(&state).map(Vni::get), Some(4097));
    }

    #[test]
    fn the_last_subnet_of_all_addresses_is_the_end() {
        let pool: Subnet = "255.255.254.0/23".parse().unwrap();
        let both: Vec<Subnet> =
            ["255.255.254.0/24", "255.255.255.0/24"].map(|s| s.parse().unwrap()).into();
        let free = |used: &[Subnet]| free_within(pool, 24, |candidate| last_of(used, candidate));
        assert_eq!(free(&both[..1]), Some(both[1]));
        assert_eq!(free(&both), None);
    }
}
