//! What every kernel must hold, worked out from the state and the machines alone: neither gossip's
//! nor netprog's code has a say in it, but for the names of devices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cluster::id::{NetworkId, NodeId};
use cluster::net::MacAddr;
use cluster::object::{Attachment, Network, TaskState};
use cluster::spec::PublishMode;
use netprog::local::Balancer;
use netprog::plane::element::Part;
use netprog::plane::ipvs::VirtualKey;
use netprog::plane::{Family, FdbTable, LinkKind, Place, Space, TableKey};

use crate::sim::network::address;
use crate::sim::pass::balancer;
use crate::sim::world::World;

/// Entries of a fabric: MAC address to VTEP, and address to MAC address.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entries {
    fdb: BTreeMap<MacAddr, Option<IpAddr>>,
    neighbours: BTreeMap<IpAddr, MacAddr>,
}

impl World {
    pub(super) fn compare_kernels(&mut self, found: &mut Vec<String>) {
        let truth = self.true_view();
        for node in self.live_nodes() {
            if let Some((_, assignment)) = self.leader.assignment(node, self.now) {
                let left = self.left_to_do(node, &assignment, &truth);
                found.extend(left.iter().map(|op| format!("node {} should still: {op}", node.0)));
            }
            self.compare_fabrics(node, found);
            self.compare_ports(node, found);
        }
    }

    fn compare_fabrics(&self, node: NodeId, found: &mut Vec<String>) {
        let Some(host) = self.hosts.get(&node) else { return };
        let contents = host.kernel.contents();
        let spaces = &contents.spaces;
        let networks = self.networks_on(node);
        for (id, network) in &networks {
            let Some(space) = spaces.get(&Place::Fabric(*id)) else {
                found.push(format!("node {} lacks the fabric of {}", node.0, network.spec.name));
                continue;
            };
            let (expected, held) = (self.expected_entries(node, *id), entries(space));
            if expected != held {
                let name = &network.spec.name;
                let what = format!("holds {held:?} where {expected:?} is right");
                found.push(format!("node {} network {name}: {what}", node.0));
            }
            self.compare_balancer(node, *id, space, found);
        }
        for place in spaces.keys() {
            if let Place::Fabric(id) = place
                && !networks.contains_key(id)
            {
                found.push(format!("node {} still has the fabric of network {id}", node.0));
            }
        }
    }

    /// Ingress always, and the networks of its own tasks.
    fn networks_on(&self, node: NodeId) -> BTreeMap<NetworkId, &Network> {
        let state = &self.leader.state;
        let tasks = state
            .tasks
            .values()
            .filter(|task| task.node == Some(node) && !task.status.state.is_terminal());
        let attached = tasks.flat_map(|task| task.attachments.iter().map(|held| held.network));
        let ids = attached.chain(state.ingress_network().map(|network| network.id));
        ids.filter_map(|id| Some((id, &**state.networks.get(&id)?))).collect()
    }

    /// One of each kind for every endpoint on another node.
    fn expected_entries(&self, node: NodeId, network: NetworkId) -> Entries {
        let state = &self.leader.state;
        let tasks = state.tasks.values().filter(|task| task.holds_addresses());
        let tasks = tasks.flat_map(|task| task.attachments.iter().map(|held| (task.node, held)));
        let nodes = state.nodes.values();
        let nodes = nodes.filter_map(|node| Some((Some(node.id), node.ingress.as_ref()?)));
        let remote = |(at, held): &(Option<NodeId>, &Attachment)| {
            *at != Some(node) && held.network == network
        };
        let mut entries = Entries::default();
        for (at, held) in tasks.chain(nodes).filter(remote) {
            entries.fdb.insert(held.mac, at.map(|at| address(at).ip()));
            entries.neighbours.extend(held.addresses.iter().map(|at| (at, held.mac)));
        }
        entries
    }

    /// New flows to every virtual address are led to the service's running tasks, to all of them,
    /// and to nothing else; open flows may go on to nobody else either.
    fn compare_balancer(
        &self,
        node: NodeId,
        network: NetworkId,
        space: &Space,
        found: &mut Vec<String>,
    ) {
        let state = &self.leader.state;
        let mut expected: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
        for service in state.live_services() {
            let Some(vips) = service.vips.get(&network) else { continue };
            let running = state.tasks_of(service.id).filter(|task| {
                task.desired <= TaskState::Running && task.status.state == TaskState::Running
            });
            let attachments = running.flat_map(|task| task.attachments.iter());
            let macs = attachments.filter(|held| held.network == network);
            let macs: BTreeSet<String> = macs.map(|held| held.mac.to_string()).collect();
            if !macs.is_empty() {
                expected.extend(vips.iter().map(|vip| (vip, macs.clone())));
            }
        }
        let (open, live) = match balancer(node) {
            Balancer::Nft => balanced_by_nft(space),
            Balancer::Ipvs => balanced_by_ipvs(space),
        };
        for (what, held) in [("new flows", open), ("live backends", live)] {
            if held != expected {
                let what = format!("{what} {held:?} where {expected:?} is right");
                found.push(format!("node {} network {network}: {what}", node.0));
            }
        }
    }

    /// Every published port leads somewhere on every node.
    fn compare_ports(&self, node: NodeId, found: &mut Vec<String>) {
        let Some(host) = self.hosts.get(&node) else { return };
        let ports = self.leader.state.live_services().flat_map(|service| &service.ports);
        let ports = ports.filter(|port| port.mode == PublishMode::Ingress);
        let expected: BTreeSet<String> =
            ports.map(|port| format!("{} . {}", port.protocol.name(), port.published)).collect();
        let key = TableKey { family: Family::Ip, name: "skein".to_owned() };
        let contents = host.kernel.contents();
        let space = contents.spaces.get(&Place::Host);
        let table = space.and_then(|space| space.nft.get(&key));
        let held = table.and_then(|table| table.maps.get("published"));
        let held: BTreeSet<String> =
            held.into_iter().flatten().map(|(key, _)| key.to_string()).collect();
        if held != expected {
            found.push(format!("node {} publishes {held:?}, not {expected:?}", node.0));
        }
    }
}

/// Entries of the VXLAN device. Those of the bridge are the balancer's.
fn entries(space: &Space) -> Entries {
    let is_vxlan = |device: &String| {
        space.links.get(device).is_some_and(|link| matches!(link.kind, LinkKind::Vxlan { .. }))
    };
    let own = space.fdb.iter().filter(|(key, _)| key.table == FdbTable::Device);
    let neighbours = space.neighbours.iter().filter(|((device, _), _)| is_vxlan(device));
    Entries {
        fdb: own.map(|(key, vtep)| (key.mac, *vtep)).collect(),
        neighbours: neighbours.map(|((_, to), mac)| (*to, *mac)).collect(),
    }
}

/// MAC addresses by VIP.
type Led = BTreeMap<IpAddr, BTreeSet<String>>;

/// Where slots lead, and who is live.
fn balanced_by_nft(space: &Space) -> (Led, Led) {
    let key = TableKey { family: Family::Bridge, name: "skein".to_owned() };
    let table = space.nft.get(&key);
    let slots = table.and_then(|table| table.maps.get("slots")).into_iter().flatten();
    let live = table.and_then(|table| table.sets.get("live")).into_iter().flatten();
    let slots = slots.map(|(key, mac)| (key.parts().first(), mac.parts().first()));
    let live = live.map(|element| (element.parts().first(), element.parts().get(1)));
    (by_address(slots), by_address(live))
}

/// Real servers of the service that a VIP's mark leads to, by the bridge's neighbour entries: those
/// with a weight, and all.
fn balanced_by_ipvs(space: &Space) -> (Led, Led) {
    let key = TableKey { family: Family::Ip, name: "skein".to_owned() };
    let marks = space.nft.get(&key).and_then(|table| table.maps.get("marks"));
    let (mut open, mut live) = (Led::new(), Led::new());
    for (vip, mark) in marks.into_iter().flatten() {
        let ([Part::V4(vip)], [Part::Mark(fwmark)]) = (vip.parts(), mark.parts()) else { continue };
        let (vip, fwmark) = (IpAddr::V4(*vip), *fwmark);
        let service = space.ipvs.get(&VirtualKey { ipv6: false, fwmark });
        for (address, weight) in service.into_iter().flat_map(|service| &service.real) {
            let on_bridge = |device: &String| {
                space.links.get(device).is_some_and(|link| link.kind == LinkKind::Bridge)
            };
            let mut neighbours = space.neighbours.iter();
            let found = neighbours.find(|((device, to), _)| to == address && on_bridge(device));
            let mac = found.map_or_else(|| format!("none for {address}"), |(_, m)| m.to_string());
            if *weight > 0 {
                open.entry(vip).or_default().insert(mac.clone());
            }
            live.entry(vip).or_default().insert(mac);
        }
    }
    (open, live)
}

/// MAC addresses by the address that goes with each.
fn by_address<'a>(parts: impl Iterator<Item = (Option<&'a Part>, Option<&'a Part>)>) -> Led {
    let mut found = Led::new();
    for pair in parts {
        if let (Some(Part::V4(address)), Some(Part::Mac(mac))) = pair {
            found.entry(IpAddr::V4(*address)).or_default().insert(mac.to_string());
        }
    }
    found
}
