//! Published ports and programs of the host that listen on the same numbers. Who was first has the
//! port: a program that listens when a service is to be published on its number keeps its calls,
//! and one that begins to listen on a port that is published here gets none from the network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cluster::spec::Protocol;

/// A number that services publish and programs listen on.
pub type Port = (Protocol, u16);

/// A socket of a program that waits for calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address that it is bound to; unspecified where it takes calls to all.
    pub address: IpAddr,
    /// The port that it is bound to.
    pub port: u16,
    /// Of a socket with an IPv6 address: it takes no calls by IPv4.
    pub v6_only: bool,
    /// By which its process is found; 0 where it is the kernel's own.
    pub inode: u32,
}

impl Listener {
    /// Whether a call by IPv4 can reach it: published ports are of IPv4.
    #[must_use]
    pub fn takes_ipv4(&self) -> bool {
        match self.address {
            IpAddr::V4(_) => true,
            IpAddr::V6(address) if address.is_unspecified() => !self.v6_only,
            IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
        }
    }
}

/// What becomes of the published ports of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// Programs had these first: they are not published here.
    pub taken: BTreeMap<Port, Listener>,
    /// These are published here, and programs have begun to listen on them since.
    pub hidden: BTreeMap<Port, Listener>,
}

impl Settled {
    /// Who has which port. `held` are those that are published here already.
    #[must_use]
    pub fn of(wanted: &BTreeSet<Port>, held: &BTreeSet<Port>, listeners: &[Listener]) -> Self {
        let mut settled = Self::default();
        for listener in listeners.iter().filter(|listener| listener.takes_ipv4()) {
            let port = (listener.protocol, listener.port);
            if wanted.contains(&port) {
                let whose =
                    if held.contains(&port) { &mut settled.hidden } else { &mut settled.taken };
                whose.entry(port).or_insert(*listener);
            }
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str, port: u16, v6_only: bool) -> Listener {
        let address = address.parse().unwrap();
        Listener { protocol: Protocol::Tcp, address, port, v6_only, inode: 1 }
    }

    /// Goal: a port is left to a program if and only if that was there first and takes IPv4.
    #[test]
    fn who_was_first_has_the_port() {
        let (tcp, udp) = ((Protocol::Tcp, 22), (Protocol::Udp, 22));
        let table: &[(&str, u16, bool, bool)] = &[
            ("0.0.0.0", 22, false, true),
            ("192.0.2.1", 22, false, true),
            ("127.0.0.1", 22, false, true),
            ("::", 22, false, true),
            ("::", 22, true, false),
            ("::ffff:192.0.2.1", 22, false, true),
            ("2001:db8::1", 22, false, false),
            ("0.0.0.0", 23, false, false),
        ];
        for (address, port, v6_only, takes) in table {
            let listeners = [listener(address, *port, *v6_only)];
            let settled = Settled::of(&[tcp, udp].into(), &[].into(), &listeners);
            let taken: Vec<Port> = settled.taken.into_keys().collect();
            assert_eq!((taken == [tcp], settled.hidden.is_empty()), (*takes, true), "{address}");
            let settled = Settled::of(&[tcp, udp].into(), &[tcp].into(), &listeners);
            assert_eq!((settled.taken.len(), settled.hidden.len()), (0, usize::from(*takes)));
        }
    }
}
