//! Planes and operations as text for people: one line each, in the words of `ip`, `bridge` and
//! `nft` where they have words. Golden tests and the `plan` and `dataplane` resources print it.

use std::fmt;

use crate::op::{LinkChange, Op};
use crate::plane::{
    FdbKey, FdbTable, Link, LinkKind, Plane, PortFlags, Route, Rule, Space, TableKey, VethPair,
};

/// Map elements of one map beyond this many are counted, not printed.
const ELEMENTS_SHOWN: usize = 12;

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateSpace(place) => write!(f, "{place}: create namespace"),
            Self::DeleteSpace(place) => write!(f, "{place}: delete namespace"),
            Self::CreateVeth(pair) => write!(f, "create {pair}"),
            Self::CreateLink(place, name, link) => write!(f, "{place}: create {name}: {link}"),
            Self::DeleteLink(place, name) => write!(f, "{place}: delete link {name}"),
            Self::SetLink(place, name, change) => write!(f, "{place}: set {name} {change}"),
            Self::AddAddress(place, link, cidr) => write!(f, "{place}: add {cidr} dev {link}"),
            Self::DeleteAddress(place, link, cidr) => {
                write!(f, "{place}: delete {cidr} dev {link}")
            }
            Self::AddRoute(place, route) => write!(f, "{place}: add route {route}"),
            Self::DeleteRoute(place, route) => write!(f, "{place}: delete route {route}"),
            Self::AddRule(place, rule) => write!(f, "{place}: add rule {rule}"),
            Self::DeleteRule(place, rule) => write!(f, "{place}: delete rule {rule}"),
            Self::SetFdb(place, key, Some(vtep)) => write!(f, "{place}: set fdb {key} dst {vtep}"),
            Self::SetFdb(place, key, None) => write!(f, "{place}: set fdb {key}"),
            Self::DeleteFdb(place, key) => write!(f, "{place}: delete fdb {key}"),
            Self::SetNeighbour(place, device, address, mac) => {
                write!(f, "{place}: set neigh {address} lladdr {mac} dev {device}")
            }
            Self::DeleteNeighbour(place, device, address) => {
                write!(f, "{place}: delete neigh {address} dev {device}")
            }
            Self::SetSysctl(place, name, value) => write!(f, "{place}: set {name} = {value}"),
            Self::SetVirtualService(place, key, scheduler) => {
                write!(f, "{place}: set virtual service {key} {scheduler}")
            }
            Self::DeleteVirtualService(place, key) => {
                write!(f, "{place}: delete virtual service {key}")
            }
            Self::SetRealServer(place, key, address, weight) => {
                write!(f, "{place}: set real server {key} -r {address} -g -w {weight}")
            }
            Self::SetIpvsTimeouts(place, timeouts) => write!(f, "{place}: ipvs {timeouts}"),
            Self::DeleteRealServer(place, key, address) => {
                write!(f, "{place}: delete real server {key} -r {address}")
            }
            Self::LoadTable(place, key, table) => {
                let sets: usize = table.sets.values().map(|set| set.len()).sum();
                let maps: usize = table.maps.values().map(|map| map.len()).sum();
                write!(f, "{place}: load table {key} with {} elements", sets + maps)
            }
            Self::DeleteTable(place, key) => write!(f, "{place}: delete table {key}"),
            Self::AddElement(place, key, set, element) => {
                write!(f, "{place}: add element {key} {set} {{ {element} }}")
            }
            Self::DeleteElement(place, key, set, element) => {
                write!(f, "{place}: delete element {key} {set} {{ {element} }}")
            }
            Self::SetMapElement { place, table, map, key, old, new } => {
                let unset = || "-".to_owned();
                let (old, new) =
                    (old.clone().unwrap_or_else(unset), new.clone().unwrap_or_else(unset));
                write!(f, "{place}: set element {table} {map} {{ {key} : {old} -> {new} }}")
            }
        }
    }
}

impl fmt::Display for VethPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((outer_place, outer), (inner_place, inner)) = (&self.outer, &self.inner);
        write!(f, "veth {outer_place}/{outer} = {inner_place}/{inner}")
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
                let elements: Vec<&str> = elements.iter().map(String::as_str).collect();
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
    elements: &std::collections::BTreeMap<String, String>,
) -> fmt::Result {
    if elements.len() > ELEMENTS_SHOWN {
        return writeln!(f, "    map {name}: {} elements", elements.len());
    }
    let elements: Vec<String> = elements.iter().map(|(k, v)| format!("{k} : {v}")).collect();
    writeln!(f, "    map {name} {{ {} }}", elements.join(", "))
}
