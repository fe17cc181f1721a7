//! All known endpoints: the assignment and the gossip rows, merged into one list per network, with
//! one endpoint for each address and MAC address.
//!
//! A row repeats the addresses, so an endpoint is known as soon as its row is, even if the
//! assignment does not contain it yet. A row that the assignment has overtaken is refused.

use std::collections::{BTreeMap, BTreeSet};

use cluster::assignment::Assignment;
use cluster::id::{NetworkId, NodeId, ServiceId, TaskId};
use cluster::net::{Addresses, MacAddr};
use cluster::object::Attachment;
use cluster::view::{Condition, EndpointKey, EndpointOwner, EndpointRow, View};

/// One attachment of an owner to a network, local or remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Task or node.
    pub owner: EndpointOwner,
    /// Where it runs.
    pub node: NodeId,
    pub addresses: Addresses,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its service; unset for nodes, and while the task is known only from a row.
    pub service: Option<ServiceId>,
    /// As its node reports: `None` before it is up, otherwise whether it is healthy.
    pub healthy: Option<bool>,
    /// Whether something listens in it, as far as its node knows.
    pub ready: bool,
    /// Whether its node is alive.
    pub alive: bool,
    /// Whether it is about to stop.
    pub draining: bool,
}

impl Endpoint {
    /// Its task, if a task owns it.
    #[must_use]
    pub fn task(&self) -> Option<TaskId> {
        match self.owner {
            EndpointOwner::Task(task) => Some(task),
            EndpointOwner::Node(_) => None,
        }
    }

    /// Whether open flows may continue: it is up, in any condition.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.healthy.is_some()
    }

    /// Whether it would take new flows if its node is alive.
    fn is_willing(&self) -> bool {
        self.healthy == Some(true) && !self.draining
    }
}

/// Those that take new flows: the ready ones among those in DNS, or all of these if none is ready.
#[must_use]
pub fn open<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Vec<&'a Endpoint> {
    let named = named(endpoints);
    let ready: Vec<_> = named.iter().copied().filter(|e| e.ready).collect();
    if ready.is_empty() { named } else { ready }
}

/// Those that DNS returns: healthy, not draining, on nodes that are alive. If none of their nodes
/// is alive, none is hidden: our own view is then more likely wrong, and a wrong answer is no worse
/// than no answer.
#[must_use]
pub fn named<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Vec<&'a Endpoint> {
    let willing: Vec<_> = endpoints.into_iter().filter(|e| e.is_willing()).collect();
    let alive: Vec<_> = willing.iter().copied().filter(|e| e.alive).collect();
    if alive.is_empty() { willing } else { alive }
}

/// Endpoints of every network of the node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    networks: BTreeMap<NetworkId, Vec<Endpoint>>,
}

impl Directory {
    /// Merges assignment and view.
    #[must_use]
    pub fn new(assignment: &Assignment, view: &View) -> Self {
        let mut found: BTreeMap<NetworkId, Vec<Candidate>> = BTreeMap::new();
        for candidate in assigned(assignment, view).chain(announced(assignment, view)) {
            found.entry(candidate.network).or_default().push(candidate);
        }
        let networks = assignment
            .networks
            .keys()
            .map(|id| (*id, distinct(found.remove(id).unwrap_or_default())))
            .collect();
        Self { networks }
    }

    /// All endpoints of a network, ordered by their first address.
    #[must_use]
    pub fn of(&self, network: NetworkId) -> &[Endpoint] {
        self.networks.get(&network).map_or(&[], Vec::as_slice)
    }

    /// Endpoints of the tasks of each service on a network.
    #[must_use]
    pub fn by_service(&self, network: NetworkId) -> BTreeMap<ServiceId, Vec<&Endpoint>> {
        let mut services: BTreeMap<ServiceId, Vec<&Endpoint>> = BTreeMap::new();
        for endpoint in self.of(network) {
            if let Some(service) = endpoint.service {
                services.entry(service).or_default().push(endpoint);
            }
        }
        services
    }
}

/// An endpoint that competes for its addresses.
struct Candidate {
    network: NetworkId,
    endpoint: Endpoint,
    /// Higher wins: our own first (its veth is there), then the newest.
    rank: (bool, u64),
}

/// Whether the row agrees with the assignment, or is newer.
fn accepted(assignment: &Assignment, key: EndpointKey, row: &EndpointRow) -> bool {
    if row.revision > assignment.revision {
        return true;
    }
    match key.owner {
        EndpointOwner::Task(task) => assignment.tasks.get(&task).is_some_and(|task| {
            task.node == row.node && task.attachments.iter().any(|a| a.network == key.network)
        }),
        EndpointOwner::Node(node) => {
            node == row.node && assignment.nodes.get(&node).is_some_and(|n| n.ingress.is_some())
        }
    }
}

fn is_alive(assignment: &Assignment, view: &View, node: NodeId) -> bool {
    node == assignment.node || view.is_alive(node)
}

/// Endpoints in the assignment, with the data of their rows.
fn assigned<'a>(
    assignment: &'a Assignment,
    view: &'a View,
) -> impl Iterator<Item = Candidate> + 'a {
    let tasks = assignment.tasks.iter().flat_map(move |(id, task)| {
        task.attachments.iter().map(move |attachment| {
            let owner = EndpointOwner::Task(*id);
            let mut candidate = known(assignment, view, owner, task.node, attachment);
            candidate.endpoint.service = Some(task.service);
            candidate.endpoint.draining = task.draining;
            candidate
        })
    });
    let nodes = assignment.nodes.iter().filter_map(move |(id, node)| {
        let attachment = node.ingress.as_ref()?;
        Some(known(assignment, view, EndpointOwner::Node(*id), *id, attachment))
    });
    tasks.chain(nodes)
}

fn known(
    assignment: &Assignment,
    view: &View,
    owner: EndpointOwner,
    node: NodeId,
    attachment: &Attachment,
) -> Candidate {
    let key = EndpointKey { network: attachment.network, owner };
    let row = view.endpoints.get(&key).filter(|row| accepted(assignment, key, row));
    let revision = row.map_or(assignment.revision, |row| row.revision.max(assignment.revision));
    Candidate {
        network: attachment.network,
        endpoint: Endpoint {
            owner,
            node: row.map_or(node, |row| row.node),
            addresses: row.map_or(attachment.addresses, |row| row.addresses),
            mac: row.map_or(attachment.mac, |row| row.mac),
            service: None,
            healthy: row.map(|row| row.condition != Condition::Unhealthy),
            ready: row.is_some_and(|row| row.condition == Condition::Ready),
            alive: is_alive(assignment, view, node),
            draining: false,
        },
        rank: (node == assignment.node, revision.0),
    }
}

/// Rows of owners that the assignment does not have on that network yet.
fn announced<'a>(
    assignment: &'a Assignment,
    view: &'a View,
) -> impl Iterator<Item = Candidate> + 'a {
    let is_known = |key: &EndpointKey| match key.owner {
        EndpointOwner::Task(id) => assignment
            .tasks
            .get(&id)
            .is_some_and(|task| task.attachments.iter().any(|a| a.network == key.network)),
        EndpointOwner::Node(id) => {
            assignment.nodes.get(&id).is_some_and(|node| node.ingress.is_some())
        }
    };
    view.endpoints
        .iter()
        .filter(move |(key, row)| !is_known(key) && accepted(assignment, **key, row))
        .map(|(key, row)| Candidate {
            network: key.network,
            endpoint: Endpoint {
                owner: key.owner,
                node: row.node,
                addresses: row.addresses,
                mac: row.mac,
                service: None,
                healthy: Some(row.condition != Condition::Unhealthy),
                ready: row.condition == Condition::Ready,
                alive: is_alive(assignment, view, row.node),
                draining: false,
            },
            rank: (false, row.revision.0),
        })
}

/// One endpoint for each address and MAC address: the kernel's tables have room for one.
fn distinct(mut candidates: Vec<Candidate>) -> Vec<Endpoint> {
    candidates.sort_by_key(|c| (std::cmp::Reverse(c.rank), c.endpoint.owner));
    let mut addresses = BTreeSet::new();
    let mut macs = BTreeSet::new();
    let mut endpoints: Vec<Endpoint> = candidates
        .into_iter()
        .map(|candidate| candidate.endpoint)
        .filter(|e| {
            let taken = |address| addresses.contains(&address);
            let free = !e.addresses.iter().any(taken) && !macs.contains(&e.mac);
            if free {
                addresses.extend(e.addresses.iter());
                macs.insert(e.mac);
            }
            free
        })
        .collect();
    endpoints.sort_by_key(|e| e.addresses.first());
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{REDIS, WEB, World, ip, node, task};
    use cluster::time::Revision;

    fn listed(world: &World) -> Vec<String> {
        let directory = Directory::new(&world.assignment, &world.view);
        let text = |e: &Endpoint| format!("{} on {} {:?}", e.addresses, e.node.0, e.healthy);
        directory.of(WEB).iter().map(text).collect()
    }

    /// A row of task `n` at `address`, as its node made it from the assignment at `revision`.
    fn announce(world: &mut World, n: u8, on: u8, address: &str, revision: u64) {
        let owner = EndpointOwner::Task(task(n));
        let row = EndpointRow {
            node: node(on),
            addresses: ip(address).into(),
            mac: MacAddr::for_address(ip(address)),
            condition: Condition::Ready,
            revision: Revision(revision),
        };
        world.view.endpoints.insert(EndpointKey { network: WEB, owner }, row);
    }

    /// Goal: a task in which nothing listens yet gets no new flows while another one could, and
    /// is named all the same. Method: two tasks of one service in every pair of conditions.
    #[test]
    fn a_young_task_takes_new_flows_only_where_none_is_ready() {
        use Condition::{Ready, Unhealthy, Young};
        let table: [([Condition; 2], &[u8], &[u8]); 5] = [
            ([Ready, Young], &[1], &[1, 2]),
            ([Young, Young], &[1, 2], &[1, 2]),
            ([Unhealthy, Young], &[2], &[2]),
            ([Ready, Ready], &[1, 2], &[1, 2]),
            ([Unhealthy, Unhealthy], &[], &[]),
        ];
        for (conditions, takes, has_name) in table {
            let mut world = World::new();
            for (n, condition) in (1..).zip(conditions) {
                world.add(n, REDIS, n).is(n, condition);
            }
            let directory = Directory::new(&world.assignment, &world.view);
            let tasks = |chosen: Vec<&Endpoint>| -> Vec<TaskId> {
                chosen.into_iter().filter_map(Endpoint::task).collect()
            };
            let expected = |numbers: &[u8]| numbers.iter().map(|n| task(*n)).collect::<Vec<_>>();
            assert_eq!(tasks(open(directory.of(WEB))), expected(takes), "{conditions:?}");
            assert_eq!(tasks(named(directory.of(WEB))), expected(has_name), "{conditions:?}");
        }
        // The ready one's node is not alive.
        let mut world = World::new();
        world.add(1, REDIS, 1).is(1, Young).add(2, REDIS, 2).is(2, Ready);
        world.view.liveness.insert(node(2), cluster::view::Liveness::Suspect);
        let directory = Directory::new(&world.assignment, &world.view);
        let open: Vec<_> = open(directory.of(WEB)).into_iter().filter_map(Endpoint::task).collect();
        assert_eq!(open, [task(1)]);
    }

    /// Goal: no two endpoints share an address of either family. Method: rows of three tasks, of
    /// which the newest has both addresses and each other one of these.
    #[test]
    fn an_endpoint_with_both_families_holds_both_addresses() {
        let mut world = World::new();
        announce(&mut world, 7, 2, "10.0.1.30", 101);
        announce(&mut world, 8, 2, "fd00::30", 102);
        let owner = EndpointOwner::Task(task(9));
        announce(&mut world, 9, 3, "10.0.1.31", 103);
        let row = world.view.endpoints.get_mut(&EndpointKey { network: WEB, owner }).unwrap();
        row.addresses = Addresses::Both([10, 0, 1, 30].into(), "fd00::30".parse().unwrap());
        assert_eq!(listed(&world), ["10.0.1.30 fd00::30 on 3 Some(true)"]);
    }

    #[test]
    fn a_row_newer_than_the_assignment_is_served_at_once() {
        let mut world = World::new();
        announce(&mut world, 9, 2, "10.0.1.30", 101);
        assert_eq!(listed(&world), ["10.0.1.30 on 2 Some(true)"]);
    }

    #[test]
    fn a_row_that_the_assignment_has_overtaken_is_refused() {
        let mut world = World::new();
        announce(&mut world, 9, 2, "10.0.1.30", 100);
        assert_eq!(listed(&world), [""; 0], "the task is absent");
        world.add(1, REDIS, 2);
        announce(&mut world, 1, 3, "10.0.1.11", 100);
        assert_eq!(listed(&world), ["10.0.1.11 on 2 None"], "the task is elsewhere");
        announce(&mut world, 1, 2, "10.0.1.11", 7);
        assert_eq!(listed(&world), ["10.0.1.11 on 2 Some(true)"], "an old row of the same task");
    }

    #[test]
    fn an_address_that_went_to_another_task_has_one_endpoint() {
        // The old task is still assigned here when the new one's row arrives.
        let mut world = World::new();
        world.add(1, REDIS, 2).up(1, true);
        announce(&mut world, 9, 3, "10.0.1.11", 105);
        assert_eq!(listed(&world), ["10.0.1.11 on 3 Some(true)"]);
        // While it is our own its veth is there, and the MAC address leads to it.
        let mut world = World::new();
        world.add(1, REDIS, 1).up(1, true);
        announce(&mut world, 9, 3, "10.0.1.11", 105);
        assert_eq!(listed(&world), ["10.0.1.11 on 1 Some(true)"]);
    }
}
