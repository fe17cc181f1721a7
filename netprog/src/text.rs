//! Planes and operations as text for people: one line each, in the notation of `ip`, `bridge` and
//! `nft` where it exists. Golden tests and the `plan` and `dataplane` resources print it.

use std::collections::BTreeMap;
use std::fmt;

use crate::op::{
    EntryOp, IpvsOp, Kind, LinkChange, LinkOp, NewLink, NftChange, NftOp, Op, RouteOp, SpaceOp,
    Sysctl,
};
use crate::plane::element::Element;
use crate::plane::{
    FdbKey, FdbTable, Link, LinkKind, Place, Plane, PortFlags, Route, Rule, Space, TableKey,
    VethPair,
};

/// Map elements of one map beyond this many are counted, not printed.
const ELEMENTS_SHOWN: usize = 12;

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        match &self.kind {
            Kind::NewLink(NewLink::Veth { name, peer }) => {
                write!(f, "create {}", Veth((*place, name), (peer.0, &peer.1)))
            }
            Kind::NewLink(NewLink::Device(name, link)) => {
                write!(f, "{place}: create {name}: {link}")
            }
            Kind::Space(SpaceOp::Create) => write!(f, "{place}: create namespace"),
            Kind::Space(SpaceOp::Delete) => write!(f, "{place}: delete namespace"),
            Kind::Link(op) => write!(f, "{place}: {op}"),
            Kind::Route(op) => write!(f, "{place}: {op}"),
            Kind::Entry(op) => write!(f, "{place}: {op}"),
            Kind::Sysctl(Sysctl { name, value }) => write!(f, "{place}: set {name} = {value}"),
            Kind::Ipvs(op) => write!(f, "{place}: {op}"),
            Kind::Nft(op) => write!(f, "{place}: {op}"),
        }
    }
}

impl fmt::Display for LinkOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delete(name) => write!(f, "delete link {name}"),
            Self::Set(name, change) => write!(f, "set {name} {change}"),
        }
    }
}

impl fmt::Display for RouteOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddAddress(link, cidr) => write!(f, "add {cidr} dev {link}"),
            Self::DeleteAddress(link, cidr) => write!(f, "delete {cidr} dev {link}"),
            Self::AddRoute(route) => write!(f, "add route {route}"),
            Self::DeleteRoute(route) => write!(f, "delete route {route}"),
            Self::AddRule(rule) => write!(f, "add rule {rule}"),
            Self::DeleteRule(rule) => write!(f, "delete rule {rule}"),
        }
    }
}

impl fmt::Display for EntryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetFdb(key, Some(vtep)) => write!(f, "set fdb {key} dst {vtep}"),
            Self::SetFdb(key, None) => write!(f, "set fdb {key}"),
            Self::DeleteFdb(key) => write!(f, "delete fdb {key}"),
            Self::SetNeighbour(device, address, mac) => {
                write!(f, "set neigh {address} lladdr {mac} dev {device}")
            }
            Self::DeleteNeighbour(device, address) => {
                write!(f, "delete neigh {address} dev {device}")
            }
        }
    }
}

impl fmt::Display for IpvsOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetService(key, scheduler) => write!(f, "set virtual service {key} {scheduler}"),
            Self::DeleteService(key) => write!(f, "delete virtual service {key}"),
            Self::SetReal(key, address, weight) => {
                write!(f, "set real server {key} -r {address} -g -w {weight}")
            }
            Self::DeleteReal(key, address) => write!(f, "delete real server {key} -r {address}"),
            Self::SetTimeouts(timeouts) => write!(f, "ipvs {timeouts}"),
        }
    }
}

impl fmt::Display for NftOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.table;
        match &self.change {
            NftChange::Load(table) => {
                let sets: usize = table.sets.values().map(|set| set.len()).sum();
                let maps: usize = table.maps.values().map(|map| map.len()).sum();
                write!(f, "load table {key} with {} elements", sets + maps)
            }
            NftChange::Delete => write!(f, "delete table {key}"),
            NftChange::AddElement(set, element) => {
                write!(f, "add element {key} {set} {{ {element} }}")
            }
            NftChange::DeleteElement(set, element) => {
                write!(f, "delete element {key} {set} {{ {element} }}")
            }
            NftChange::SetMapElement { map, key: element, old, new } => {
                let text = |value: &Option<Element>| {
                    value.as_ref().map_or_else(|| "-".to_owned(), Element::to_string)
                };
                let (old, new) = (text(old), text(new));
                write!(f, "set element {key} {map} {{ {element} : {old} -> {new} }}")
            }
        }
    }
}

/// A veth pair by its ends.
struct Veth<'a>((Place, &'a str), (Place, &'a str));

impl fmt::Display for Veth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self((outer_place, outer), (inner_place, inner)) = self;
        write!(f, "veth {outer_place}/{outer} = {inner_place}/{inner}")
    }
}

impl fmt::Display for VethPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (outer, inner) = (&self.outer, &self.inner);
        Veth((outer.0, &outer.1), (inner.0, &inner.1)).fmt(f)
    }
}

impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(true) => f.write_str("up"),
            Self::Up(false) => f.write_str("down"),
            Self::Mtu(mtu) => write!(f, "mtu {mtu}"),
            Self::Mac(mac) => write!(f, "address {mac}"),
            Self::Master(Some(master)) => write!(f, "master {master}"),
            Self::Master(None) => f.write_str("nomaster"),
            Self::Alias(alias) => write!(f, "alias {alias}"),
            Self::Port(flags) => write!(f, "port {flags}"),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            LinkKind::Bridge => f.write_str("bridge")?,
            LinkKind::Vxlan { vni, local, port } => {
                write!(f, "vxlan id {vni} local {local} dstport {port}")?;
            }
            LinkKind::Veth => f.write_str("veth")?,
            LinkKind::Other(kind) => write!(f, "{kind:?}")?,
        }
        write!(f, " {} mtu {}", if self.up { "up" } else { "down" }, self.mtu)?;
        if let Some(mac) = self.mac {
            write!(f, " address {mac}")?;
        }
        if let Some(master) = &self.master {
            write!(f, " master {master}")?;
        }
        if let Some(port) = self.port {
            write!(f, " port {port}")?;
        }
        write!(f, " alias {}", self.alias)
    }
}

impl fmt::Display for PortFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [
            (self.learning, "learning"),
            (self.flood, "flood"),
            (self.hairpin, "hairpin"),
            (self.isolated, "isolated"),
            (self.proxied, "proxied"),
        ];
        let on: Vec<&str> = flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        f.write_str(if on.is_empty() { "plain".to_owned() } else { on.join(",") }.as_str())
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.local {
            f.write_str("local ")?;
        }
        write!(f, "{}", self.destination)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        write!(f, " dev {} table {}", self.device, self.table)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.ipv6 { "-6 " } else { "" };
        write!(f, "{family}pref {} fwmark {} lookup {}", self.priority, self.fwmark, self.table)
    }
}

impl fmt::Display for FdbKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = match self.table {
            FdbTable::Device => "self",
            FdbTable::Bridge => "master",
        };
        write!(f, "{} dev {} {table}", self.mac, self.device)
    }
}

impl fmt::Display for TableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.name(), self.name)
    }
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, space) in &self.spaces {
            writeln!(f, "{place}")?;
            write!(f, "{space}")?;
        }
        self.veths.iter().try_for_each(|pair| writeln!(f, "{pair}"))
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, link) in &self.links {
            writeln!(f, "  link {name}: {link}")?;
        }
        for (link, cidr) in &self.addresses {
            writeln!(f, "  addr {cidr} dev {link}")?;
        }
        for route in &self.routes {
            writeln!(f, "  route {route}")?;
        }
        for rule in &self.rules {
            writeln!(f, "  rule {rule}")?;
        }
        for (key, vtep) in &self.fdb {
            match vtep {
                Some(vtep) => writeln!(f, "  fdb {key} dst {vtep}")?,
                None => writeln!(f, "  fdb {key}")?,
            }
        }
        for ((device, address), mac) in &self.neighbours {
            writeln!(f, "  neigh {address} lladdr {mac} dev {device}")?;
        }
        for (name, value) in &self.sysctls {
            writeln!(f, "  {name} = {value}")?;
        }
        if let Some(timeouts) = self.ipvs_timeouts {
            writeln!(f, "  ipvs {timeouts}")?;
        }
        for (key, service) in &self.ipvs {
            writeln!(f, "  ipvs {key} {}", service.scheduler)?;
            for (address, weight) in &service.real {
                writeln!(f, "    real {address} -g -w {weight}")?;
            }
        }
        for (key, table) in &self.nft {
            writeln!(f, "  table {key} {}", table.digest)?;
            for (name, elements) in &table.sets {
                let elements: Vec<String> = elements.iter().map(Element::to_string).collect();
                writeln!(f, "    set {name} {{ {} }}", elements.join(", "))?;
            }
            for (name, elements) in &table.maps {
                write_map(f, name, elements)?;
            }
        }
        Ok(())
    }
}

fn write_map(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    elements: &BTreeMap<Element, Element>,
) -> fmt::Result {
    if elements.len() > ELEMENTS_SHOWN {
        return writeln!(f, "    map {name}: {} elements", elements.len());
    }
    let elements: Vec<String> = elements.iter().map(|(k, v)| format!("{k} : {v}")).collect();
    writeln!(f, "    map {name} {{ {} }}", elements.join(", "))
}
