//! Links: creates, replaces, changes and removes them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Knowledge, is_ours};
use crate::model::{release, strip};
use crate::op::{LinkChange, LinkOp, NewLink, Op};
use crate::plane::{Link, LinkKind, Place, Plane, Space, VethPair};

type End = (Place, String);

/// Removes links of the wrong kind and halves of veth pairs, with everything on them. While nothing
/// may be removed yet, drops the desired links that conflict with them.
pub(super) fn replace(
    desired: &mut Plane,
    left: &mut Plane,
    knowledge: Knowledge,
    ops: &mut Vec<Op>,
) {
    let pairs = Pairs::of(desired);
    for (place, name) in in_the_way(desired, left) {
        let removable = left
            .spaces
            .get(&place)
            .and_then(|space| space.links.get(&name))
            .is_some_and(|link| is_ours(place, link));
        if knowledge == Knowledge::Complete && removable {
            ops.push(Op::new(place, LinkOp::Delete(name.clone())));
            forget(left, &pairs, (place, name));
        } else {
            // Not ours to remove: the kernel's refusal says which link is in the way.
            if knowledge == Knowledge::Complete {
                ops.extend(creation(desired, &pairs, &(place, name.clone())));
            }
            give_up(desired, &pairs, (place, name));
        }
    }
}

/// Desired veth pairs by their ends.
struct Pairs(BTreeMap<End, VethPair>);

impl Pairs {
    fn of(desired: &Plane) -> Self {
        let ends = |pair: &VethPair| [&pair.outer, &pair.inner].map(|e| (e.clone(), pair.clone()));
        Self(desired.veths.iter().flat_map(ends).collect())
    }

    /// The ends of a veth pair, or the end of another link.
    fn ends(&self, end: End) -> Vec<End> {
        match self.0.get(&end) {
            Some(pair) => vec![pair.outer.clone(), pair.inner.clone()],
            None => vec![end],
        }
    }
}

fn creation(desired: &Plane, pairs: &Pairs, end: &End) -> Option<Op> {
    let pair = pairs.0.get(end).filter(|pair| desired.veths.contains(pair));
    let link = desired.spaces.get(&end.0).and_then(|space| space.links.get(&end.1));
    pair.cloned()
        .map(Op::veth)
        .or_else(|| Some(Op::new(end.0, NewLink::Device(end.1.clone(), link?.clone()))))
}

fn in_the_way(desired: &Plane, left: &Plane) -> Vec<End> {
    let there = |end: &End| left.spaces.get(&end.0).and_then(|space| space.links.get(&end.1));
    let mut ends = Vec::new();
    for (place, space) in &desired.spaces {
        for (name, link) in &space.links {
            let end = (*place, name.clone());
            if there(&end).is_some_and(|there| there.kind != link.kind) {
                ends.push(end);
            }
        }
    }
    for pair in &desired.veths {
        let found = [&pair.outer, &pair.inner].map(|end| there(end).map(|link| &link.kind));
        let half = match found {
            [Some(LinkKind::Veth), None] => Some(&pair.outer),
            [None, Some(LinkKind::Veth)] => Some(&pair.inner),
            _ => None,
        };
        ends.extend(half.cloned());
    }
    ends
}

/// A link goes with everything on it; a veth with its peer.
fn forget(left: &mut Plane, pairs: &Pairs, end: End) {
    for (place, name) in pairs.ends(end) {
        if let Some(space) = left.spaces.get_mut(&place) {
            strip(space, &name);
        }
    }
}

fn give_up(desired: &mut Plane, pairs: &Pairs, end: End) {
    if let Some(pair) = pairs.0.get(&end) {
        desired.veths.remove(pair);
    }
    for (place, name) in pairs.ends(end) {
        if let Some(space) = desired.spaces.get_mut(&place) {
            strip(space, &name);
        }
    }
}

/// Bridges first, because the others become their ports; veths by pairs.
pub(super) fn create(desired: &Plane, left: &Plane, ops: &mut Vec<Op>) {
    let is_there = |place: &Place, name: &str| {
        left.spaces.get(place).is_some_and(|space| space.links.contains_key(name))
    };
    let mut later = Vec::new();
    for (place, space) in &desired.spaces {
        for (name, link) in space.links.iter().filter(|(name, _)| !is_there(place, name)) {
            let op = Op::new(*place, NewLink::Device(name.clone(), link.clone()));
            match link.kind {
                LinkKind::Bridge => ops.push(op),
                LinkKind::Vxlan { .. } => later.push(op),
                LinkKind::Veth | LinkKind::Other(_) => {}
            }
        }
    }
    ops.append(&mut later);
    let missing = desired.veths.iter().filter(|pair| {
        !is_there(&pair.outer.0, &pair.outer.1) && !is_there(&pair.inner.0, &pair.inner.1)
    });
    ops.extend(missing.cloned().map(Op::veth));
}

/// Properties of links that are or will be there.
pub(super) fn set(place: Place, wanted: &Space, there: &Space, ops: &mut Vec<Op>) {
    for (name, link) in &wanted.links {
        let now = there.links.get(name);
        for change in changes(link, now) {
            ops.push(Op::new(place, LinkOp::Set(name.clone(), change)));
        }
    }
}

/// Up comes last, so that a link is fully configured for its first packet.
fn changes(wanted: &Link, now: Option<&Link>) -> Vec<LinkChange> {
    // A bridge or VXLAN device is made with these three; a veth is not.
    let made = match wanted.kind {
        LinkKind::Bridge | LinkKind::Vxlan { .. } => now.is_none(),
        LinkKind::Veth | LinkKind::Other(_) => false,
    };
    let mut changes = Vec::new();
    if !made && now.is_none_or(|now| now.alias != wanted.alias) {
        changes.push(LinkChange::Alias(wanted.alias.clone()));
    }
    if !made && now.is_none_or(|now| now.mtu != wanted.mtu) {
        changes.push(LinkChange::Mtu(wanted.mtu));
    }
    if let Some(mac) = wanted.mac
        && !made
        && now.is_none_or(|now| now.mac != Some(mac))
    {
        changes.push(LinkChange::Mac(mac));
    }
    let moves = now.map(|now| &now.master).unwrap_or(&None) != &wanted.master;
    if moves {
        changes.push(LinkChange::Master(wanted.master.clone()));
    }
    if let Some(port) = wanted.port
        && (moves || now.is_none_or(|now| now.port != Some(port)))
    {
        changes.push(LinkChange::Port(port));
    }
    if now.is_some_and(|now| now.up) != wanted.up {
        changes.push(LinkChange::Up(wanted.up));
    }
    changes
}

/// What remains on ports that change their bridge.
pub(super) fn after_moves<'a>(wanted: &Space, there: &'a Space) -> Cow<'a, Space> {
    let mut left = Cow::Borrowed(there);
    for (name, link) in &wanted.links {
        if there.links.get(name).is_some_and(|now| now.master != link.master) {
            release(left.to_mut(), name);
        }
    }
    left
}

/// Links that are not wanted.
pub(super) fn remove(place: Place, wanted: &Space, there: &Space, ops: &mut Vec<Op>) {
    for (name, link) in &there.links {
        if !wanted.links.contains_key(name) && is_ours(place, link) {
            ops.push(Op::new(place, LinkOp::Delete(name.clone())));
        }
    }
}
