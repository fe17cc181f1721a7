//! The names of every network that the node is on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cluster::assignment::{AssignedService, Assignment};
use cluster::id::{NetworkId, TaskId};
use cluster::net::{Addresses, Subnets};
use cluster::object::{Attachment, Slot};
use cluster::view::View;

use super::TASKS_PREFIX;
use crate::endpoint::{Directory, Endpoint, named};

/// Characters of a task's id that serve as its short name: its host name.
const SHORT_ID_CHARS: usize = 12;

/// All names that a node serves, at one assignment and view.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Zone {
    networks: BTreeMap<NetworkId, Names>,
    /// The networks of each task of this node, in the order of its attachments.
    askers: BTreeMap<TaskId, Vec<NetworkId>>,
    /// The tasks that are on at least one network, all of them internal.
    confined: BTreeSet<TaskId>,
}

/// The names of one network, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Names {
    /// The network's own name, an optional suffix of all others: `<name>.<network>`.
    network: String,
    subnets: Subnets,
    forward: BTreeMap<String, BTreeSet<IpAddr>>,
    reverse: BTreeMap<IpAddr, String>,
    /// Names that stand for a service.
    services: BTreeMap<String, Service>,
}

/// The data of a service that SRV needs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    /// Protocol and label of a published port → the port that tasks listen on.
    ports: BTreeMap<(String, String), u16>,
    /// Names of its hosts.
    targets: Vec<String>,
}

impl Zone {
    /// The zone of an assignment and a view.
    #[must_use]
    pub fn build(assignment: &Assignment, view: &View) -> Self {
        let directory = Directory::new(assignment, view);
        let named = assignment.networks.iter().filter(|(_, network)| !network.ingress);
        let networks: BTreeMap<NetworkId, Names> =
            named.map(|(id, _)| (*id, Names::build(assignment, &directory, *id))).collect();
        let own = assignment.tasks.iter().filter(|(_, task)| task.node == assignment.node);
        let is_internal = |held: &Attachment| {
            assignment.networks.get(&held.network).is_some_and(|network| network.internal)
        };
        let confined = own
            .clone()
            .filter(|(_, task)| {
                !task.attachments.is_empty() && task.attachments.iter().all(is_internal)
            })
            .map(|(id, _)| *id)
            .collect();
        let askers = own
            .map(|(id, task)| {
                let attached = task.attachments.iter().map(|a| a.network);
                (*id, attached.filter(|network| networks.contains_key(network)).collect())
            })
            .collect();
        Self { networks, askers, confined }
    }

    /// Whether the asker may resolve only names of its networks. This includes an asker that is
    /// unknown, because its networks are unknown too.
    pub(super) fn confines(&self, asker: TaskId) -> bool {
        self.confined.contains(&asker) || !self.askers.contains_key(&asker)
    }

    fn of(&self, asker: TaskId) -> impl Iterator<Item = &Names> {
        let networks = self.askers.get(&asker).map_or(&[][..], Vec::as_slice);
        networks.iter().filter_map(|network| self.networks.get(network))
    }

    /// The addresses of the name, on each of the asker's networks that has it.
    pub(super) fn lookup<'a>(
        &'a self,
        asker: TaskId,
        name: &'a str,
    ) -> impl Iterator<Item = &'a BTreeSet<IpAddr>> {
        self.of(asker).filter_map(move |names| names.find(&names.forward, name))
    }

    /// The name of an address: `None` if it is not of the asker's networks.
    pub(super) fn name_of(&self, asker: TaskId, address: IpAddr) -> Option<Option<String>> {
        let mut networks =
            self.of(asker).filter(|names| names.subnets.contains(address)).peekable();
        networks.peek()?;
        Some(networks.find_map(|names| names.reverse.get(&address).cloned()))
    }

    /// Port and hosts of a service's port by number or label.
    pub(super) fn service(
        &self,
        asker: TaskId,
        name: &str,
        port: &str,
        protocol: &str,
    ) -> Option<(u16, &[String])> {
        let mut found =
            self.of(asker).filter_map(|names| names.find(&names.services, name)).peekable();
        let service = found.next()?;
        let labelled = service.ports.get(&(protocol.to_owned(), port.to_owned())).copied();
        let number = labelled.or_else(|| port.parse().ok())?;
        Some((number, &service.targets))
    }
}

impl Names {
    fn build(assignment: &Assignment, directory: &Directory, id: NetworkId) -> Self {
        let network = &assignment.networks[&id];
        let mut names = Self {
            network: network.name.to_ascii_lowercase(),
            subnets: network.subnets,
            forward: BTreeMap::new(),
            reverse: BTreeMap::new(),
            services: BTreeMap::new(),
        };
        let by_service = directory.by_service(id);
        for (service_id, service) in &assignment.services {
            let endpoints = by_service.get(service_id).map_or(&[][..], Vec::as_slice);
            // A service whose name is empty is removed, and its tasks are stopping.
            if !service.name.is_empty() && (service.vips.contains_key(&id) || !endpoints.is_empty())
            {
                names.add_service(service, id, &named(endpoints.iter().copied()), assignment);
            }
        }
        for (service_id, endpoints) in &by_service {
            let service = assignment.services.get(service_id);
            let answered: BTreeSet<TaskId> =
                named(endpoints.iter().copied()).iter().filter_map(|e| e.task()).collect();
            for endpoint in endpoints {
                names.add_task(assignment, service, endpoint, &answered);
            }
        }
        names
    }

    /// By the name itself, or the name with the network's after it.
    fn find<'a, T>(&self, map: &'a BTreeMap<String, T>, name: &str) -> Option<&'a T> {
        let short = || name.strip_suffix(&self.network)?.strip_suffix('.');
        map.get(name).or_else(|| map.get(short()?))
    }

    fn add(&mut self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        self.forward.entry(name.to_ascii_lowercase()).or_default().extend(addresses);
    }

    /// The service's names: for its VIPs or its tasks, and `tasks.…` for its tasks. An alias
    /// belongs to the tasks whose spec contains it, which during an update are not all of them.
    fn add_service(
        &mut self,
        service: &AssignedService,
        id: NetworkId,
        answered: &[&Endpoint],
        assignment: &Assignment,
    ) {
        let vips = service.vips.get(&id);
        let full = format!("{}.{}", service.name, self.network);
        let targets = match vips {
            Some(_) => vec![full.to_ascii_lowercase()],
            None => answered
                .iter()
                .filter_map(|endpoint| assignment.tasks.get(&endpoint.task()?))
                .map(|task| format!("{}.{}", task.name, self.network).to_ascii_lowercase())
                .collect(),
        };
        let labelled = service.ports.iter().filter(|port| !port.name.is_empty());
        let ports = labelled
            .map(|port| {
                let label = port.name.to_ascii_lowercase();
                ((port.protocol.name().to_owned(), label), port.target)
            })
            .collect();
        let facts = Service { ports, targets };
        for (name, tasks) in names_of(service, id, answered, assignment) {
            match vips {
                Some(vips) => self.add(name, vips.iter()),
                None => self.add(name, tasks.iter().copied()),
            }
            self.add(&format!("{TASKS_PREFIX}{name}"), tasks);
            self.services.entry(name.to_ascii_lowercase()).or_insert_with(|| facts.clone());
        }
        for vip in vips.into_iter().flat_map(Addresses::iter) {
            self.reverse.insert(vip, full.clone());
        }
    }

    /// The task's own names; known but empty while the task is hidden.
    fn add_task(
        &mut self,
        assignment: &Assignment,
        service: Option<&AssignedService>,
        endpoint: &Endpoint,
        answered: &BTreeSet<TaskId>,
    ) {
        let Some(id) = endpoint.task() else { return };
        let Some(task) = assignment.tasks.get(&id) else { return };
        let shown = answered.contains(&id).then_some(endpoint.addresses);
        let addresses = || shown.iter().flat_map(Addresses::iter);
        self.add(&task.name, addresses());
        let short: String = id.to_string().chars().take(SHORT_ID_CHARS).collect();
        self.add(&short, addresses());
        if let (Slot::Replica(slot), Some(service)) = (task.slot, service)
            && !service.name.is_empty()
        {
            self.add(&format!("task{slot}.{}", service.name), addresses());
        }
        let name = format!("{}.{}", task.name, self.network);
        self.reverse.extend(endpoint.addresses.iter().map(|address| (address, name.clone())));
    }
}

/// The names of a service on a network, and the addresses of the tasks that have each.
fn names_of<'a>(
    service: &'a AssignedService,
    id: NetworkId,
    answered: &[&Endpoint],
    assignment: &'a Assignment,
) -> BTreeMap<&'a str, Vec<IpAddr>> {
    let mut named: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
    for alias in service.aliases.get(&id).into_iter().flatten() {
        named.entry(alias).or_default();
    }
    for endpoint in answered {
        let Some(task) = endpoint.task().and_then(|id| assignment.tasks.get(&id)) else { continue };
        let own = task.attachments.iter().filter(|held| held.network == id);
        for alias in own.flat_map(|held| &held.aliases) {
            named.entry(alias).or_default().extend(endpoint.addresses.iter());
        }
    }
    let all = answered.iter().flat_map(|endpoint| endpoint.addresses.iter());
    named.insert(&service.name, all.collect());
    named
}
