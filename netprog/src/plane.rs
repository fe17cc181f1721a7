//! One shape for desired and observed: a set of network namespaces, each with its links,
//! addresses, routes, forwarding entries, sysctls, virtual services and nftables.
//!
//! Fabrics and sandboxes belong to Skein entirely. In the host namespace a plane contains only
//! marked objects: links whose alias starts with `skein:`, addresses, routes and entries on those
//! links, and nft tables whose name starts with `skein`.

pub mod element;
pub mod ipvs;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use cluster::id::{NetworkId, TaskId};
use cluster::net::{MacAddr, Vni};
use serde::{Deserialize, Serialize};

use element::Element;
use ipvs::{Timeouts, VirtualEntry, VirtualKey};

/// Alias prefix of every link that we make: `skein:<what it belongs to>`.
pub const ALIAS_PREFIX: &str = "skein:";
/// Name prefix of every nft table that we make: tables with it are read.
pub const TABLE_PREFIX: &str = "skein";
/// Names of the tables that we make: only these are removed, because an operator may have others.
pub const TABLES: [&str; 2] = ["skein", "skein-senders"];

/// The kernel's main routing table.
pub const TABLE_MAIN: u32 = 254;
/// The kernel's routing table of local addresses.
pub const TABLE_LOCAL: u32 = 255;

/// A network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Place {
    /// The node's own.
    Host,
    /// A network's, on this node.
    Fabric(NetworkId),
    /// A task's.
    Sandbox(TaskId),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Fabric(network) => write!(f, "fabric-{network}"),
            Self::Sandbox(task) => write!(f, "sandbox-{task}"),
        }
    }
}

/// The kernel state of a node that belongs to Skein.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Plane {
    /// Namespaces. Observed: those that exist. Desired: fabrics to make and keep; sandboxes exist
    /// already, their supervisors made them.
    pub spaces: BTreeMap<Place, Space>,
    /// Veth pairs; only desired. In an observed plane each end is a link of kind `Veth`.
    pub veths: BTreeSet<VethPair>,
}

/// The two ends of a veth pair.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VethPair {
    /// The end in a fabric, or on the host for egress.
    pub outer: (Place, String),
    /// The end in a sandbox, or on the host for `ing0`.
    pub inner: (Place, String),
}

/// One namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Space {
    /// Links by name; `lo` is not listed (it is always up in namespaces that we make).
    pub links: BTreeMap<String, Link>,
    /// Addresses: link and address with prefix length.
    pub addresses: BTreeSet<(String, ipnet_text::Cidr)>,
    /// Routes that do not follow from addresses.
    pub routes: BTreeSet<Route>,
    /// Policy rules.
    pub rules: BTreeSet<Rule>,
    /// Permanent FDB entries by device, MAC and which table they are in; the value is the VTEP of
    /// an entry of the VXLAN device itself.
    pub fdb: BTreeMap<FdbKey, Option<IpAddr>>,
    /// Permanent neighbour entries by device and address.
    pub neighbours: BTreeMap<(String, IpAddr), MacAddr>,
    /// Sysctls by path below /proc/sys; observed planes hold those that the desired one names.
    pub sysctls: BTreeMap<String, String>,
    /// Virtual services of IPVS; in fabrics only.
    pub ipvs: BTreeMap<VirtualKey, VirtualEntry>,
    /// Its timeouts, where they are not the kernel's own.
    pub ipvs_timeouts: Option<Timeouts>,
    /// nftables.
    pub nft: BTreeMap<TableKey, Table>,
}

impl Space {
    /// Entries of a MAC address in tables of bridges.
    pub(crate) fn in_bridges(&self, mac: MacAddr) -> impl Iterator<Item = &FdbKey> {
        let table = FdbTable::Bridge;
        let least = FdbKey { mac, table, device: String::new() };
        let keys = self.fdb.range(least..).map(|(key, _)| key);
        keys.take_while(move |key| key.mac == mac && key.table == table)
    }

    /// Routes to a destination in a table.
    pub(crate) fn routes_to(
        &self,
        table: u32,
        destination: ipnet_text::Cidr,
    ) -> impl Iterator<Item = &Route> {
        let least = Route { table, destination, local: false, via: None, device: String::new() };
        let routes = self.routes.range(least..);
        routes.take_while(move |route| route.table == table && route.destination == destination)
    }

    /// Whether a link has an IPv4 address.
    pub(crate) fn has_ipv4(&self, link: &str) -> bool {
        let address = IpAddr::from([0; 4]);
        let least = (link.to_owned(), ipnet_text::Cidr { address, prefix_len: 0 });
        let first = self.addresses.range(least..).next();
        first.is_some_and(|(of, cidr)| of == link && cidr.address.is_ipv4())
    }
}

/// An address with its prefix length, as text and as numbers.
pub mod ipnet_text {
    use std::fmt;
    use std::net::IpAddr;

    use serde::{Deserialize, Serialize};

    /// `10.0.9.3/24`: host bits are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    pub struct Cidr {
        pub address: IpAddr,
        /// Bits of the prefix.
        pub prefix_len: u8,
    }

    impl fmt::Display for Cidr {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}/{}", self.address, self.prefix_len)
        }
    }
}

/// A link. The name is the key in [`Space::links`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    /// What it is; a link of another kind is replaced.
    pub kind: LinkKind,
    /// Administratively up.
    pub up: bool,
    /// Bytes.
    pub mtu: u32,
    /// MAC address; unset in a desired plane: the kernel's choice.
    pub mac: Option<MacAddr>,
    /// The bridge that it is a port of.
    pub master: Option<String>,
    /// `skein:<owner>`.
    pub alias: String,
    /// Settings of a bridge port.
    pub port: Option<PortFlags>,
}

/// What a link is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LinkKind {
    /// A bridge without multicast snooping.
    Bridge,
    /// VXLAN: `nolearning proxy`, made in the host namespace so that its socket stays on the
    /// underlay, then moved.
    Vxlan {
        /// Network identifier.
        vni: Vni,
        /// Underlay address.
        local: IpAddr,
        /// UDP port.
        port: u16,
    },
    /// One end of a veth pair.
    Veth,
    /// Anything else that carries our alias: only observed.
    Other(String),
}

/// Settings of a bridge port (`IFLA_BRPORT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortFlags {
    /// Learns source addresses.
    pub learning: bool,
    /// Floods unknown unicast to it.
    pub flood: bool,
    /// May send a frame back where it came from: a backend that calls its own VIP.
    pub hairpin: bool,
    /// Cannot reach other isolated ports: the egress bridge does not join tasks.
    pub isolated: bool,
    /// Does not receive ARP requests for addresses behind it: the bridge answers from its own
    /// neighbour table (`proxy_arp_wifi`).
    pub proxied: bool,
}

/// A route. Ordered by table and destination first: Skein has at most one for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// Table, such as [`TABLE_MAIN`].
    pub table: u32,
    /// Destination; 0.0.0.0/0 is the default route.
    pub destination: ipnet_text::Cidr,
    /// True for `ip route add local … dev lo`.
    pub local: bool,
    /// Next hop.
    pub via: Option<IpAddr>,
    pub device: String,
}

/// A policy rule: packets with this mark use that table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// Preference; lower is earlier.
    pub priority: u32,
    /// Mark.
    pub fwmark: u32,
    pub table: u32,
    /// IPv6 rule.
    pub ipv6: bool,
}

/// Names an FDB entry. Ordered by MAC address first: a bridge has one entry for each address, so
/// the entry to replace can be found although it leads to another port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FdbKey {
    /// MAC address.
    pub mac: MacAddr,
    /// In the device's own table, or in its bridge's.
    pub table: FdbTable,
    /// The VXLAN device or the bridge port.
    pub device: String,
}

/// Which table an FDB entry is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FdbTable {
    /// `self`: MAC → VTEP, on the VXLAN device.
    Device,
    /// `master static`: MAC → bridge port.
    Bridge,
}

/// Names an nft table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableKey {
    /// `ip`, `ip6`, `inet` or `bridge`.
    pub family: Family,
    /// Begins with [`TABLE_PREFIX`].
    pub name: String,
}

impl TableKey {
    /// Whether the table restricts who may send VXLAN to the host: those of family `inet` do.
    #[must_use]
    pub fn guards_vxlan(&self) -> bool {
        self.family == Family::Inet
    }
}

/// nft address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
    /// Bridged frames.
    Bridge,
}

impl Family {
    /// As in nft scripts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        }
    }
}

/// An nft table: fixed structure and changing elements. The structure is loaded once in one
/// transaction; its digest is kept in the table's comment, which is how it is observed.
/// Elements are compared and changed one by one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
pub struct Table {
    /// Digest of `structure`; all that an observed plane knows of it.
    pub digest: String,
    /// Declarations of sets, maps and chains between the braces of `table … { }`; empty in an
    /// observed plane.
    pub structure: String,
    /// Elements of static sets: set name → elements.
    pub sets: BTreeMap<String, BTreeSet<Element>>,
    /// Elements of static maps: map name → key → value.
    pub maps: BTreeMap<String, BTreeMap<Element, Element>>,
}
