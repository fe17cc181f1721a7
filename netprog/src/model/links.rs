//! Links, and what is removed with them.

use cluster::net::MacAddr;

use super::{End, Model, Refused, sysctl_link};
use crate::op::{LinkChange, LinkOp, NewLink};
use crate::plane::{FdbTable, Link, LinkKind, Place, PortFlags, Space};

const LOOPBACK: &str = "lo";
/// Initial flags of a bridge port.
const PORT_DEFAULT: PortFlags =
    PortFlags { learning: true, flood: true, hairpin: false, isolated: false, proxied: false };
/// Default MTU of a veth.
const MTU_DEFAULT: u32 = 1500;

/// Fails if the link does not exist.
pub(super) fn existing(space: &Space, name: &str) -> Refused {
    if name == LOOPBACK || space.links.contains_key(name) {
        Ok(())
    } else {
        Err(format!("no device {name}"))
    }
}

/// Takes a link out of its namespace with everything on it.
pub(crate) fn strip(space: &mut Space, name: &str) {
    space.links.remove(name);
    space.addresses.retain(|(link, _)| link != name);
    space.routes.retain(|route| route.device != name);
    space.fdb.retain(|key, _| key.device != name);
    space.neighbours.retain(|(device, _), _| device != name);
    space.sysctls.retain(|sysctl, _| sysctl_link(sysctl) != Some(name));
    let ports: Vec<String> = space
        .links
        .iter()
        .filter(|(_, link)| link.master.as_deref() == Some(name))
        .map(|(port, _)| port.clone())
        .collect();
    for port in ports {
        release(space, &port);
    }
}

/// A port leaves its bridge: its flags and its entries in the bridge's FDB are removed.
pub(crate) fn release(space: &mut Space, port: &str) {
    if let Some(link) = space.links.get_mut(port) {
        link.master = None;
        link.port = None;
    }
    space.fdb.retain(|key, _| key.device != port || key.table != FdbTable::Bridge);
}

impl Model {
    pub(super) fn make_link(&mut self, place: Place, op: &NewLink) -> Refused {
        match op {
            NewLink::Veth { name, peer } => self.create_veth((place, name.clone()), peer.clone()),
            NewLink::Device(name, link) => self.create_link(place, name, link),
        }
    }

    pub(super) fn change_link(&mut self, place: Place, op: &LinkOp) -> Refused {
        match op {
            LinkOp::Delete(name) => {
                self.space(place)?;
                self.delete_link(place, name);
                Ok(())
            }
            LinkOp::Set(name, change) => self.set_link(place, name, change),
        }
    }

    fn create_veth(&mut self, outer: End, inner: End) -> Refused {
        for (place, name) in [&outer, &inner] {
            if self.space(*place)?.links.contains_key(name) {
                return Err(format!("device {name} exists"));
            }
        }
        for (place, name) in [&outer, &inner] {
            let link = Link {
                kind: LinkKind::Veth,
                up: false,
                mtu: MTU_DEFAULT,
                mac: Some(chosen_mac(name)),
                master: None,
                alias: String::new(),
                port: None,
            };
            self.space(*place)?.links.insert(name.clone(), link);
        }
        self.peers.insert(outer.clone(), inner.clone());
        self.peers.insert(inner, outer);
        Ok(())
    }

    fn create_link(&mut self, place: Place, name: &str, link: &Link) -> Refused {
        match link.kind {
            LinkKind::Bridge | LinkKind::Vxlan { .. } => {}
            LinkKind::Veth => return Err("a veth is made as a pair".to_owned()),
            LinkKind::Other(_) => return Err("no links of this kind are made".to_owned()),
        }
        let space = self.space(place)?;
        if space.links.contains_key(name) {
            return Err(format!("device {name} exists"));
        }
        let mac = link.mac.or_else(|| Some(chosen_mac(name)));
        let made = Link { up: false, mac, master: None, port: None, ..link.clone() };
        space.links.insert(name.to_owned(), made);
        Ok(())
    }

    /// Removing a veth removes its peer; removing a bridge releases its ports.
    pub(crate) fn delete_link(&mut self, place: Place, name: &str) {
        if let Some(space) = self.plane.spaces.get_mut(&place) {
            strip(space, name);
        }
        if let Some((peer_place, peer)) = self.peers.remove(&(place, name.to_owned())) {
            self.peers.remove(&(peer_place, peer.clone()));
            if let Some(space) = self.plane.spaces.get_mut(&peer_place) {
                strip(space, &peer);
            }
        }
    }

    fn set_link(&mut self, place: Place, name: &str, change: &LinkChange) -> Refused {
        let space = self.space(place)?;
        existing(space, name)?;
        if let LinkChange::Master(Some(master)) = change {
            let bridge = space.links.get(master).map(|link| &link.kind);
            if bridge != Some(&LinkKind::Bridge) {
                return Err(format!("no bridge {master}"));
            }
            if space.links.get(name).is_some_and(|link| link.kind == LinkKind::Bridge) {
                return Err(format!("{name} is a bridge and cannot be a port"));
            }
        }
        if let LinkChange::Master(master) = change {
            let now = space.links.get(name).and_then(|link| link.master.clone());
            if now != *master {
                release(space, name);
            }
        }
        let was_up = space.links.get(name).is_some_and(|link| link.up);
        if *change == LinkChange::Up(false) && was_up {
            space.routes.retain(|route| route.device != name);
            space.neighbours.retain(|(device, _), _| device != name);
        }
        if let LinkChange::Mac(_) = change {
            // `neigh_changeaddr` forgets permanent entries too.
            space.neighbours.retain(|(device, _), _| device != name);
        }
        let Some(link) = space.links.get_mut(name) else { return Ok(()) };
        match change {
            LinkChange::Up(up) => link.up = *up,
            LinkChange::Mtu(mtu) => link.mtu = *mtu,
            LinkChange::Mac(mac) => link.mac = Some(*mac),
            LinkChange::Master(master) => {
                link.port = master.as_ref().map(|_| link.port.unwrap_or(PORT_DEFAULT));
                link.master.clone_from(master);
            }
            LinkChange::Alias(alias) => link.alias.clone_from(alias),
            LinkChange::Port(flags) => {
                if link.master.is_none() {
                    return Err(format!("{name} is not a port of a bridge"));
                }
                link.port = Some(*flags);
            }
        }
        Ok(())
    }
}

/// A placeholder for the address that a kernel chooses.
fn chosen_mac(name: &str) -> MacAddr {
    let sum = name.bytes().fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let [high, low] = sum.to_be_bytes();
    MacAddr([0x0e, 0, 0, 0, high, low])
}
