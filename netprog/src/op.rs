//! Operations on the kernel, as data: planned, printed, tested, applied. One operation is one
//! kernel request (for nft: one line of a transaction).

use std::net::IpAddr;

use cluster::net::MacAddr;
use serde::{Deserialize, Serialize};

use crate::plane::element::Element;
use crate::plane::ipnet_text::Cidr;
use crate::plane::ipvs::{Scheduler, Timeouts, VirtualKey};
use crate::plane::{FdbKey, Link, Place, PortFlags, Route, Rule, Table, TableKey, VethPair};

/// One operation in one namespace (a new veth pair ends in a second one).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Op {
    /// The namespace; of a veth pair its outer end's.
    pub place: Place,
    /// What is done there.
    pub kind: Kind,
}

/// Operations by the kind of kernel object, each with its own planner, model and requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// The namespace itself.
    Space(SpaceOp),
    /// A link that is made.
    NewLink(NewLink),
    /// A link that is there.
    Link(LinkOp),
    /// Addresses, routes and policy rules.
    Route(RouteOp),
    /// Forwarding and neighbour entries.
    Entry(EntryOp),
    /// A sysctl that is written.
    Sysctl(Sysctl),
    /// Virtual services and real servers.
    Ipvs(IpvsOp),
    /// nftables.
    Nft(NftOp),
}

/// A change of a fabric's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SpaceOp {
    /// Make it.
    Create,
    /// Remove it with all that is in it.
    Delete,
}

/// Links to create; this involves more than the namespace that the link will be in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NewLink {
    /// A veth pair with both ends where they belong, down.
    Veth {
        /// Name of the outer end.
        name: String,
        /// Namespace and name of the inner end.
        peer: (Place, String),
    },
    /// A bridge or VXLAN device by name, down, with MTU, MAC address and alias.
    Device(String, Link),
}

/// A change of a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LinkOp {
    /// Remove it (with its peer, if it is a veth).
    Delete(String),
    /// Change one property.
    Set(String, LinkChange),
}

/// A change of addresses, routes and policy rules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RouteOp {
    /// Add an address to a link.
    AddAddress(String, Cidr),
    /// Remove an address of a link.
    DeleteAddress(String, Cidr),
    /// Add or replace a route.
    AddRoute(Route),
    /// Remove a route.
    DeleteRoute(Route),
    /// Add a policy rule.
    AddRule(Rule),
    /// Remove a policy rule.
    DeleteRule(Rule),
}

/// A change of permanent entries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EntryOp {
    /// Add or replace an FDB entry.
    SetFdb(FdbKey, Option<IpAddr>),
    /// Remove an FDB entry.
    DeleteFdb(FdbKey),
    /// Add or replace a neighbour entry of a device.
    SetNeighbour(String, IpAddr, MacAddr),
    /// Remove a neighbour entry of a device.
    DeleteNeighbour(String, IpAddr),
}

/// A sysctl and its new value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sysctl {
    /// Path below /proc/sys.
    pub name: String,
    pub value: String,
}

/// A change of IPVS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum IpvsOp {
    /// Add a virtual service, or give it another scheduler.
    SetService(VirtualKey, Scheduler),
    /// Remove a virtual service with its real servers.
    DeleteService(VirtualKey),
    /// Add a real server by direct routing, or give it another weight.
    SetReal(VirtualKey, IpAddr, u32),
    /// Remove a real server.
    DeleteReal(VirtualKey, IpAddr),
    /// Say how long connections are kept.
    SetTimeouts(Timeouts),
}

/// A change of an nftables table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NftOp {
    pub table: TableKey,
    /// What is done with it.
    pub change: NftChange,
}

/// A change of a table or of an element in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum NftChange {
    /// Load the table whole (replacing one of the same name) with its elements.
    Load(Table),
    /// Remove the table.
    Delete,
    /// Add an element of a set.
    AddElement(String, Element),
    /// Remove an element of a set.
    DeleteElement(String, Element),
    /// Set an element of a map; the old value is given where there is one.
    SetMapElement {
        map: String,
        key: Element,
        /// Value that is there now.
        old: Option<Element>,
        /// Value that should be there; unset: remove.
        new: Option<Element>,
    },
}

impl Kind {
    /// What it is about, as a label of metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Space(_) => "namespace",
            Self::NewLink(_) | Self::Link(_) => "link",
            Self::Route(_) => "route",
            Self::Entry(_) => "entry",
            Self::Sysctl(_) => "sysctl",
            Self::Ipvs(_) => "ipvs",
            Self::Nft(_) => "nft",
        }
    }
}

impl Op {
    /// An operation in a namespace.
    #[inline]
    pub fn new(place: Place, kind: impl Into<Kind>) -> Self {
        Self { place, kind: kind.into() }
    }

    /// A new veth pair.
    #[must_use]
    pub fn veth(pair: VethPair) -> Self {
        let (place, name) = pair.outer;
        Self::new(place, NewLink::Veth { name, peer: pair.inner })
    }

    /// A change of a table.
    #[must_use]
    pub fn nft(place: Place, table: TableKey, change: NftChange) -> Self {
        Self::new(place, NftOp { table, change })
    }

    /// A sysctl that is written.
    #[must_use]
    pub fn sysctl(place: Place, name: String, value: String) -> Self {
        Self::new(place, Sysctl { name, value })
    }

    /// The namespaces that it changes: one, or the two ends of a veth pair.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        match &self.kind {
            Kind::NewLink(NewLink::Veth { peer, .. }) => vec![self.place, peer.0],
            Kind::NewLink(NewLink::Device(..))
            | Kind::Space(_)
            | Kind::Link(_)
            | Kind::Route(_)
            | Kind::Entry(_)
            | Kind::Sysctl(_)
            | Kind::Ipvs(_)
            | Kind::Nft(_) => vec![self.place],
        }
    }
}

impl EntryOp {
    /// Whether it removes an entry.
    #[must_use]
    pub fn deletes(&self) -> bool {
        match self {
            Self::SetFdb(..) | Self::SetNeighbour(..) => false,
            Self::DeleteFdb(_) | Self::DeleteNeighbour(..) => true,
        }
    }
}

macro_rules! kind_from {
    ($($kind:ident($of:ty),)*) => {
        $(impl From<$of> for Kind {
            #[inline]
            fn from(op: $of) -> Self {
                Self::$kind(op)
            }
        })*
    };
}

kind_from! {
    Space(SpaceOp),
    NewLink(NewLink),
    Link(LinkOp),
    Route(RouteOp),
    Entry(EntryOp),
    Sysctl(Sysctl),
    Ipvs(IpvsOp),
    Nft(NftOp),
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
    Alias(String),
    /// Port settings.
    Port(PortFlags),
}
