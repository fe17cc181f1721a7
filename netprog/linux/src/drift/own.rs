//! The changes that our own job requests. Notifications that match them are ignored; all others
//! report a change by another program.
//!
//! A notification of an FDB entry does not name the socket that asked (`vxlan_fdb_notify`,
//! `fdb_notify`), so entries are matched by their content. Other notifications name that socket;
//! what the kernel changes as a consequence has the same socket or none.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cluster::net::MacAddr;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::message::EntryParts;

/// An entry, and the change to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// An FDB entry is written, with its VTEP if it has one.
    Fdb(u32, MacAddr, Option<IpAddr>),
    /// An FDB entry is removed.
    NoFdb(u32, MacAddr),
    /// A neighbour entry is written.
    Neighbour(u32, IpAddr, MacAddr),
    /// A neighbour entry is removed.
    NoNeighbour(u32, IpAddr),
}

impl Outcome {
    /// The change that a notification reports.
    fn of(message: &NeighbourMessage, deleted: bool) -> Option<Self> {
        let device = message.header.ifindex;
        let parts = EntryParts::of(message);
        match (message.header.family, deleted) {
            (AddressFamily::Bridge, true) => Some(Self::NoFdb(device, parts.mac?)),
            (AddressFamily::Bridge, false) => Some(Self::Fdb(device, parts.mac?, parts.address)),
            (_, true) => Some(Self::NoNeighbour(device, parts.address?)),
            (_, false) => Some(Self::Neighbour(device, parts.address?, parts.mac?)),
        }
    }
}

/// What the running job changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnChanges {
    /// Netlink port ids of the namespace's sockets.
    pub(crate) ports: BTreeSet<u32>,
    /// Entries that a batch changes; empty for other jobs.
    pub(crate) entries: BTreeSet<Outcome>,
}

impl OwnChanges {
    /// Whether the job caused it. `port` is 0 if the kernel names no socket.
    pub(crate) fn caused(&self, message: &RouteNetlinkMessage, port: u32) -> bool {
        let entry = match message {
            RouteNetlinkMessage::NewNeighbour(entry) => Some((entry, false)),
            RouteNetlinkMessage::DelNeighbour(entry) => Some((entry, true)),
            _ => None,
        };
        match entry {
            Some((entry, deleted)) if !self.entries.is_empty() => {
                Outcome::of(entry, deleted).is_some_and(|outcome| self.entries.contains(&outcome))
            }
            Some(_) | None => port == 0 || self.ports.contains(&port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute};

    const MAC: MacAddr = MacAddr([2, 0x42, 10, 0, 0, 5]);

    fn vtep(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn entry(
        family: AddressFamily,
        mac: Option<MacAddr>,
        address: Option<IpAddr>,
    ) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        (message.header.family, message.header.ifindex) = (family, 3);
        let mac = mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let address = address.map(|a| NeighbourAttribute::Destination(NeighbourAddress::from(a)));
        message.attributes.extend(mac.into_iter().chain(address));
        message
    }

    /// Goal: a notification is ours if it says what the batch asked for, and another program's if
    /// it says anything else of the same entry, whichever socket the kernel names.
    #[test]
    fn an_entry_is_ours_if_it_is_as_the_batch_asked() {
        let asked = [Outcome::Fdb(3, MAC, Some(vtep(2))), Outcome::NoNeighbour(3, vtep(7))];
        let own = OwnChanges { ports: [9].into(), entries: asked.into() };
        let bridge = AddressFamily::Bridge;
        let set = RouteNetlinkMessage::NewNeighbour;
        let deleted = RouteNetlinkMessage::DelNeighbour;
        let table = [
            (set(entry(bridge, Some(MAC), Some(vtep(2)))), true),
            (set(entry(bridge, Some(MAC), Some(vtep(3)))), false),
            (set(entry(bridge, Some(MAC), None)), false),
            (deleted(entry(bridge, Some(MAC), Some(vtep(2)))), false),
            (deleted(entry(AddressFamily::Inet, None, Some(vtep(7)))), true),
            (deleted(entry(AddressFamily::Inet, None, Some(vtep(8)))), false),
            (set(entry(AddressFamily::Inet, Some(MAC), Some(vtep(7)))), false),
        ];
        for (message, ours) in table {
            assert_eq!(own.caused(&message, 0), ours, "{message:?}");
        }
    }

    /// Goal: other things are ours if one of our sockets asked for them, or nobody did.
    #[test]
    fn another_thing_is_ours_if_our_socket_asked() {
        let own = OwnChanges { ports: [9].into(), entries: BTreeSet::new() };
        let route = RouteNetlinkMessage::DelRoute(Default::default());
        let flushed = RouteNetlinkMessage::DelNeighbour(NeighbourMessage::default());
        let caused = |message, port| own.caused(message, port);
        assert!(caused(&route, 9) && caused(&route, 0) && caused(&flushed, 0));
        assert!(!caused(&route, 10) && !caused(&flushed, 10));
    }
}
