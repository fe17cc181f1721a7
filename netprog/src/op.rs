//! Operations on the kernel, as data: planned, printed, tested, applied. One operation is one
//! kernel request (for nft: one line of a transaction).

use std::net::IpAddr;

use cluster::net::MacAddr;
use serde::{Deserialize, Serialize};

use crate::plane::ipnet_text::Cidr;
use crate::plane::ipvs::{Scheduler, Timeouts, VirtualKey};
use crate::plane::{FdbKey, Link, Place, PortFlags, Route, Rule, Table, TableKey, VethPair};

/// One operation in one namespace (a veth pair names its own two).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Op {
    /// Make a fabric's namespace.
    CreateSpace(Place),
    /// Remove a fabric's namespace with all that is in it.
    DeleteSpace(Place),
    /// Make a veth pair with both ends where they belong, down.
    CreateVeth(VethPair),
    /// Make a bridge or VXLAN device, down, with MTU, MAC address and alias.
    CreateLink(Place, String, Link),
    /// Remove a link (a veth takes its peer along).
    DeleteLink(Place, String),
    /// Change one property of a link.
    SetLink(Place, String, LinkChange),
    /// Add an address.
    AddAddress(Place, String, Cidr),
    /// Remove an address.
    DeleteAddress(Place, String, Cidr),
    /// Add or replace a route.
    AddRoute(Place, Route),
    /// Remove a route.
    DeleteRoute(Place, Route),
    /// Add a policy rule.
    AddRule(Place, Rule),
    /// Remove a policy rule.
    DeleteRule(Place, Rule),
    /// Add or replace a permanent FDB entry.
    SetFdb(Place, FdbKey, Option<IpAddr>),
    /// Remove an FDB entry.
    DeleteFdb(Place, FdbKey),
    /// Add or replace a permanent neighbour entry.
    SetNeighbour(Place, String, IpAddr, MacAddr),
    /// Remove a neighbour entry.
    DeleteNeighbour(Place, String, IpAddr),
    /// Write a sysctl.
    SetSysctl(Place, String, String),
    /// Add a virtual service of IPVS, or give it another scheduler.
    SetVirtualService(Place, VirtualKey, Scheduler),
    /// Remove a virtual service with its real servers.
    DeleteVirtualService(Place, VirtualKey),
    /// Add a real server by direct routing, or give it another weight.
    SetRealServer(Place, VirtualKey, IpAddr, u32),
    /// Remove a real server.
    DeleteRealServer(Place, VirtualKey, IpAddr),
    /// Say how long IPVS keeps connections.
    SetIpvsTimeouts(Place, Timeouts),
    /// Load a table whole (replacing one of the same name) with its elements.
    LoadTable(Place, TableKey, Table),
    /// Remove a table.
    DeleteTable(Place, TableKey),
    /// Add an element of a set.
    AddElement(Place, TableKey, String, String),
    /// Remove an element of a set.
    DeleteElement(Place, TableKey, String, String),
    /// Set an element of a map; the old value is given where there is one.
    SetMapElement {
        /// Namespace.
        place: Place,
        /// Table.
        table: TableKey,
        /// Map.
        map: String,
        /// Key.
        key: String,
        /// Value that is there now.
        old: Option<String>,
        /// Value that should be there; unset: remove.
        new: Option<String>,
    },
}

impl Op {
    /// The namespaces that it changes: one, or the two ends of a veth pair.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        match self {
            Self::CreateVeth(pair) => vec![pair.outer.0, pair.inner.0],
            Self::CreateSpace(place)
            | Self::DeleteSpace(place)
            | Self::CreateLink(place, ..)
            | Self::DeleteLink(place, _)
            | Self::SetLink(place, ..)
            | Self::AddAddress(place, ..)
            | Self::DeleteAddress(place, ..)
            | Self::AddRoute(place, _)
            | Self::DeleteRoute(place, _)
            | Self::AddRule(place, _)
            | Self::DeleteRule(place, _)
            | Self::SetFdb(place, ..)
            | Self::DeleteFdb(place, _)
            | Self::SetNeighbour(place, ..)
            | Self::DeleteNeighbour(place, ..)
            | Self::SetSysctl(place, ..)
            | Self::SetVirtualService(place, ..)
            | Self::DeleteVirtualService(place, _)
            | Self::SetRealServer(place, ..)
            | Self::DeleteRealServer(place, ..)
            | Self::SetIpvsTimeouts(place, _)
            | Self::LoadTable(place, ..)
            | Self::DeleteTable(place, _)
            | Self::AddElement(place, ..)
            | Self::DeleteElement(place, ..)
            | Self::SetMapElement { place, .. } => vec![*place],
        }
    }
}

/// One property of a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LinkChange {
    /// Up or down.
    Up(bool),
    /// MTU in bytes.
    Mtu(u32),
    /// MAC address.
    Mac(MacAddr),
    /// Bridge to be a port of.
    Master(Option<String>),
    /// Alias.
    Alias(String),
    /// Port settings.
    Port(PortFlags),
}
