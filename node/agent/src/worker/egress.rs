//! Addresses of `skein_gwbridge`, given out by the node itself.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cluster::net::Subnet;

/// Free addresses of one prefix. Reuse is late: the search begins after the last one given.
#[derive(Debug)]
pub(super) struct Pool {
    subnet: Subnet,
    used: BTreeSet<IpAddr>,
    next: u64,
}

/// The first address is the bridge's own.
const FIRST: u64 = 2;

impl Pool {
    /// All addresses after the bridge's.
    #[must_use]
    pub(super) fn new(subnet: Subnet) -> Self {
        Self { subnet, used: BTreeSet::new(), next: FIRST }
    }

    /// The prefix.
    #[must_use]
    pub(super) fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Marks an address as used.
    pub(super) fn reserve(&mut self, address: IpAddr) {
        self.used.insert(address);
    }

    /// Gives an address back.
    pub(super) fn free(&mut self, address: IpAddr) {
        self.used.remove(&address);
    }

    /// The next free one.
    pub(super) fn allocate(&mut self) -> Option<IpAddr> {
        let found = self.search(self.next).or_else(|| self.search(FIRST))?;
        self.next = found.0 + 1;
        self.used.insert(found.1);
        Some(found.1)
    }

    fn search(&self, from: u64) -> Option<(u64, IpAddr)> {
        let last = self.subnet.last();
        (from..)
            .map_while(|n| self.subnet.address(n).map(|address| (n, address)))
            .find(|(_, address)| *address != last && !self.used.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_once_and_reused_late() {
        let mut pool = Pool::new("10.0.0.0/29".parse().unwrap());
        let given: Vec<String> =
            std::iter::from_fn(|| pool.allocate()).map(|a| a.to_string()).collect();
        assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        pool.free("10.0.0.3".parse().unwrap());
        assert_eq!(pool.allocate(), Some("10.0.0.3".parse().unwrap()));
        assert_eq!(pool.allocate(), None);
    }
}
