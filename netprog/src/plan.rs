//! Compares the observed with the desired state and returns the operations between them.
//!
//! Order: namespaces, links, addresses, sysctls, routes and rules, tables that restrict VXLAN
//! senders, forwarding entries, virtual services, other nftables; then removals in reverse order.
//! In a table, sets grow before maps and shrink after them: a backend is live before a slot leads
//! to it, and loses its slots before it is not live.
//!
//! Laws (checked by tests): a plan from a state to itself is empty; after a plan is applied the
//! next one is empty, also after any crash in between; with partial knowledge nothing is removed.

mod entries;
mod ipvs;
mod links;
mod nft;
#[cfg(test)]
mod tests;

use crate::op::{Op, SpaceOp};
use crate::plane::{ALIAS_PREFIX, Link, Place, Plane, Space};

/// Whether an object that is not desired may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Knowledge {
    /// There is a full assignment, and a gossip exchange has completed since the start: what is not
    /// desired may be removed.
    Complete,
    /// Something is still being loaded: only add.
    Partial,
}

impl Knowledge {
    /// From whether both are there.
    #[must_use]
    pub fn when(complete: bool) -> Self {
        if complete { Self::Complete } else { Self::Partial }
    }
}

/// Sysctls that some kernels or namespaces do not have, and need not have: br_netfilter may be
/// absent, and limits of the neighbour tables are the initial namespace's alone. A plan leaves
/// them where they are absent, and applying them there is a success.
const OPTIONAL_SYSCTLS: [&str; 2] = ["net/bridge/", "net/ipv4/neigh/default/"];

/// Whether the sysctl may be absent.
#[must_use]
pub fn is_optional_sysctl(name: &str) -> bool {
    OPTIONAL_SYSCTLS.iter().any(|prefix| name.starts_with(prefix))
}

/// What to do, in order.
#[must_use]
pub fn plan(desired: &Plane, observed: &Plane, knowledge: Knowledge) -> Vec<Op> {
    let mut desired = possible(desired, observed);
    let mut left = observed.clone();
    let mut ops = create_spaces(&desired, observed);
    links::replace(&mut desired, &mut left, knowledge, &mut ops);
    let empty = Space::default();
    let pairs: Vec<(Place, &Space, &Space)> = desired
        .spaces
        .iter()
        .map(|(place, wanted)| (*place, wanted, left.spaces.get(place).unwrap_or(&empty)))
        .collect();
    links::create(&desired, &left, &mut ops);
    for (place, wanted, there) in &pairs {
        links::set(*place, wanted, there, &mut ops);
    }
    for (place, wanted, there) in &pairs {
        entries::addresses(*place, wanted, there, &mut ops);
    }
    for (place, wanted, there) in &pairs {
        let known = observed.spaces.contains_key(place);
        entries::sysctls(*place, wanted, there, known, &mut ops);
    }
    for (place, wanted, there) in &pairs {
        entries::routes(*place, wanted, there, &mut ops);
    }
    // A node's frames are taken before it is sent any: it answers at once.
    for (place, wanted, there) in &pairs {
        nft::change(*place, (wanted, there), true, knowledge, &mut ops);
    }
    for (place, wanted, there) in &pairs {
        entries::forwarding(*place, wanted, there, &mut ops);
    }
    for (place, wanted, there) in &pairs {
        ipvs::set(*place, wanted, there, knowledge, &mut ops);
    }
    for (place, wanted, there) in &pairs {
        nft::change(*place, (wanted, there), false, knowledge, &mut ops);
    }
    if knowledge == Knowledge::Complete {
        for (place, wanted, there) in &pairs {
            ipvs::remove(*place, wanted, there, &mut ops);
        }
        for (place, wanted, there) in &pairs {
            entries::remove(*place, wanted, there, &mut ops);
        }
        for (place, wanted, there) in &pairs {
            links::remove(*place, wanted, there, &mut ops);
        }
        remove_spaces(&desired, observed, &mut ops);
    }
    ops
}

/// Sandboxes are made by their supervisors: what is wanted in one that does not exist, or of a
/// veth pair that would end in it, must wait.
fn possible(desired: &Plane, observed: &Plane) -> Plane {
    let mut desired = desired.clone();
    let exists = |place: &Place| match place {
        Place::Fabric(_) => true,
        Place::Host | Place::Sandbox(_) => observed.spaces.contains_key(place),
    };
    let waiting: Vec<_> =
        desired.veths.iter().filter(|p| !exists(&p.outer.0) || !exists(&p.inner.0)).collect();
    for (place, name) in waiting.iter().flat_map(|pair| [&pair.outer, &pair.inner]) {
        if let Some(space) = desired.spaces.get_mut(place) {
            crate::model::strip(space, name);
        }
    }
    desired.veths.retain(|pair| exists(&pair.outer.0) && exists(&pair.inner.0));
    desired.spaces.retain(|place, _| exists(place));
    desired
}

fn create_spaces(desired: &Plane, observed: &Plane) -> Vec<Op> {
    let missing = desired.spaces.keys().filter(|place| !observed.spaces.contains_key(place));
    missing.map(|place| Op::new(*place, SpaceOp::Create)).collect()
}

fn remove_spaces(desired: &Plane, observed: &Plane, ops: &mut Vec<Op>) {
    for place in observed.spaces.keys().filter(|place| !desired.spaces.contains_key(place)) {
        match place {
            Place::Fabric(_) => ops.push(Op::new(*place, SpaceOp::Delete)),
            Place::Host | Place::Sandbox(_) => {}
        }
    }
}

/// Whether a link that is not desired may be removed: everything in a fabric, elsewhere what
/// carries our mark (a task may make links in its sandbox, an administrator on the host).
fn is_ours(place: Place, link: &Link) -> bool {
    match place {
        Place::Fabric(_) => true,
        Place::Host | Place::Sandbox(_) => link.alias.starts_with(ALIAS_PREFIX),
    }
}

/// Whether entries on a device may be removed.
fn is_our_device(place: Place, wanted: &Space, there: &Space, device: &str) -> bool {
    let ours = there.links.get(device).is_some_and(|link| is_ours(place, link));
    let own_loopback = matches!(place, Place::Fabric(_)) && device == "lo";
    ours || own_loopback || wanted.links.contains_key(device)
}
