//! From the sandbox to the backend: VIP, slots, forwarding entries.

use std::net::IpAddr;

use cluster::assignment::AssignedNetwork;
use cluster::id::{NetworkId, ServiceId};
use cluster::net::MacAddr;
use cluster::object::Attachment;
use cluster::view::{EndpointOwner, Liveness};

use super::{Entry, Hop, Scene};
use crate::endpoint::{Endpoint, open};
use crate::plane::element::Element;
use crate::plane::{Family, FdbKey, FdbTable, Place, Space, Table, TableKey};
use crate::render::{
    TABLE, balancer, behind, bridge_name, cluster_ports, outer, senders, vip_route,
    virtual_service, vxlan_name,
};

impl Scene<'_> {
    fn space(&self, place: Place) -> Option<&Space> {
        self.call.observed.spaces.get(&place)
    }

    fn table(&self, place: Place, family: Family) -> Option<&Table> {
        let key = TableKey { family, name: TABLE.to_owned() };
        self.space(place)?.nft.get(&key)
    }

    fn entry(&self, place: Place, entry: String, present: bool) -> Entry {
        Entry { place: place.to_string(), entry, present }
    }

    /// Queries to 127.0.0.11 only arrive where this table is.
    pub(super) fn dns_redirect(&self) -> Vec<Entry> {
        let place = Place::Sandbox(self.call.from);
        let present = self.table(place, Family::Ip).is_some_and(|table| !table.digest.is_empty());
        vec![self.entry(place, format!("table ip {TABLE}: dns redirect"), present)]
    }

    fn network(&self, id: NetworkId) -> Option<&AssignedNetwork> {
        self.call.assignment.networks.get(&id)
    }

    fn node_name(&self, endpoint: &Endpoint) -> String {
        let node = self.call.assignment.nodes.get(&endpoint.node);
        node.map_or_else(|| endpoint.node.to_string(), |node| node.name.clone())
    }

    fn name(&self, endpoint: &Endpoint) -> String {
        let task = endpoint.task().and_then(|id| self.call.assignment.tasks.get(&id));
        match (task, endpoint.owner) {
            (Some(task), _) => {
                let suffix = endpoint.task().map(|id| format!(".{id}")).unwrap_or_default();
                task.name.strip_suffix(&suffix).unwrap_or(&task.name).to_owned()
            }
            (None, EndpointOwner::Task(id)) => id.to_string(),
            (None, EndpointOwner::Node(_)) => format!("{}'s ing0", self.node_name(endpoint)),
        }
    }

    /// The caller's bridge port, which accepts only what the caller may send.
    pub(super) fn port(&self, attachment: &Attachment) -> Hop {
        let place = Place::Fabric(attachment.network);
        let Attachment { addresses, mac, .. } = attachment;
        let port = outer(self.call.from);
        let none = Space::default();
        let fabric = self.space(place).unwrap_or(&none);
        let entry = |address| {
            let (entry, present) = senders::evidence(fabric, &port, *mac, address);
            self.entry(place, entry, present)
        };
        let summary = format!("it sends by {port}, from {addresses} and {mac} only");
        Hop::checked("port", summary, addresses.iter().map(entry).collect())
    }

    /// A call to a VIP.
    pub(super) fn balance(
        &self,
        id: NetworkId,
        service: ServiceId,
        vip: IpAddr,
        hops: &mut Vec<Hop>,
    ) {
        let Some(network) = self.network(id) else { return };
        let place = Place::Fabric(id);
        let name = self.call.assignment.services.get(&service).map_or("", |s| s.name.as_str());
        hops.push(self.vip(id, network, vip, name));
        let by_service = self.directory.by_service(id);
        let endpoints = behind(vip, by_service.get(&service).map_or(&[], Vec::as_slice));
        let candidates = open(endpoints.iter().copied());
        if candidates.is_empty() {
            hops.push(Hop::failed("backend", self.nobody(name, &endpoints)));
            return;
        }
        let none = Space::default();
        let fabric = self.space(place).unwrap_or(&none);
        let service = virtual_service(vip, &endpoints);
        let shares = balancer(self.call.balancer).shares(fabric, &service);
        let mut entries = Vec::new();
        let mut words = Vec::new();
        for (endpoint, (share, evidence)) in candidates.iter().zip(shares) {
            let node = self.node_name(endpoint);
            words.push(format!("{} on {node} ({share})", self.name(endpoint)));
            entries.extend(evidence.into_iter().map(|(e, there)| self.entry(place, e, there)));
        }
        let summary = format!("by the caller's port, one of {}", words.join(", "));
        hops.push(Hop::checked("backend", summary, entries));
        for endpoint in candidates {
            let Some(address) = endpoint.addresses.like(vip) else { continue };
            hops.push(self.path(id, network, (endpoint, address)));
            hops.extend(self.arrival((endpoint, address), vip));
        }
    }

    fn vip(&self, id: NetworkId, network: &AssignedNetwork, vip: IpAddr, name: &str) -> Hop {
        let place = Place::Fabric(id);
        let bridge = bridge_name(id, network);
        let mut entries = Vec::new();
        if let Some(route) = vip_route(vip) {
            let present = self.space(place).is_some_and(|space| space.routes.contains(&route));
            entries.push(self.entry(place, format!("route {route}"), present));
        }
        let none = Space::default();
        let fabric = self.space(place).unwrap_or(&none);
        let (text, taken) = balancer(self.call.balancer).takes(fabric, vip);
        entries.push(self.entry(place, text, taken));
        let summary = format!(
            "{} is the VIP of {name} on {}: {bridge} of this node answers for it",
            self.target(vip),
            network.name
        );
        Hop::checked("vip", summary, entries)
    }

    /// Why a service has no backend.
    fn nobody(&self, name: &str, endpoints: &[&Endpoint]) -> String {
        let reason = |endpoint: &&Endpoint| {
            let why = match (endpoint.healthy, endpoint.draining) {
                (None, _) => "not up",
                (Some(_), true) => "stopping",
                (Some(false), false) => "not healthy",
                (Some(true), false) => "hidden",
            };
            format!("{} is {why}", self.name(endpoint))
        };
        let reasons: Vec<String> = endpoints.iter().map(reason).collect();
        if reasons.is_empty() {
            format!("{name} has no task: the call is refused")
        } else {
            format!("no task of {name} takes new flows: {}", reasons.join(", "))
        }
    }

    /// A call to a task's own address.
    pub(super) fn direct(&self, id: NetworkId, address: IpAddr, hops: &mut Vec<Hop>) {
        let Some(network) = self.network(id) else { return };
        let found =
            self.directory.of(id).iter().find(|endpoint| endpoint.addresses.contains(address));
        hops.push(match found {
            Some(endpoint) => self.path(id, network, (endpoint, address)),
            None => Hop::failed("path", format!("nothing has {address} on {}", network.name)),
        });
    }

    /// The way through the fabric.
    fn path(
        &self,
        id: NetworkId,
        network: &AssignedNetwork,
        (endpoint, address): (&Endpoint, IpAddr),
    ) -> Hop {
        let place = Place::Fabric(id);
        let (name, node) = (self.name(endpoint), self.node_name(endpoint));
        if endpoint.node == self.call.assignment.node {
            let port = self.local_port(place, endpoint);
            let device = port.unwrap_or("its veth");
            let text = format!("fdb {} dev {device} master", endpoint.mac);
            let bridge = bridge_name(id, network);
            let entries = vec![
                self.entry(place, text, port.is_some()),
                self.neighbour(place, &bridge, (endpoint.mac, address)),
            ];
            let summary = format!("{name} is on this node: by {device} into its sandbox");
            return Hop::checked("path", summary, entries);
        }
        let assigned = self.call.assignment.nodes.get(&endpoint.node);
        let Some(vtep) = assigned.map(|node| node.vtep) else {
            return Hop::failed("path", format!("the VTEP of {node} is not known"));
        };
        let device = vxlan_name(id, network);
        let key = |table| FdbKey { device: device.clone(), mac: endpoint.mac, table };
        let space = self.space(place);
        let fdb = |key: &FdbKey| space.and_then(|space| space.fdb.get(key));
        let (own, bridge) = (key(FdbTable::Device), key(FdbTable::Bridge));
        let none = Space::default();
        let (taken, is_taken) =
            cluster_ports::evidence(self.space(Place::Host).unwrap_or(&none), vtep);
        let entries = vec![
            self.entry(place, format!("fdb {own} dst {vtep}"), fdb(&own) == Some(&Some(vtep))),
            self.entry(place, format!("fdb {bridge}"), fdb(&bridge).is_some()),
            self.neighbour(place, &device, (endpoint.mac, address)),
            self.entry(Place::Host, taken, is_taken),
        ];
        let liveness = match self.call.view.liveness.get(&endpoint.node) {
            Some(Liveness::Alive) => "alive",
            Some(Liveness::Suspect) => "suspect",
            Some(Liveness::Down) => "down",
            None => "unknown to gossip",
        };
        let summary =
            format!("{name} at {address}: by {device} to {node}'s VTEP {vtep} ({liveness})");
        Hop::checked("path", summary, entries)
    }

    /// The entry from which ARP is answered for the endpoint.
    fn neighbour(&self, place: Place, device: &str, (mac, address): (MacAddr, IpAddr)) -> Entry {
        let neighbours = self.space(place).map(|space| &space.neighbours);
        let held = neighbours.and_then(|held| held.get(&(device.to_owned(), address)));
        let text = format!("neigh {address} lladdr {mac} dev {device}");
        self.entry(place, text, held == Some(&mac))
    }

    /// The port of this node's bridge that leads to the endpoint.
    fn local_port(&self, place: Place, endpoint: &Endpoint) -> Option<&str> {
        let fdb = &self.space(place)?.fdb;
        let mut ports =
            fdb.keys().filter(|key| key.mac == endpoint.mac && key.table == FdbTable::Bridge);
        ports.next().map(|key| key.device.as_str())
    }

    /// The rewriting in a local backend's sandbox; a remote one's is its own node's to show.
    fn arrival(&self, (endpoint, address): (&Endpoint, IpAddr), vip: IpAddr) -> Option<Hop> {
        let task = endpoint.task().filter(|_| endpoint.node == self.call.assignment.node)?;
        let place = Place::Sandbox(task);
        let family = if vip.is_ipv4() { Family::Ip } else { Family::Ip6 };
        let own = self.table(place, family).and_then(|table| table.maps.get("own"));
        let element = Element::of([address.into()]);
        let present = own.and_then(|own| own.get(&Element::of([vip.into()]))) == Some(&element);
        let text = format!("own {{ {vip} : {address} }}");
        let summary = format!(
            "{} takes {vip} for its own {address} and answers as the VIP",
            self.name(endpoint)
        );
        Some(Hop::checked("arrival", summary, vec![self.entry(place, text, present)]))
    }
}
