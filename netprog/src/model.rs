//! A plane that operations change as the kernel changes: the fake kernel is made of it, and the
//! programmer keeps its copy of what it observed current with it.
//!
//! Modelled is what the order and success of our operations depend on: what must exist first, and
//! what goes away together with something else.

mod entries;
mod ipvs;
mod links;

use std::collections::BTreeMap;

use crate::op::Op;
use crate::plane::{Place, Plane, Space, TABLE_PREFIX, TableKey};

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

/// The kernel's words for what it refuses.
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

    /// Applies one operation; nothing changes if it is refused. What should be removed and is not
    /// there is a success, as in the real kernel's shell.
    pub(crate) fn apply(&mut self, op: &Op) -> Refused {
        match op {
            Op::CreateSpace(place) => self.create_space(*place),
            Op::DeleteSpace(place) => self.delete_space(*place),
            Op::CreateVeth(pair) => self.create_veth(pair),
            Op::CreateLink(place, name, link) => self.create_link(*place, name, link),
            Op::DeleteLink(place, name) => {
                self.space(*place)?;
                self.delete_link(*place, name);
                Ok(())
            }
            Op::SetLink(place, name, change) => self.set_link(*place, name, change),
            Op::AddAddress(place, link, cidr) => self.add_address(*place, link, *cidr),
            Op::DeleteAddress(place, link, cidr) => {
                self.gone(*place, |space| entries::delete_address(space, link, *cidr))
            }
            Op::AddRoute(place, route) => self.add_route(*place, route),
            Op::DeleteRoute(place, route) => self.gone(*place, |space| {
                space.routes.remove(route);
            }),
            Op::AddRule(place, rule) => {
                self.space(*place)?.rules.insert(rule.clone());
                Ok(())
            }
            Op::DeleteRule(place, rule) => self.gone(*place, |space| {
                space.rules.remove(rule);
            }),
            Op::SetFdb(place, key, vtep) => self.set_fdb(*place, key, *vtep),
            Op::DeleteFdb(place, key) => self.gone(*place, |space| {
                space.fdb.remove(key);
            }),
            Op::SetNeighbour(place, device, address, mac) => {
                links::existing(self.space(*place)?, device)?;
                let entry = (device.clone(), *address);
                self.space(*place)?.neighbours.insert(entry, *mac);
                Ok(())
            }
            Op::DeleteNeighbour(place, device, address) => self.gone(*place, |space| {
                space.neighbours.remove(&(device.clone(), *address));
            }),
            Op::SetSysctl(place, name, value) => self.set_sysctl(*place, name, value),
            Op::SetVirtualService(..)
            | Op::DeleteVirtualService(..)
            | Op::SetRealServer(..)
            | Op::DeleteRealServer(..)
            | Op::SetIpvsTimeouts(..) => self.change_ipvs(op),
            Op::LoadTable(..)
            | Op::DeleteTable(..)
            | Op::AddElement(..)
            | Op::DeleteElement(..)
            | Op::SetMapElement { .. } => self.change_nft(op),
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

    /// A namespace goes with its links, and they with their peers.
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

    fn set_sysctl(&mut self, place: Place, name: &str, value: &str) -> Refused {
        let space = self.space(place)?;
        if let Some(link) = sysctl_link(name) {
            links::existing(space, link)?;
        }
        space.sysctls.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    fn change_nft(&mut self, op: &Op) -> Refused {
        match op {
            Op::LoadTable(place, key, table) => {
                if !key.name.starts_with(TABLE_PREFIX) {
                    return Err(format!("table {} is not ours", key.name));
                }
                self.space(*place)?.nft.insert(key.clone(), table.clone());
                Ok(())
            }
            Op::DeleteTable(place, key) => self.gone(*place, |space| {
                space.nft.remove(key);
            }),
            Op::AddElement(place, key, set, element) => {
                let table = self.table(*place, key)?;
                let elements = table.sets.get_mut(set).ok_or_else(|| no_set(key, set))?;
                elements.insert(element.clone());
                Ok(())
            }
            Op::DeleteElement(place, key, set, element) => {
                let table = self.table(*place, key)?;
                let elements = table.sets.get_mut(set).ok_or_else(|| no_set(key, set))?;
                elements.remove(element);
                Ok(())
            }
            Op::SetMapElement { place, table, map, key, old, new } => {
                let elements = self.table(*place, table)?.maps.get_mut(map);
                let elements = elements.ok_or_else(|| no_set(table, map))?;
                if old.is_some() {
                    elements.remove(key);
                }
                let Some(new) = new else { return Ok(()) };
                if elements.get(key).is_some_and(|there| there != new) {
                    return Err(format!("map {map} has another value for {key}"));
                }
                elements.insert(key.clone(), new.clone());
                Ok(())
            }
            _ => Err("not an nft operation".to_owned()),
        }
    }

    fn table(&mut self, place: Place, key: &TableKey) -> Result<&mut crate::plane::Table, String> {
        let space = self.space(place)?;
        space.nft.get_mut(key).ok_or_else(|| format!("there is no table {}", key.name))
    }
}

fn no_set(key: &TableKey, set: &str) -> String {
    format!("table {} has no set or map {set}", key.name)
}

/// The link that a sysctl belongs to: `net/ipv4/conf/<link>/…`.
pub(crate) fn sysctl_link(name: &str) -> Option<&str> {
    let mut parts = name.split('/').skip(2);
    let kind = parts.next()?;
    let link = parts.next()?;
    let of_a_link = matches!(kind, "conf" | "neigh") && link != "all" && link != "default";
    of_a_link.then_some(link)
}
