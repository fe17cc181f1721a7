//! Turns a node's assignment into the desired state of its kernel. All policy is here.
//!
//! The structure of an nft table depends only on what is fixed for the life of a network or a task.
//! Everything that changes is an element of a set or map, so that a change never reloads a table.

mod bridge_port;
pub(crate) mod cluster_ports;
mod egress;
mod host;
mod ingress;
mod overlay;
mod ports;
mod sandbox;
pub(crate) mod senders;
mod service;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster::assignment::{AssignedNetwork, AssignedTask, Assignment};
use cluster::id::{NetworkId, TaskId};
use cluster::net::Subnet;
use cluster::view::View;

use crate::endpoint::Directory;
use crate::local::{Local, LocalSandbox};
use crate::plane::ipnet_text::Cidr;
use crate::plane::{Place, Plane, Route, TABLE_LOCAL, TABLES, Table};

pub use ports::{BOUND, PUBLISHED, published, withhold};
pub(crate) use service::{LoadBalancer, balancer, behind, virtual_service};

/// Bytes that VXLAN adds to a frame over IPv4 (RFC 7348 section 5: outer Ethernet is not counted
/// by the MTU, the inner one is: 20 + 8 + 8 + 14).
pub const OVERHEAD_V4: u32 = 50;
/// The same over IPv6.
pub const OVERHEAD_V6: u32 = 70;
/// The least that IPv4 allows (RFC 791 section 3.2); a smaller one is refused by the kernel.
const MTU_MIN: u32 = 68;
/// Smaller underlay MTUs of other nodes are ignored: one faulty link would reduce the MTU of all
/// networks. It is the least that IPv6 allows (RFC 8200, section 5).
const UNDERLAY_MTU_MIN: u32 = 1280;
/// The egress bridge on every node.
pub const GWBRIDGE: &str = "skein_gwbridge";
/// The host's own end of the ingress network.
pub const INGRESS_LINK: &str = "ing0";
/// The name of most of Skein's tables, one for each family and namespace. A bridge has a second
/// table that restricts senders (`senders.rs`).
pub const TABLE: &str = TABLES[0];

/// What the node's kernel should hold. Sandboxes appear once they exist; networks are programmed
/// with or without tasks.
#[must_use]
pub fn render(assignment: &Assignment, view: &View, local: &Local) -> Plane {
    let scene = Scene {
        assignment,
        local,
        directory: Directory::new(assignment, view),
        balancer: balancer(local.balancer),
    };
    let mut plane = Plane::default();
    host::render(&scene, &mut plane);
    for (id, network) in &assignment.networks {
        overlay::render(&scene, *id, network, &mut plane);
        if network.ingress {
            ingress::attach_host(&scene, *id, network, &mut plane);
        }
    }
    for (task, sandbox) in scene.sandboxes() {
        sandbox::render(&scene, &task, sandbox, &mut plane);
    }
    plane
}

/// Everything that rendering reads.
struct Scene<'a> {
    assignment: &'a Assignment,
    local: &'a Local,
    directory: Directory,
    balancer: &'static dyn LoadBalancer,
}

/// A task of this node whose sandbox exists.
struct LocalTask<'a> {
    id: TaskId,
    assigned: &'a AssignedTask,
}

impl LocalTask<'_> {
    /// The link in its sandbox: attachments in order, then egress.
    fn link(index: usize) -> String {
        format!("eth{index}")
    }

    fn outer(&self) -> String {
        outer(self.id)
    }
}

/// The outer end of a task's veth pairs. One name serves all of them, because each is in another
/// namespace.
pub(crate) fn outer(task: TaskId) -> String {
    format!("ve-{}", &task.to_string()[..12])
}

impl<'a> Scene<'a> {
    fn sandboxes(&self) -> impl Iterator<Item = (LocalTask<'a>, &'a LocalSandbox)> {
        let (assignment, local) = (self.assignment, self.local);
        local.sandboxes.iter().filter_map(move |(id, sandbox)| {
            let assigned = assignment.tasks.get(id).filter(|t| t.node == assignment.node)?;
            Some((LocalTask { id: *id, assigned }, sandbox))
        })
    }

    /// The cluster's ingress network.
    fn ingress(&self) -> Option<(NetworkId, &'a AssignedNetwork)> {
        self.assignment.networks.iter().find(|(_, n)| n.ingress).map(|(id, n)| (*id, n))
    }

    /// MTU of an overlay network's links: one for all its nodes.
    fn mtu(&self, network: &AssignedNetwork) -> u32 {
        self.overlay_mtu(network.underlay_mtu.unwrap_or(self.underlay_mtu()))
    }

    /// The smallest underlay MTU of all nodes; this node's own value is the newest here.
    fn underlay_mtu(&self) -> u32 {
        let others = self.assignment.nodes.iter().filter(|(id, _)| **id != self.assignment.node);
        let others = others.filter_map(|(_, node)| node.underlay_mtu);
        let others = others.filter(|mtu| *mtu >= UNDERLAY_MTU_MIN);
        others.fold(self.local.underlay_mtu, u32::min)
    }

    fn overlay_mtu(&self, underlay_mtu: u32) -> u32 {
        let overhead = if self.local.vtep.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 };
        underlay_mtu.saturating_sub(overhead).max(MTU_MIN)
    }
}

/// Name of a network's bridge: fits the kernel's 15 characters.
#[must_use]
pub fn bridge_name(id: NetworkId, network: &AssignedNetwork) -> String {
    format!("ov-{:06x}-{}", network.vni.get(), id.short())
}

/// Name of a network's VXLAN device.
#[must_use]
pub fn vxlan_name(id: NetworkId, network: &AssignedNetwork) -> String {
    format!("vx-{:06x}-{}", network.vni.get(), id.short())
}

/// The route with which a bridge answers for an IPv4 VIP; an IPv6 VIP needs an address instead.
pub(crate) fn vip_route(vip: IpAddr) -> Option<Route> {
    vip.is_ipv4().then(|| Route {
        table: TABLE_LOCAL,
        destination: exactly(vip),
        local: true,
        via: None,
        device: "lo".to_owned(),
    })
}

/// A fabric's place.
fn fabric(id: NetworkId) -> Place {
    Place::Fabric(id)
}

fn within(address: IpAddr, subnet: Subnet) -> Cidr {
    Cidr { address, prefix_len: subnet.prefix_len() }
}

/// An address of a link to a network, with the prefix that is reached by it.
fn on(network: &AssignedNetwork, address: IpAddr) -> Cidr {
    network.subnets.like(address).map_or(exactly(address), |subnet| within(address, subnet))
}

fn exactly(address: IpAddr) -> Cidr {
    Cidr { address, prefix_len: if address.is_ipv4() { 32 } else { 128 } }
}

fn everywhere(family_of: IpAddr) -> Cidr {
    let address = if family_of.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    Cidr { address, prefix_len: 0 }
}

/// A table from its structure and the names of its static sets and maps, which must be there even
/// while they are empty: only named ones are observed.
fn table(structure: String, sets: &[&str], maps: &[&str]) -> Table {
    Table {
        digest: digest(&structure),
        structure,
        sets: sets.iter().map(|name| ((*name).to_owned(), Default::default())).collect(),
        maps: maps.iter().map(|name| ((*name).to_owned(), BTreeMap::new())).collect(),
    }
}

/// Identifies a structure: FNV-1a, 64 bits (draft-eastlake-fnv); not cryptographic.
fn digest(structure: &str) -> String {
    let hash = structure.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}
