//! Published ports, and host programs that listen on the same port. The first one keeps the port: a
//! program that already listens when a service is published keeps its calls, and a program that
//! starts to listen on a published port gets no calls from the network.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use cluster::object::PublishedPort;
use cluster::spec::Protocol;

/// First port that the kernel chooses for callers (net.ipv4.ip_local_port_range).
const CHOSEN_PORTS: u16 = 32_768;

/// A port that services publish and programs listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// TCP or UDP.
    pub protocol: Protocol,
    pub number: u16,
    /// The one host address that accepts calls; none if all addresses do.
    pub address: Option<IpAddr>,
}

impl From<&PublishedPort> for Port {
    fn from(port: &PublishedPort) -> Self {
        Self { protocol: port.protocol, number: port.published, address: port.address }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}", self.protocol.name(), self.number)?;
        self.address.map_or(Ok(()), |address| write!(f, " at {address}"))
    }
}

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address that it is bound to; unspecified if it accepts calls to all addresses.
    pub address: IpAddr,
    /// The port that it is bound to.
    pub port: u16,
    /// For an IPv6 socket: it accepts no IPv4 calls.
    pub v6_only: bool,
    /// The inode, from which its process is found; 0 for a socket of the kernel.
    pub inode: u32,
}

impl Listener {
    /// Whether an IPv4 call can reach it: published ports are IPv4 only.
    #[must_use]
    pub fn takes_ipv4(&self) -> bool {
        match self.address {
            IpAddr::V4(address) => !address.is_multicast(),
            IpAddr::V6(address) if address.is_unspecified() => !self.v6_only,
            IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
        }
    }

    /// Whether it accepts calls to the port, at its own address or at any.
    fn takes(&self, port: &Port) -> bool {
        let meets = self.address.is_unspecified()
            || port.address.is_none_or(|address| address == self.address.to_canonical());
        (self.protocol, self.port) == (port.protocol, port.number) && meets
    }

    /// Whether it probably belongs to a server, and not to a caller whose port the kernel chose.
    #[must_use]
    pub fn is_a_servers(&self) -> bool {
        self.protocol == Protocol::Tcp || self.port < CHOSEN_PORTS
    }
}

/// The owner of each published port of a node; updated with each look at the listeners.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ports {
    /// Published here.
    held: BTreeSet<Port>,
    /// Published here before the daemon started: in its kernel, and perhaps of tasks that it does
    /// not know yet.
    before: BTreeSet<Port>,
    /// Held by programs that were first: not published here.
    withheld: BTreeMap<Port, Listener>,
    /// Published here, and programs started to listen on them afterwards.
    hidden: BTreeMap<Port, Listener>,
}

impl Ports {
    /// Records the ports that the kernel has when the daemon starts; does nothing once its tasks
    /// are known.
    pub fn found(&mut self, in_kernel: BTreeSet<Port>) {
        self.before = in_kernel;
    }

    /// Whether listeners have to be looked at before these ports are published.
    #[must_use]
    pub fn needs_look(&self, wanted: &BTreeSet<Port>) -> bool {
        !wanted.is_subset(&self.held)
    }

    /// Records that exactly these ports are to be published, and that all of them are held.
    pub fn keep(&mut self, wanted: &BTreeSet<Port>) {
        self.held.retain(|port| wanted.contains(port));
        self.withheld.clear();
        self.hidden.retain(|port, _| wanted.contains(port));
    }

    /// Decides the owner of each port.
    pub fn settle(&mut self, wanted: &BTreeSet<Port>, listeners: &[Listener]) {
        let mut listened = BTreeMap::new();
        for listener in listeners.iter().filter(|l| l.takes_ipv4() && l.is_a_servers()) {
            for port in wanted.iter().filter(|port| listener.takes(port)) {
                listened.entry(*port).or_insert(*listener);
            }
        }
        let is_held = |port: &Port| self.held.contains(port) || self.before.contains(port);
        (self.hidden, self.withheld) = listened.into_iter().partition(|(port, _)| is_held(port));
        let held = wanted.iter().filter(|port| !self.withheld.contains_key(port));
        self.held = held.copied().collect();
    }

    /// Ports that belong to programs that were first.
    #[must_use]
    pub fn withheld(&self) -> &BTreeMap<Port, Listener> {
        &self.withheld
    }

    /// Published ports on which programs started to listen afterwards.
    #[must_use]
    pub fn hidden(&self) -> &BTreeMap<Port, Listener> {
        &self.hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Port = Port { protocol: Protocol::Tcp, number: 22, address: None };
    const UDP: Port = Port { protocol: Protocol::Udp, ..TCP };

    fn listener(address: &str, port: u16, v6_only: bool) -> Listener {
        let address = address.parse().unwrap();
        Listener { protocol: Protocol::Tcp, address, port, v6_only, inode: 1 }
    }

    /// Who has TCP port 22 after looks at these listeners, one after the other.
    fn after(looks: &[&[Listener]], in_kernel: &[Port]) -> (bool, bool) {
        let mut ports = Ports::default();
        ports.found(in_kernel.iter().copied().collect());
        for listeners in looks {
            ports.settle(&[TCP, UDP].into(), listeners);
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

    #[test]
    fn a_port_at_an_address_conflicts_with_what_takes_calls_to_it() {
        let bound = Port { address: Some([192, 0, 2, 1].into()), ..TCP };
        let table: &[(&str, bool)] = &[
            ("0.0.0.0", true),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("127.0.0.1", false),
            ("::", true),
            ("::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.2", false),
        ];
        for (address, conflicts) in table {
            let mut ports = Ports::default();
            ports.settle(&[bound].into(), &[listener(address, 22, false)]);
            assert_eq!(ports.withheld().contains_key(&bound), *conflicts, "{address}");
        }
    }

    /// Goal: who was first has the port, also over a restart of the daemon, and a program that
    /// ends leaves it.
    #[test]
    fn who_was_first_has_the_port() {
        let program: &[Listener] = &[listener("0.0.0.0", 22, false)];
        assert_eq!(after(&[program, program], &[]), (true, false), "the program");
        assert_eq!(after(&[program, &[]], &[]), (false, false), "no other program");
        assert_eq!(after(&[program, &[], program], &[]), (false, true), "the service since");
        assert_eq!(after(&[&[], program], &[]), (false, true), "the service");
        assert_eq!(after(&[program, program], &[TCP]), (false, true), "the service, in the kernel");
    }

    /// Goal: a task whose port is in the kernel keeps it over a restart of the daemon, which knows
    /// its tasks only after a while.
    #[test]
    fn a_port_of_a_task_that_is_not_known_yet_was_there_first() {
        let program = [listener("127.0.0.1", 22, false)];
        let after = |known: bool| {
            let mut ports = Ports::default();
            ports.found([TCP].into());
            ports.settle(&[UDP].into(), &program);
            if known {
                ports.found(BTreeSet::new());
            }
            ports.settle(&[TCP, UDP].into(), &program);
            ports.withheld().contains_key(&TCP)
        };
        assert!(!after(false));
        assert!(after(true), "a task that is made later");
    }

    /// Goal: a caller's socket keeps nothing from being published. Method: sockets of UDP that only
    /// by chance have the port, or take no call to it.
    #[test]
    fn a_callers_datagram_socket_has_no_port() {
        let udp = |address: &str, port| {
            let address = address.parse().unwrap();
            Listener { protocol: Protocol::Udp, address, port, v6_only: false, inode: 1 }
        };
        for (listener, has) in [
            (udp("0.0.0.0", 514), true),
            (udp("0.0.0.0", CHOSEN_PORTS), false),
            (udp("224.0.0.251", 514), false),
        ] {
            let mut ports = Ports::default();
            ports.settle(&[Port { number: listener.port, ..UDP }].into(), &[listener]);
            assert_eq!(!ports.withheld().is_empty(), has, "{listener:?}");
        }
    }

    #[test]
    fn only_ports_that_are_not_held_need_a_look() {
        let (one, both) = (BTreeSet::from([TCP]), BTreeSet::from([TCP, UDP]));
        let mut ports = Ports::default();
        assert!(!ports.needs_look(&BTreeSet::new()) && ports.needs_look(&one));
        ports.settle(&one, &[]);
        assert!(!ports.needs_look(&one) && ports.needs_look(&both));
        ports.keep(&BTreeSet::new());
        assert!(ports.needs_look(&one), "it was given up");
        ports.settle(&one, &[listener("::", 22, false)]);
        assert!(ports.needs_look(&one), "it is withheld");
    }
}
