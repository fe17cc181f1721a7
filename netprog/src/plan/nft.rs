//! nftables: the structure as a whole, elements one by one.

use super::Knowledge;
use crate::op::{NftChange, Op};
use crate::plane::element::Element;
use crate::plane::{Place, Space, TABLES, Table, TableKey};

/// Plans the tables that restrict VXLAN senders (`guards_vxlan`), or all others.
pub(super) fn change(
    place: Place,
    (wanted, there): (&Space, &Space),
    guards_vxlan: bool,
    knowledge: Knowledge,
    ops: &mut Vec<Op>,
) {
    let complete = knowledge == Knowledge::Complete;
    for (key, table) in wanted.nft.iter().filter(|(key, _)| key.guards_vxlan() == guards_vxlan) {
        match there.nft.get(key) {
            None => ops.push(Op::nft(place, key.clone(), NftChange::Load(table.clone()))),
            Some(now) if now.digest == table.digest => {
                elements(place, key, (table, now), complete, ops);
            }
            // Loading the table again would remove elements that may be right.
            Some(_) if complete => {
                ops.push(Op::nft(place, key.clone(), NftChange::Load(table.clone())));
            }
            // Until then, the elements that fit are added.
            Some(now) => elements(place, key, (&known(table, now), now), false, ops),
        }
    }
    if complete {
        let extra = there.nft.keys().filter(|key| !wanted.nft.contains_key(key));
        let ours = |key: &&TableKey| TABLES.contains(&key.name.as_str());
        for key in extra.filter(|key| key.guards_vxlan() == guards_vxlan).filter(ours) {
            ops.push(Op::nft(place, key.clone(), NftChange::Delete));
        }
    }
}

/// The part of a table whose sets and maps another one has.
fn known(table: &Table, other: &Table) -> Table {
    let mut known = table.clone();
    known.sets.retain(|name, _| other.sets.contains_key(name));
    known.maps.retain(|name, _| other.maps.contains_key(name));
    known
}

/// Sets grow first and shrink last. A map element changes its value only with complete
/// knowledge: before that, slots of remote backends cannot be distinguished from stale ones.
fn elements(
    place: Place,
    key: &TableKey,
    (wanted, now): (&Table, &Table),
    complete: bool,
    ops: &mut Vec<Op>,
) {
    let none = Default::default();
    for (name, elements) in &wanted.sets {
        let there = now.sets.get(name).unwrap_or(&none);
        for element in elements.difference(there) {
            ops.push(Op::nft(
                place,
                key.clone(),
                NftChange::AddElement(name.clone(), element.clone()),
            ));
        }
    }
    let none = Default::default();
    for (name, elements) in &wanted.maps {
        let there = now.maps.get(name).unwrap_or(&none);
        for (element, value) in elements {
            let old = there.get(element);
            if old != Some(value) && (complete || old.is_none()) {
                ops.push(set(place, key, name, (element, old, Some(value))));
            }
        }
    }
    if !complete {
        return;
    }
    for (name, elements) in &wanted.maps {
        let there = now.maps.get(name).unwrap_or(&none);
        for (element, old) in there.iter().filter(|(e, _)| !elements.contains_key(*e)) {
            ops.push(set(place, key, name, (element, Some(old), None)));
        }
    }
    let none = Default::default();
    for (name, elements) in &wanted.sets {
        let there = now.sets.get(name).unwrap_or(&none);
        for element in there.difference(elements) {
            ops.push(Op::nft(
                place,
                key.clone(),
                NftChange::DeleteElement(name.clone(), element.clone()),
            ));
        }
    }
}

fn set(
    place: Place,
    table: &TableKey,
    map: &str,
    (key, old, new): (&Element, Option<&Element>, Option<&Element>),
) -> Op {
    let change = NftChange::SetMapElement {
        map: map.to_owned(),
        key: key.clone(),
        old: old.cloned(),
        new: new.cloned(),
    };
    Op::nft(place, table.clone(), change)
}
