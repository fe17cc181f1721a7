//! A plane that operations change as they change the kernel. The fake kernel is built on it, and
//! the programmer uses it to keep its observed copy current.
//!
//! It models only what determines the order and success of our operations: what must exist first,
//! and what is removed together with something else.

mod entries;
mod ipvs;
mod links;
mod nft;
mod routes;

use std::collections::BTreeMap;

use crate::op::{Kind, Op, SpaceOp, Sysctl};
use crate::plane::{Place, Plane, Space};

pub(crate) use links::{release, strip};

/// A link of some namespace.
type End = (Place, String);

/// Kernel state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Model {
    pub(crate) plane: Plane,
    /// Both directions of every veth pair that is known.
    pub(crate) peers: BTreeMap<End, End>,
}

/// The kernel's error messages.
pub(crate) type Refused = Result<(), String>;

impl Model {
    /// What was observed, with those of the desired veth pairs that are there.
    pub(crate) fn of(plane: Plane, desired: &Plane) -> Self {
        let is_there = |(place, name): &End| {
            plane.spaces.get(place).is_some_and(|space| space.links.contains_key(name))
        };
        let whole = desired.veths.iter().filter(|p| is_there(&p.outer) && is_there(&p.inner));
        let both = |pair: &crate::plane::VethPair| {
            [(pair.outer.clone(), pair.inner.clone()), (pair.inner.clone(), pair.outer.clone())]
        };
        let peers = whole.flat_map(both).collect();
        Self { plane, peers }
    }

    /// Applies one operation; nothing changes if it is refused. Removing something that
    /// does not exist succeeds, as in the crate for the real kernel.
    pub(crate) fn apply(&mut self, op: &Op) -> Refused {
        let place = op.place;
        match &op.kind {
            Kind::Space(SpaceOp::Create) => self.create_space(place),
            Kind::Space(SpaceOp::Delete) => self.delete_space(place),
            Kind::NewLink(op) => self.make_link(place, op),
            Kind::Link(op) => self.change_link(place, op),
            Kind::Route(op) => self.change_routes(place, op),
            Kind::Entry(op) => self.change_entries(place, op),
            Kind::Sysctl(sysctl) => self.set_sysctl(place, sysctl),
            Kind::Ipvs(op) => self.change_ipvs(place, op),
            Kind::Nft(op) => self.change_nft(place, op),
        }
    }

    fn space(&mut self, place: Place) -> Result<&mut Space, String> {
        self.plane.spaces.get_mut(&place).ok_or_else(|| format!("there is no namespace {place}"))
    }

    /// A removal in a namespace that must exist.
    fn gone(&mut self, place: Place, remove: impl FnOnce(&mut Space)) -> Refused {
        remove(self.space(place)?);
        Ok(())
    }

    fn create_space(&mut self, place: Place) -> Refused {
        match place {
            Place::Fabric(_) => {
                self.plane.spaces.entry(place).or_default();
                Ok(())
            }
            Place::Host | Place::Sandbox(_) => {
                Err(format!("{place} is not a fabric: others make it"))
            }
        }
    }

    fn delete_space(&mut self, place: Place) -> Refused {
        match place {
            Place::Fabric(_) => {
                self.drop_space(place);
                Ok(())
            }
            Place::Host | Place::Sandbox(_) => {
                Err(format!("{place} is not a fabric: others remove it"))
            }
        }
    }

    /// Removing a namespace removes its links and their peers.
    pub(crate) fn drop_space(&mut self, place: Place) {
        let names: Vec<String> = self
            .plane
            .spaces
            .get(&place)
            .map(|space| space.links.keys().cloned().collect())
            .unwrap_or_default();
        for name in names {
            self.delete_link(place, &name);
        }
        self.plane.spaces.remove(&place);
    }

    fn set_sysctl(&mut self, place: Place, sysctl: &Sysctl) -> Refused {
        let space = self.space(place)?;
        if let Some(link) = sysctl_link(&sysctl.name) {
            links::existing(space, link)?;
        }
        space.sysctls.insert(sysctl.name.clone(), sysctl.value.clone());
        Ok(())
    }
}

/// The link that a sysctl belongs to: `net/ipv4/conf/<link>/…`.
pub(crate) fn sysctl_link(name: &str) -> Option<&str> {
    let mut parts = name.split('/').skip(2);
    let kind = parts.next()?;
    let link = parts.next()?;
    let of_a_link = matches!(kind, "conf" | "neigh") && link != "all" && link != "default";
    of_a_link.then_some(link)
}
