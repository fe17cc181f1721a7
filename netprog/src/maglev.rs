//! The slot table of a virtual service: Maglev hashing (Eisenbud and others, NSDI 2016, section
//! 3.4). Every node computes the same table from the same backends, slots are shared out evenly,
//! and a change of backends moves few of the slots of those that stay.

use cluster::net::MacAddr;

/// Slots of a virtual service: a prime, as the permutations need.
pub const SLOTS: usize = 251;

/// The backend of each slot; empty without backends. The order of `backends` does not matter.
#[must_use]
pub fn table(backends: &[MacAddr]) -> Vec<MacAddr> {
    let mut backends = backends.to_vec();
    backends.sort_unstable();
    backends.dedup();
    if backends.is_empty() {
        return Vec::new();
    }
    let mut walks: Vec<Walk> = backends.iter().map(|mac| Walk::new(*mac)).collect();
    let mut slots: Vec<Option<MacAddr>> = vec![None; SLOTS];
    let mut free = SLOTS;
    while free > 0 {
        for walk in &mut walks {
            if free == 0 {
                break;
            }
            // A permutation of all slots meets a free one while there is one.
            while slots[walk.at].is_some() {
                walk.step();
            }
            slots[walk.at] = Some(walk.mac);
            free -= 1;
        }
    }
    slots.into_iter().flatten().collect()
}

/// A backend's own order of all slots.
struct Walk {
    mac: MacAddr,
    at: usize,
    skip: usize,
}

impl Walk {
    fn new(mac: MacAddr) -> Self {
        let bytes = mac.0.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        let first = mix(bytes);
        let second = mix(first);
        let slots = SLOTS as u64;
        Self {
            mac,
            at: (first % slots) as usize,
            // Never zero, so that the prime number of slots makes it a permutation.
            skip: (second % (slots - 1)) as usize + 1,
        }
    }

    fn step(&mut self) {
        self.at = (self.at + self.skip) % SLOTS;
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): neighbouring MAC addresses get unrelated walks.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    fn backends(tails: &std::collections::BTreeSet<u32>) -> Vec<MacAddr> {
        let mac = |tail: &u32| MacAddr::for_address(std::net::IpAddr::from(tail.to_be_bytes()));
        tails.iter().map(mac).collect()
    }

    proptest! {
        #[test]
        fn slots_are_shared_out_evenly(tails in btree_set(any::<u32>(), 1..=40)) {
            let macs = backends(&tails);
            let mut counts: BTreeMap<MacAddr, usize> = BTreeMap::new();
            for mac in table(&macs) {
                *counts.entry(mac).or_default() += 1;
            }
            prop_assert_eq!(counts.len(), macs.len());
            let (least, most) = (counts.values().min(), counts.values().max());
            prop_assert!(most.unwrap() - least.unwrap() <= 1);
        }

        #[test]
        fn order_and_repetition_do_not_matter(tails in btree_set(any::<u32>(), 0..=12)) {
            let macs = backends(&tails);
            let turned: Vec<MacAddr> = macs.iter().rev().chain(&macs).copied().collect();
            prop_assert_eq!(table(&macs), table(&turned));
        }
    }

    /// Goal: losing a backend moves few flows of others. Maglev does not promise none (section 5.3
    /// of the paper), and a single set of backends may be an unlucky one. Method: many sets, the
    /// same in every run; take one backend away, count slots that changed though theirs stayed.
    #[test]
    fn losing_a_backend_moves_few_other_slots() {
        let (mut worst, mut all, mut sets) = (0, 0, 0);
        for size in 3..=20_u64 {
            for set in 0..100_u64 {
                let tail = |n: u64| mix(size << 32 | set << 16 | n) as u32;
                let macs = backends(&(0..size).map(tail).collect());
                let (before, after) = (table(&macs), table(&macs[1..]));
                let pairs = before.iter().zip(&after);
                let moved = pairs.filter(|(old, new)| old != new && **old != macs[0]).count();
                (worst, all, sets) = (moved.max(worst), all + moved, sets + 1);
            }
        }
        assert!(all / sets <= SLOTS * 8 / 100, "{} of {SLOTS} slots moved", all / sets);
        assert!(worst <= SLOTS / 4, "{worst} of {SLOTS} slots moved, of one set");
    }

    #[test]
    fn the_table_is_the_same_in_every_version() {
        // Nodes of different versions must agree, or one flow by two nodes meets two backends.
        let macs = backends(&[0x0a00_0005, 0x0a00_0006, 0x0a00_0007].into());
        let tails: Vec<u8> = table(&macs).iter().take(24).map(|mac| mac.0[5]).collect();
        expect_test::expect![
            "[6, 5, 7, 5, 6, 7, 6, 5, 5, 5, 6, 6, 7, 5, 6, 5, 6, 6, 7, 6, 5, 7, 6, 7]"
        ]
        .assert_eq(&format!("{tails:?}"));
        assert!(table(&[]).is_empty());
    }
}
