//! What is given out: addresses by network, and which tasks a service has.

use std::net::IpAddr;

use imbl::{OrdMap, OrdSet};

use crate::id::{NetworkId, NodeId, ServiceId, TaskId};
use crate::transaction::Object;

/// Who holds an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// The network's own bridge.
    Gateway,
    /// A service: its virtual address.
    Service(ServiceId),
    /// A task.
    Task(TaskId),
    /// A node: its `ing0`.
    Node(NodeId),
}

/// An address that two objects claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) network: NetworkId,
    pub(crate) address: IpAddr,
    pub(crate) by: Holder,
}

type Claim = (NetworkId, IpAddr);

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Index {
    addresses: OrdMap<Claim, Holder>,
    tasks: OrdSet<(ServiceId, TaskId)>,
}

impl Index {
    pub(crate) fn holder(&self, network: NetworkId, address: IpAddr) -> Option<Holder> {
        self.addresses.get(&(network, address)).copied()
    }

    pub(crate) fn tasks_of(&self, service: ServiceId) -> impl Iterator<Item = TaskId> {
        let range = (service, TaskId(0))..=(service, TaskId(u128::MAX));
        self.tasks.range(range).map(|(_, task)| *task)
    }

    /// Takes all that the object holds. A claim on a held address leaves it with its holder and is
    /// returned as the error; so is an object that claims one address twice.
    pub(crate) fn take(&mut self, object: &Object) -> Result<(), Taken> {
        let mut result = Ok(());
        for (claim, holder) in claims(object) {
            if let Some(by) = self.addresses.get(&claim) {
                result = Err(Taken { network: claim.0, address: claim.1, by: *by });
            } else {
                self.addresses.insert(claim, holder);
            }
        }
        if let Object::Task(task) = object {
            self.tasks.insert((task.service, task.id));
        }
        result
    }

    /// The inverse of `take`.
    pub(crate) fn release(&mut self, object: &Object) {
        for (claim, holder) in claims(object) {
            if self.addresses.get(&claim) == Some(&holder) {
                self.addresses.remove(&claim);
            }
        }
        if let Object::Task(task) = object {
            self.tasks.remove(&(task.service, task.id));
        }
    }
}

/// The addresses that an object holds.
fn claims(object: &Object) -> Vec<(Claim, Holder)> {
    match object {
        Object::Cluster(_) => Vec::new(),
        Object::Node(node) => {
            let held = node.ingress.iter();
            held.map(|a| ((a.network, a.address), Holder::Node(node.id))).collect()
        }
        Object::Network(network) => vec![((network.id, network.gateway), Holder::Gateway)],
        Object::Service(service) => {
            let held = service.vips.iter();
            held.map(|(n, vip)| ((*n, *vip), Holder::Service(service.id))).collect()
        }
        Object::Task(task) if task.holds_addresses() => {
            let held = task.attachments.iter();
            held.map(|a| ((a.network, a.address), Holder::Task(task.id))).collect()
        }
        Object::Task(_) => Vec::new(),
    }
}
