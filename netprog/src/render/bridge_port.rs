//! Ports of local endpoints on a fabric's bridge.

use cluster::object::Attachment;

use crate::plane::{FdbKey, FdbTable, Link, LinkKind, PortFlags, Space};

/// A bridge port that neither learns nor gets unknown frames: every MAC address has an entry.
pub(super) const STATIC: PortFlags =
    PortFlags { learning: false, flood: false, hairpin: true, isolated: false, proxied: true };

/// Adds a local endpoint's port, and the neighbour entries from which the bridge answers for it.
pub(super) fn add(
    space: &mut Space,
    name: &str,
    (bridge, mtu): (&str, u32),
    endpoint: &Attachment,
    alias: &str,
) {
    let mac = endpoint.mac;
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
    for address in endpoint.addresses.iter() {
        space.neighbours.insert((bridge.to_owned(), address), mac);
    }
}
