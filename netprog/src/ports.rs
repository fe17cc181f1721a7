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

/// Who has the published ports of a node, from one look at its listeners to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ports {
    /// Published here; none until the first look.
    held: Option<BTreeSet<Port>>,
    /// Programs had these first: they are not published here.
    withheld: BTreeMap<Port, Listener>,
    /// These are published here, and programs have begun to listen on them since.
    hidden: BTreeMap<Port, Listener>,
}

impl Ports {
    /// Whether listeners have to be looked at before these ports are published.
    #[must_use]
    pub fn needs_look(&self, wanted: &BTreeSet<Port>) -> bool {
        let is_held = |held: &BTreeSet<Port>| wanted.is_subset(held);
        !wanted.is_empty() && !self.held.as_ref().is_some_and(is_held)
    }

    /// Takes note that no other ports than these are to be published, all of them held.
    pub fn keep(&mut self, wanted: &BTreeSet<Port>) {
        self.held.get_or_insert_default().retain(|port| wanted.contains(port));
        self.withheld.clear();
        self.hidden.retain(|port, _| wanted.contains(port));
    }

    /// Decides who has which port. Whether a port is published here already is asked of the kernel
    /// at the first look, if it matters then.
    pub fn settle(
        &mut self,
        wanted: &BTreeSet<Port>,
        listeners: &[Listener],
        in_kernel: impl FnOnce() -> BTreeSet<Port>,
    ) {
        let mut listened = BTreeMap::new();
        for listener in listeners.iter().filter(|listener| listener.takes_ipv4()) {
            let port = (listener.protocol, listener.port);
            if wanted.contains(&port) {
                listened.entry(port).or_insert(*listener);
            }
        }
        let held = match self.held.take() {
            Some(held) => held,
            None if listened.is_empty() => BTreeSet::new(),
            None => in_kernel(),
        };
        (self.hidden, self.withheld) =
            listened.into_iter().partition(|(port, _)| held.contains(port));
        let held = wanted.iter().filter(|port| !self.withheld.contains_key(port));
        self.held = Some(held.copied().collect());
    }

    /// Ports that are left to the programs that had them first.
    #[must_use]
    pub fn withheld(&self) -> &BTreeMap<Port, Listener> {
        &self.withheld
    }

    /// Ports that are published here and that programs have begun to listen on since.
    #[must_use]
    pub fn hidden(&self) -> &BTreeMap<Port, Listener> {
        &self.hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Port = (Protocol::Tcp, 22);
    const UDP: Port = (Protocol::Udp, 22);

    fn listener(address: &str, port: u16, v6_only: bool) -> Listener {
        let address = address.parse().unwrap();
        Listener { protocol: Protocol::Tcp, address, port, v6_only, inode: 1 }
    }

    /// Who has TCP port 22 after looks at these listeners, one after the other.
    fn after(looks: &[&[Listener]], in_kernel: &[Port]) -> (bool, bool) {
        let mut ports = Ports::default();
        for listeners in looks {
            let in_kernel = || in_kernel.iter().copied().collect();
            ports.settle(&[TCP, UDP].into(), listeners, in_kernel);
        }
        (ports.withheld().contains_key(&TCP), ports.hidden().contains_key(&TCP))
    }

    #[test]
    fn a_port_conflicts_with_what_takes_its_calls() {
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
        for (address, port, v6_only, conflicts) in table {
            let listeners = [listener(address, *port, *v6_only)];
            assert_eq!(after(&[&listeners], &[]), (*conflicts, false), "{address}:{port}");
        }
    }

    /// Goal: who was first has the port, also over a restart of the daemon, and a program that
    /// ends leaves it.
    #[test]
    fn who_was_first_has_the_port() {
        let program: &[Listener] = &[listener("0.0.0.0", 22, false)];
        assert_eq!(after(&[program, program], &[]), (true, false), "the program");
        assert_eq!(after(&[program, &[]], &[]), (false, false), "nobody else any more");
        assert_eq!(after(&[program, &[], program], &[]), (false, true), "the service since");
        assert_eq!(after(&[&[], program], &[]), (false, true), "the service");
        assert_eq!(after(&[program, program], &[TCP]), (false, true), "the service, in the kernel");
    }

    #[test]
    fn only_ports_that_are_not_held_need_a_look() {
        let (one, both) = (BTreeSet::from([TCP]), BTreeSet::from([TCP, UDP]));
        let mut ports = Ports::default();
        assert!(!ports.needs_look(&BTreeSet::new()) && ports.needs_look(&one));
        ports.settle(&one, &[], BTreeSet::new);
        assert!(!ports.needs_look(&one) && ports.needs_look(&both));
        ports.keep(&BTreeSet::new());
        assert!(ports.needs_look(&one), "it was given up");
        ports.settle(&one, &[listener("::", 22, false)], BTreeSet::new);
        assert!(ports.needs_look(&one), "it is withheld");
    }
}
