//! What each node carries, for the scheduler.

use std::net::IpAddr;

use imbl::OrdMap;

use crate::generic::Held;
use crate::id::{NodeId, ServiceId};
use crate::object::{PublishedPort, Task};
use crate::spec::{Protocol, TaskSpec};

/// A port in mode `host`, and the address that alone takes calls to it.
type HostPort = (Protocol, u16, Option<IpAddr>);

/// What a node carries.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Load {
    /// Tasks that are wanted.
    pub(crate) tasks: u64,
    pub(crate) by_service: OrdMap<ServiceId, u64>,
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
            count(&mut self.by_service, task.service, held);
        }
        let (nano_cpus, memory_bytes) = reservation(&task.spec);
        add_wide(&mut self.nano_cpus, nano_cpus, held);
        add_wide(&mut self.memory_bytes, memory_bytes, held);
        for port in task.host_ports() {
            count(&mut self.host_ports, (port.protocol, port.published, port.address), held);
        }
    }

    pub(crate) fn of_service(&self, service: ServiceId) -> u64 {
        self.by_service.get(&service).copied().unwrap_or(0)
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

/// CPUs times 10^9, and bytes, that a task reserves.
pub(crate) fn reservation(spec: &TaskSpec) -> (u64, u64) {
    let reserved = spec.resources.as_ref().and_then(|resources| resources.reservations.as_ref());
    reserved.map_or((0, 0), |amounts| (amounts.nano_cpus, amounts.memory_bytes))
}

/// What nodes carry; one that carries nothing is not here.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Loads(OrdMap<NodeId, Load>);

impl Loads {
    pub(crate) fn of(&self, node: NodeId) -> Option<&Load> {
        self.0.get(&node)
    }

    pub(super) fn note(&mut self, task: &Task, held: bool) {
        let Some(node) = task.node.filter(|_| !task.status.state.is_terminal()) else { return };
        let mut load = self.0.get(&node).cloned().unwrap_or_default();
        load.generic.note(&task.generic_resources, held);
        if !task.is_over() {
            load.count(task, held);
        }
        if load == Load::default() {
            self.0.remove(&node);
        } else {
            self.0.insert(node, load);
        }
    }
}
