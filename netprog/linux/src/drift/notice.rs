//! Decides which notifications concern our objects.

use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload, Nla, NlasIterator};
use netlink_packet_route::address::{AddressHeader, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, LinkProtoInfoBridge};
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netprog::plane::{ALIAS_PREFIX, Place, TABLE_PREFIX};

use super::{Disturbance, OwnChanges};
use crate::message::is_by_kernel;
use crate::netlink::NETLINK_HEADER_BYTES;

/// `struct nfgenmsg`.
const NETFILTER_HEADER_BYTES: usize = 4;
/// The number of the table's name in messages about tables, chains, rules, sets and elements.
const TABLE_NAME: u16 = 1;
/// `IFLA_BRPORT_MODE`, `_LEARNING`, `_UNICAST_FLOOD`, `_PROXYARP_WIFI` and `_ISOLATED`
/// (include/uapi/linux/if_link.h).
const PORT_SETTINGS: [u16; 5] = [4, 8, 9, 12, 33];
/// `NFT_MSG_NEWGEN`: a transaction has ended; contains no table.
const NEW_GENERATION: u16 = 10 << 8 | 15;

/// Classifies notifications of one namespace.
pub(crate) struct Watcher {
    place: Place,
    ours: BTreeSet<u32>,
    links: BTreeMap<u32, LinkState>,
    ports: BTreeMap<u32, Vec<LinkProtoInfoBridge>>,
}

/// The properties of a link that a plane contains. The kernel also reports a link for other
/// reasons, such as its carrier, and often some time after the change that caused it.
#[derive(PartialEq, Eq)]
struct LinkState {
    up: bool,
    attributes: Vec<LinkAttribute>,
}

impl Watcher {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, ours: BTreeSet::new(), links: BTreeMap::new(), ports: BTreeMap::new() }
    }

    pub(super) fn ours(&mut self, links: BTreeSet<u32>) {
        self.ours = links;
    }

    /// Counts the changes of our objects in a datagram of route netlink, without those that our own
    /// job made.
    pub(crate) fn route(
        &mut self,
        datagram: &[u8],
        own: Option<&OwnChanges>,
        found: &mut Disturbance,
    ) {
        for message in messages(datagram) {
            let Ok(parsed) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
                continue;
            };
            let NetlinkPayload::InnerMessage(inner) = &parsed.payload else { continue };
            let port = parsed.header.port_number;
            if self.concerns(inner) && !own.is_some_and(|own| own.caused(inner, port)) {
                count(found, port);
            }
        }
    }

    fn concerns(&mut self, message: &RouteNetlinkMessage) -> bool {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.link(link, true),
            RouteNetlinkMessage::DelLink(link) => self.link(link, false),
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                self.address(&address.header)
            }
            RouteNetlinkMessage::NewNeighbour(entry) => self.entry(entry, false),
            RouteNetlinkMessage::DelNeighbour(entry) => self.entry(entry, true),
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                self.route_of(route)
            }
            // Rules of the host's namespace are those of everybody; ours are checked in time.
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => {
                self.place != Place::Host
            }
            _ => false,
        }
    }

    /// In namespaces other than the host's, all links are ours.
    fn is_ours(&self, index: u32) -> bool {
        self.place != Place::Host || self.ours.contains(&index)
    }

    fn link(&mut self, message: &LinkMessage, exists: bool) -> bool {
        let index = message.header.index;
        if message.header.interface_family == AddressFamily::Bridge {
            return self.port(message, exists);
        }
        let marked = message.attributes.iter().any(|attribute| {
            matches!(attribute, LinkAttribute::IfAlias(alias) if alias.starts_with(ALIAS_PREFIX))
        });
        let was_ours = self.is_ours(index);
        let changed = if exists {
            if marked {
                self.ours.insert(index);
            }
            let state = LinkState::of(message);
            self.links.get(&index) != Some(&state) && {
                self.links.insert(index, state);
                true
            }
        } else {
            self.ours.remove(&index);
            self.links.remove(&index);
            true
        };
        changed && (was_ours || marked)
    }

    /// A bridge's message about one of its ports.
    fn port(&mut self, message: &LinkMessage, exists: bool) -> bool {
        let index = message.header.index;
        if !exists {
            // The link's own message follows, or the port has a new master, which it says too.
            self.ports.remove(&index);
            return false;
        }
        let settings: Vec<_> = message
            .attributes
            .iter()
            .filter_map(|attribute| match attribute {
                LinkAttribute::ProtoInfoBridge(infos) => Some(infos),
                _ => None,
            })
            .flatten()
            .filter(|info| is_setting(info))
            .cloned()
            .collect();
        let changed = self.ports.get(&index) != Some(&settings);
        self.ports.insert(index, settings);
        changed && self.is_ours(index)
    }

    /// Entries set by a program are permanent or static; entries learned by the kernel change with
    /// traffic. A permanent neighbour that is deleted is reported as failed. In a bridge's
    /// table the permanent ones are the bridge's own addresses. The static ones outside of it are
    /// multicast groups that the kernel joins.
    fn entry(&self, message: &NeighbourMessage, deleted: bool) -> bool {
        let header = &message.header;
        let in_bridge =
            header.family == AddressFamily::Bridge && !header.flags.contains(NeighbourFlags::Own);
        let set = match header.state {
            NeighbourState::Permanent => !in_bridge,
            NeighbourState::Noarp => header.family == AddressFamily::Bridge,
            NeighbourState::Failed => deleted,
            _ => false,
        };
        // We set no entries in sandboxes.
        set && !matches!(self.place, Place::Sandbox(_)) && self.is_ours(header.ifindex)
    }

    /// Link-local addresses of IPv6 are the kernel's: they come with a link, and are reported again
    /// a second later when no duplicate was found.
    fn address(&self, header: &AddressHeader) -> bool {
        let by_kernel = header.family == AddressFamily::Inet6 && header.scope == AddressScope::Link;
        !by_kernel && self.is_ours(header.index)
    }

    fn route_of(&self, message: &RouteMessage) -> bool {
        if is_by_kernel(&message.header) {
            return false;
        }
        let device = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        device.is_some_and(|index| self.is_ours(index))
    }

    /// Counts the changes of our objects in a datagram of netfilter netlink.
    pub(crate) fn nftables(&self, datagram: &[u8], found: &mut Disturbance) {
        for message in messages(datagram) {
            let Ok(buffer) = NetlinkBuffer::new_checked(&message) else { continue };
            if buffer.message_type() == NEW_GENERATION {
                continue;
            }
            let attributes = message.get(NETLINK_HEADER_BYTES + NETFILTER_HEADER_BYTES..);
            let ours = NlasIterator::new(attributes.unwrap_or_default())
                .filter_map(Result::ok)
                .any(|nla| {
                    nla.kind() == TABLE_NAME && nla.value().starts_with(TABLE_PREFIX.as_bytes())
                });
            if ours {
                count(found, buffer.port_number());
            }
        }
    }
}

impl LinkState {
    fn of(message: &LinkMessage) -> Self {
        let matters = |attribute: &&LinkAttribute| {
            matches!(
                attribute,
                LinkAttribute::IfName(_)
                    | LinkAttribute::IfAlias(_)
                    | LinkAttribute::Mtu(_)
                    | LinkAttribute::Address(_)
                    | LinkAttribute::Controller(_)
            )
        };
        Self {
            up: message.header.flags.contains(LinkFlags::Up),
            attributes: message.attributes.iter().filter(matters).cloned().collect(),
        }
    }
}

fn is_setting(info: &LinkProtoInfoBridge) -> bool {
    PORT_SETTINGS.contains(&info.kind())
}

fn count(found: &mut Disturbance, port: u32) {
    found.events += 1;
    if port != 0 {
        found.by.insert(port);
    }
}

/// The netlink messages of a datagram.
fn messages(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = NetlinkBuffer::new_checked(&rest).ok()?.length() as usize;
        let message = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(family: AddressFamily, scope: AddressScope) -> AddressHeader {
        AddressHeader { family, scope, ..AddressHeader::default() }
    }

    fn neighbour(family: AddressFamily, state: NeighbourState) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        (message.header.family, message.header.state) = (family, state);
        message
    }

    /// Goal: what the kernel does by itself when a link comes or goes triggers no pass. Method:
    /// a table of headers as the kernel sends them in a fabric.
    #[test]
    fn what_the_kernel_does_by_itself_is_not_heard() {
        let watcher = Watcher::new(Place::Fabric(cluster::id::NetworkId(1)));
        let heard = [
            (AddressFamily::Inet, AddressScope::Universe, true),
            (AddressFamily::Inet6, AddressScope::Universe, true),
            (AddressFamily::Inet6, AddressScope::Link, false),
        ];
        for (family, scope, expected) in heard {
            let header = address(family, scope);
            assert_eq!(watcher.address(&header), expected, "{header:?}");
        }
        let heard = [
            (AddressFamily::Bridge, NeighbourState::Noarp, true),
            (AddressFamily::Inet, NeighbourState::Permanent, true),
            (AddressFamily::Inet6, NeighbourState::Permanent, true),
            (AddressFamily::Inet6, NeighbourState::Noarp, false),
            (AddressFamily::Inet, NeighbourState::Noarp, false),
            (AddressFamily::Inet, NeighbourState::Reachable, false),
        ];
        for (family, state, expected) in heard {
            let message = neighbour(family, state);
            assert_eq!(watcher.entry(&message, false), expected, "{message:?}");
        }
    }
}
