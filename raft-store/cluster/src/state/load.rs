//! What each node carries, for the scheduler.

use std::net::IpAddr;
use std::ops::Bound;

use imbl::{OrdMap, OrdSet};

use crate::generic::Held;
use crate::id::{NodeId, ServiceId};
use crate::object::{Node, PublishedPort, Task};
use crate::plan;
use crate::spec::Protocol;

/// A port in mode `host`, and the address that alone takes calls to it.
type HostPort = (Protocol, u16, Option<IpAddr>);

/// What a node carries.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Load {
    /// Tasks that are wanted.
    pub(crate) tasks: u64,
    pub(crate) nano_cpus: u128,
    pub(crate) memory_bytes: u128,
    /// Of all tasks that are not known to have ended: those of a lost node may still run there.
    pub(crate) generic: Held,
    /// How many tasks hold a port: more than one only by accident.
    host_ports: OrdMap<HostPort, u64>,
}

impl Load {
    /// Counts a task, or counts it no more. Ports and resources are held until a task has ended,
    /// its place only while it is wanted.
    fn count(&mut self, task: &Task, held: bool) {
        if task.is_wanted() {
            add(&mut self.tasks, 1, held);
        }
        let terms = task.spec.terms();
        add_wide(&mut self.nano_cpus, terms.nano_cpus, held);
        add_wide(&mut self.memory_bytes, terms.memory_bytes, held);
        for port in task.host_ports() {
            count(&mut self.host_ports, (port.protocol, port.published, port.address), held);
        }
    }

    /// The first port of a task that one here publishes: at the same address, or one of them at
    /// all.
    pub(crate) fn held_port_of<'a>(&self, task: &'a Task) -> Option<&'a PublishedPort> {
        task.host_ports().find(|port| {
            let (protocol, number, address) = (port.protocol, port.published, port.address);
            let held = self.host_ports.range((protocol, number, None)..).map(|(held, _)| held);
            let mut held = held.take_while(|held| (held.0, held.1) == (protocol, number));
            held.any(|held| held.2.is_none() || address.is_none() || held.2 == address)
        })
    }
}

fn count<K: Ord + Clone>(counts: &mut OrdMap<K, u64>, key: K, held: bool) {
    let mut number = counts.get(&key).copied().unwrap_or(0);
    add(&mut number, 1, held);
    if number == 0 {
        counts.remove(&key);
    } else {
        counts.insert(key, number);
    }
}

fn add(sum: &mut u64, amount: u64, held: bool) {
    *sum = if held { sum.saturating_add(amount) } else { sum.saturating_sub(amount) };
}

/// Sums of 64-bit amounts, which all tasks that there can be do not overflow.
fn add_wide(sum: &mut u128, amount: u64, held: bool) {
    let amount = u128::from(amount);
    *sum = if held { sum.saturating_add(amount) } else { sum.saturating_sub(amount) };
}

/// What nodes carry.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Loads {
    /// One that carries nothing is not here.
    nodes: OrdMap<NodeId, Load>,
    /// Wanted tasks of a service on a node.
    services: OrdMap<(ServiceId, NodeId), u64>,
    pub(crate) ranking: Ranking,
}

/// Nodes that take tasks, the one with the fewest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Ranking(OrdSet<(u64, NodeId)>);

impl Ranking {
    /// The next one after a place in the ranking; the first one after none.
    pub(crate) fn after(&self, place: Option<(u64, NodeId)>) -> Option<(u64, NodeId)> {
        let from = place.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.range((from, Bound::Unbounded)).next().copied()
    }

    /// All of them, in order.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.0.iter().map(|(_, node)| *node)
    }
}

impl Loads {
    pub(crate) fn of(&self, node: NodeId) -> Option<&Load> {
        self.nodes.get(&node)
    }

    /// How many tasks the node has that are wanted.
    pub(crate) fn tasks(&self, node: NodeId) -> u64 {
        self.of(node).map_or(0, |load| load.tasks)
    }

    /// Those of them that are of the service.
    pub(crate) fn of_service(&self, service: ServiceId, node: NodeId) -> u64 {
        self.services.get(&(service, node)).copied().unwrap_or(0)
    }

    /// The nodes with wanted tasks of a service, and how many.
    pub(crate) fn nodes_with(&self, service: ServiceId) -> impl Iterator<Item = (NodeId, u64)> {
        let all = (service, NodeId(0))..=(service, NodeId(u128::MAX));
        self.services.range(all).map(|((_, node), count)| (*node, *count))
    }

    pub(super) fn note(&mut self, task: &Task, held: bool) {
        let Some(node) = task.node.filter(|_| !task.status.state.is_terminal()) else { return };
        let mut load = self.nodes.get(&node).cloned().unwrap_or_default();
        let before = load.tasks;
        load.generic.note(&task.generic_resources, held);
        if !task.is_over() {
            load.count(task, held);
            if task.is_wanted() {
                count(&mut self.services, (task.service, node), held);
            }
        }
        if before != load.tasks && self.ranking.0.remove(&(before, node)).is_some() {
            self.ranking.0.insert((load.tasks, node));
        }
        if load == Load::default() {
            self.nodes.remove(&node);
        } else {
            self.nodes.insert(node, load);
        }
    }

    pub(super) fn note_node(&mut self, node: &Node, held: bool) {
        let place = (self.tasks(node.id), node.id);
        if held && plan::takes_tasks(node) {
            self.ranking.0.insert(place);
        } else {
            self.ranking.0.remove(&place);
        }
    }
}
