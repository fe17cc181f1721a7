//! Who has which port of the nodes, and which numbers of Docker's range are free.

use std::net::IpAddr;
use std::ops::Bound;
use std::sync::LazyLock;

use imbl::OrdSet;

use super::pairs::Pairs;
use crate::id::{Id as _, NodeId, ServiceId};
use crate::object::{Node, PublishedPort, Service};
use crate::spec::{Protocol, PublishMode};

/// Docker's range for ports that the user leaves open.
pub(crate) const AUTO_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// A port of the nodes.
pub(crate) type Port = (Protocol, u16);

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ports {
    /// Of live services.
    published: OrdSet<(Port, PublishMode, Option<IpAddr>, ServiceId)>,
    /// What nodes listen on for each other: gossip, and the managers' Raft.
    of_nodes: Pairs<Port, NodeId>,
    /// Those of [`AUTO_PORTS`] that nobody has.
    free: OrdSet<Port>,
}

static ALL_FREE: LazyLock<OrdSet<Port>> = LazyLock::new(|| {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let numbers = |protocol| AUTO_PORTS.map(move |number| (protocol, number));
    protocols.into_iter().flat_map(numbers).collect()
});

impl Default for Ports {
    fn default() -> Self {
        let free = ALL_FREE.clone();
        Self { published: OrdSet::new(), of_nodes: Pairs::default(), free }
    }
}

impl Ports {
    /// The live service with the lowest id, but for one, that has an overlapping port in that mode.
    pub(crate) fn holder(
        &self,
        port: Port,
        mode: PublishMode,
        address: Option<IpAddr>,
        but: ServiceId,
    ) -> Option<ServiceId> {
        let overlapping = match address {
            Some(_) => vec![None, address],
            None => self.addresses(port, mode),
        };
        let others = overlapping.into_iter().filter_map(|address| {
            let first = (port, mode, address, ServiceId::MIN);
            let held = self.published.range(first..=(port, mode, address, ServiceId::MAX));
            held.map(|(.., id)| *id).find(|id| *id != but)
        });
        others.min()
    }

    /// The addresses at which a port is published, each of them once.
    fn addresses(&self, port: Port, mode: PublishMode) -> Vec<Option<IpAddr>> {
        let mut found = Vec::new();
        let mut from = Bound::Included((port, mode, None, ServiceId::MIN));
        while let Some((other, other_mode, address, _)) =
            self.published.range((from, Bound::Unbounded)).next()
            && (*other, *other_mode) == (port, mode)
        {
            found.push(*address);
            from = Bound::Excluded((port, mode, *address, ServiceId::MAX));
        }
        found
    }

    /// Whether a node listens on it for other nodes.
    pub(crate) fn is_of_nodes(&self, port: Port) -> bool {
        self.of_nodes.of(port).next().is_some()
    }

    /// Whether a node, or another service than this one, has it in any way.
    pub(crate) fn is_held_but_by(&self, service: ServiceId, port: Port) -> bool {
        self.is_of_nodes(port) || self.services_with(port).any(|id| id != service)
    }

    /// Those of [`AUTO_PORTS`] that nobody has.
    pub(crate) fn free(&self) -> &OrdSet<Port> {
        &self.free
    }

    /// Services with a port that every node has, each once for each of them.
    pub(crate) fn on_every_node(&self) -> impl Iterator<Item = ServiceId> {
        let ingress = self.published.iter().filter(|(_, mode, ..)| *mode == PublishMode::Ingress);
        ingress.map(|(.., id)| *id)
    }

    fn services_with(&self, port: Port) -> impl Iterator<Item = ServiceId> {
        let first = (port, PublishMode::Ingress, None, ServiceId::MIN);
        let held = self.published.range(first..).take_while(move |(other, ..)| *other == port);
        held.map(|(.., id)| *id)
    }

    pub(super) fn note_service(&mut self, service: &Service, held: bool) {
        for port in &service.ports {
            let PublishedPort { protocol, published, mode, address, .. } = port;
            let number = (*protocol, *published);
            let entry = (number, *mode, *address, service.id);
            if held {
                self.published.insert(entry);
            } else {
                self.published.remove(&entry);
            }
            self.note_free(number);
        }
    }

    pub(super) fn note_node(&mut self, node: &Node, held: bool) {
        let gossip = node.description.gossip.port();
        let raft = node.raft().map(|place| (Protocol::Tcp, place.address.port()));
        for port in [(Protocol::Tcp, gossip), (Protocol::Udp, gossip)].into_iter().chain(raft) {
            self.of_nodes.note(port, node.id, held);
            self.note_free(port);
        }
    }

    fn note_free(&mut self, port: Port) {
        if !AUTO_PORTS.contains(&port.1) {
            return;
        }
        if self.is_of_nodes(port) || self.services_with(port).next().is_some() {
            self.free.remove(&port);
        } else {
            self.free.insert(port);
        }
    }
}
