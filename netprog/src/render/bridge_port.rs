//! Ports of local endpoints on a fabric's bridge.

use cluster::object::Attachment;

use crate::plane::{FdbKey, FdbTable, Link, LinkKind, PortFlags, Space};

/// A bridge port that neither learns nor gets unknown frames: every MAC address has an entry.
pub(super) const STATIC: PortFlags =
    PortFlags { learning: false, flood: false, hairpin: true, isolated: false, proxied: true };

/// Adds a local endpoint's port, and the neighbour entry from which the bridge answers ARP for it.
pub(super) fn add(
    space: &mut Space,
    name: &str,
    (bridge, mtu): (&str, u32),
    endpoint: &Attachment,
    alias: &str,
) {
    let (mac, address) = (endpoint.mac, endpoint.address);
    space.links.insert(
        name.to_owned(),
        Link {
            kind: LinkKind::Veth,
            up: true,
            mtu,
            mac: None,
            master: Some(bridge.to_owned()),
            alias: alias.to_owned(),
            port: Some(STATIC),
        },
    );
    let key = FdbKey { device: name.to_owned(), mac, table: FdbTable::Bridge };
    space.fdb.insert(key, None);
    space.neighbours.insert((bridge.to_owned(), address), mac);
}
