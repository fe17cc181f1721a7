//! Forwarding and neighbour entries.

use std::net::IpAddr;

use super::{Model, Refused, links::existing};
use crate::op::EntryOp;
use crate::plane::{FdbKey, FdbTable, LinkKind, Place};

impl Model {
    pub(super) fn change_entries(&mut self, place: Place, op: &EntryOp) -> Refused {
        match op {
            EntryOp::SetFdb(key, vtep) => self.set_fdb(place, key, *vtep),
            EntryOp::DeleteFdb(key) => self.gone(place, |space| {
                space.fdb.remove(key);
            }),
            EntryOp::SetNeighbour(device, address, mac) => {
                let space = self.space(place)?;
                existing(space, device)?;
                space.neighbours.insert((device.clone(), *address), *mac);
                Ok(())
            }
            EntryOp::DeleteNeighbour(device, address) => self.gone(place, |space| {
                space.neighbours.remove(&(device.clone(), *address));
            }),
        }
    }

    /// Replaces the entry of that MAC address; a bridge's FDB has one per address for all ports.
    fn set_fdb(&mut self, place: Place, key: &FdbKey, vtep: Option<IpAddr>) -> Refused {
        let space = self.space(place)?;
        existing(space, &key.device)?;
        let link = space.links.get(&key.device);
        match key.table {
            FdbTable::Device => {
                if !link.is_some_and(|link| matches!(link.kind, LinkKind::Vxlan { .. })) {
                    return Err(format!("{} has no table of its own", key.device));
                }
                if vtep.is_none() {
                    return Err("an entry of a VXLAN device needs a VTEP".to_owned());
                }
            }
            FdbTable::Bridge => {
                let master = link.and_then(|link| link.master.clone());
                let Some(master) = master else {
                    return Err(format!("{} is not a port of a bridge", key.device));
                };
                let is_here = |other: &&FdbKey| {
                    let port = space.links.get(&other.device);
                    port.is_some_and(|port| port.master.as_ref() == Some(&master))
                };
                let replaced: Vec<_> = space.in_bridges(key.mac).filter(is_here).cloned().collect();
                for other in replaced {
                    space.fdb.remove(&other);
                }
            }
        }
        space.fdb.insert(key.clone(), vtep);
        Ok(())
    }
}
