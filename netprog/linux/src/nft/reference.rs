//! A reference of each loaded table, to detect changes by other programs.
//!
//! Right after a load, the structure of the table is read back, and its hash becomes the only
//! element of a set in that table. It exists as long as the table, independent of the daemon. A
//! table without it was not loaded completely, and is loaded again.

use std::hash::Hasher as _;
use std::net::Ipv6Addr;

use netprog::op::{NftChange, NftOp};
use netprog::plane::TableKey;
use netprog::plane::element::{Element, Part};
use rtnetlink::sys::Socket;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::list::list;
use super::wire::{GET_CHAIN, GET_RULE, GET_SET, GET_TABLE, TABLE_NAME, dump, number};
use crate::netlink::Refusal;
use crate::netlink::raw::text;

/// Name of the set, whose type has room for 128 bits.
const SET: &str = "reference";
/// Its declaration.
pub(super) const DECLARATION: &str = "set reference { type ipv6_addr; }";

/// The attribute with the table's name in messages about chains, rules and sets.
const OF_TABLE: u16 = 1;
/// The attributes that identify each object and its effect: flags of the table, which can disable
/// it; handle, name, hook and policy of a chain; name, type and flags of a set. A rule that is
/// replaced gets a new handle, and so does a set or a chain that is created again. Attributes that
/// packets change are left out.
const STRUCTURE: [(u16, u16, &[u16]); 4] = [
    (GET_TABLE, TABLE_NAME, &[2]),
    (GET_CHAIN, OF_TABLE, &[2, 3, 4, 5]),
    (GET_RULE, OF_TABLE, &[2, 3]),
    (GET_SET, OF_TABLE, &[2, 3, 4, 6, 16]),
];

/// A hash of the structure as it is now.
fn hash(socket: &Socket, key: &TableKey) -> Result<Ipv6Addr, Refusal> {
    let mut hasher = SipHasher24::new();
    for (get, of_table, identity) in STRUCTURE {
        // Tables cannot be dumped by name.
        let names = [(of_table, key.name.as_str())];
        let names = if get == GET_TABLE { &[][..] } else { &names[..] };
        for message in dump(socket, get, number(key.family), names)? {
            // Not every kernel filters chains by table.
            let ours = |(kind, value): (u16, &[u8])| kind == of_table && text(value) == key.name;
            if message.family() != Some(key.family) || !message.attributes().any(ours) {
                continue;
            }
            hasher.write_u16(get);
            for (kind, value) in message.attributes().filter(|(kind, _)| identity.contains(kind)) {
                hasher.write_u16(kind);
                hasher.write_usize(value.len());
                hasher.write(value);
            }
        }
    }
    Ok(Ipv6Addr::from_bits(hasher.finish128().as_u128()))
}

/// Whether a table is what was loaded.
pub(super) fn is_as_loaded(socket: &Socket, key: &TableKey) -> Result<bool, Refusal> {
    let kept = list(socket, key, SET)?;
    let now = hash(socket, key)?.octets();
    Ok(matches!(kept.as_slice(), [(kept, _)] if *kept == now))
}

/// The tables that these operations load and do not delete afterwards.
pub(super) fn loaded(ops: &[NftOp]) -> Vec<&TableKey> {
    let mut keys = Vec::new();
    for op in ops {
        if let NftChange::Load(_) | NftChange::Delete = op.change {
            keys.retain(|loaded| *loaded != &op.table);
        }
        if let NftChange::Load(_) = op.change {
            keys.push(&op.table);
        }
    }
    keys
}

/// The current hash of each table, as an element of its set.
pub(super) fn references(
    socket: &Socket,
    keys: &[&TableKey],
) -> Result<Vec<(TableKey, &'static str, Element)>, Refusal> {
    let reference = |key: &&TableKey| {
        let hash = Element::of([Part::V6(hash(socket, key)?)]);
        Ok(((*key).clone(), SET, hash))
    };
    keys.iter().map(reference).collect()
}
