//! A set of prefixes with their holders: which of them overlap a prefix, and where the lowest free
//! one is. Neither looks at all of them.

use std::net::IpAddr;

use imbl::{OrdMap, OrdSet};

use crate::id::Id;
use crate::net::Subnet;

/// First and last address of a prefix. No span of IPv4 addresses is next to one of IPv6.
type Span = (IpAddr, IpAddr);

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prefixes<I: Id> {
    held: OrdSet<(Span, I)>,
    /// What they cover, as the fewest spans: first address to last.
    covered: OrdMap<IpAddr, IpAddr>,
}

impl<I: Id> Default for Prefixes<I> {
    fn default() -> Self {
        Self { held: OrdSet::new(), covered: OrdMap::new() }
    }
}

impl<I: Id> Prefixes<I> {
    pub(crate) fn insert(&mut self, subnet: Subnet, id: I) {
        let span = span(subnet);
        self.held.insert((span, id));
        self.cover(span);
    }

    pub(crate) fn remove(&mut self, subnet: Subnet, id: I) {
        let span = span(subnet);
        if self.held.remove(&(span, id)).is_none() || self.containing(subnet).next().is_some() {
            return;
        }
        let within: Vec<Span> = self.within(span).map(|(span, _)| span).collect();
        self.uncover(span);
        for rest in within {
            self.cover(rest);
        }
    }

    /// Holders of prefixes that share an address with this one, each of them once a prefix.
    pub(crate) fn overlapping(&self, subnet: Subnet) -> impl Iterator<Item = I> {
        let larger = self.containing(subnet);
        let span = span(subnet);
        larger.chain(self.within(span)).map(|(_, id)| id)
    }

    /// The last address of what is covered around some address of a prefix.
    pub(crate) fn covered_until(&self, subnet: Subnet) -> Option<IpAddr> {
        let (first, last) = span(subnet);
        let (_, end) = self.covered.range(..=last).next_back()?;
        (*end >= first).then_some(*end)
    }

    /// Those that lie in a span or are it.
    fn within(&self, (first, last): Span) -> impl Iterator<Item = (Span, I)> {
        let from = self.held.range(((first, first), I::MIN)..).copied();
        from.take_while(move |((other, _), _)| *other <= last)
            .filter(move |((_, end), _)| *end <= last)
    }

    /// Those that are larger than a prefix and contain it: two prefixes are apart, or one contains
    /// the other.
    fn containing(&self, subnet: Subnet) -> impl Iterator<Item = (Span, I)> {
        let first = subnet.net().network();
        (0..subnet.prefix_len())
            .filter_map(move |length| Subnet::holding(first, length).ok())
            .flat_map(move |larger| {
                let span = span(larger);
                let all = self.held.range((span, I::MIN)..);
                all.copied().take_while(move |(other, _)| *other == span)
            })
    }

    /// Joins a span to what is covered.
    fn cover(&mut self, (mut first, mut last): Span) {
        while let Some((start, end)) = self.touching(first, last) {
            (first, last) = (first.min(start), last.max(end));
            self.covered.remove(&start);
        }
        self.covered.insert(first, last);
    }

    /// A span of what is covered that overlaps this one or is next to it.
    fn touching(&self, first: IpAddr, last: IpAddr) -> Option<Span> {
        let (start, end) = self.covered.range(..=after(last)).next_back()?;
        (after(*end) >= first).then_some((*start, *end))
    }

    /// Cuts a span, which one of those covered contains, out of it.
    fn uncover(&mut self, (first, last): Span) {
        let Some((start, end)) = self.touching(first, first) else { return };
        self.covered.remove(&start);
        if start < first {
            self.covered.insert(start, before(first));
        }
        if last < end {
            self.covered.insert(after(last), end);
        }
    }
}

fn span(subnet: Subnet) -> Span {
    (subnet.net().network(), subnet.last())
}

/// The next address of the family; of the last one itself.
fn after(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).saturating_add(1).into()),
        IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).saturating_add(1).into()),
    }
}

fn before(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).saturating_sub(1).into()),
        IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).saturating_sub(1).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::id::NodeId;

    fn prefix() -> impl Strategy<Value = Subnet> {
        let v4 = (0..64_u8, 20..29_u8).prop_map(|(at, length)| {
            Subnet::holding(IpAddr::from([10, 0, at >> 2, at << 6]), length).unwrap()
        });
        let v6 = (0..8_u16, 12..17_u8).prop_map(|(at, length)| {
            Subnet::holding(IpAddr::from([0xFD00 + at, 0, 0, 0, 0, 0, 0, 0]), length).unwrap()
        });
        let all = prop_oneof![Just("0.0.0.0/0"), Just("::/0"), Just("::/8"), Just("255.0.0.0/8")];
        let all = all.prop_map(|text| text.parse().unwrap());
        prop_oneof![4 => v4, 1 => v6, 1 => all]
    }

    proptest! {
        /// Goal: what overlaps and what is covered is what a look at every prefix finds.
        /// Method: prefixes of random holders come and go.
        #[test]
        fn equals_a_look_at_all(
            changes in proptest::collection::vec((prefix(), 0..3_u128, any::<bool>()), 0..24),
            asked in prefix(),
        ) {
            let mut prefixes = Prefixes::default();
            let mut all = BTreeSet::new();
            for (subnet, id, stays) in changes {
                let id = NodeId(id);
                if stays {
                    prefixes.insert(subnet, id);
                    all.insert((subnet, id));
                } else {
                    prefixes.remove(subnet, id);
                    all.remove(&(subnet, id));
                }
            }
            let mut found: Vec<_> = prefixes.overlapping(asked).collect();
            found.sort_unstable();
            let overlapping = all.iter().filter(|(subnet, _)| subnet.overlaps(&asked));
            let mut expected: Vec<_> = overlapping.map(|(_, id)| *id).collect();
            expected.sort_unstable();
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(prefixes.covered_until(asked).is_some(), !found.is_empty());
            let mut fresh = Prefixes::default();
            all.iter().for_each(|(subnet, id)| fresh.insert(*subnet, *id));
            prop_assert_eq!(&prefixes, &fresh, "it does not matter what was there before");
            for (start, end) in &prefixes.covered {
                let next = prefixes.touching(after(*end), after(*end));
                prop_assert!(start <= end && next == Some((*start, *end)));
            }
        }
    }
}
