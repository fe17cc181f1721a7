//! The one way in which the state changes. Total and deterministic: it checks and stores, it never
//! chooses, it cannot fail, only reject.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::id::{NetworkId, RequestId, ServiceId};
use crate::object::{Meta, Network, Node, PublishedPort, Service};
use crate::spec::PublishMode;
use crate::state::{State, Taken};
use crate::time::Revision;
use crate::transaction::{Change, Key, Object, Transaction};

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// All of it is stored.
    Applied,
    /// None of it is.
    Rejected(Conflict),
}

/// Why a transaction was rejected: it lost a race, or something would be given out twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Conflict {
    /// The log index does not follow the state's.
    #[error("revision {given:?} does not follow {state:?}")]
    NotNewer {
        /// Index of the entry.
        given: Revision,
        /// The state's.
        state: Revision,
    },
    /// The object changed, came or went since it was decided on.
    #[error("{object} is at version {found:?}, decided on {expected:?}")]
    Stale {
        /// Its name.
        object: String,
        /// The version decided on; `None`: it must not exist.
        expected: Option<Revision>,
        /// The version found; `None`: it does not exist.
        found: Option<Revision>,
    },
    /// One transaction names an object twice.
    #[error("{object} occurs twice in one transaction")]
    Twice {
        /// Its name.
        object: String,
    },
    /// A request was done before, or occurs twice.
    #[error("request {request} has an answer")]
    Answered {
        /// Which.
        request: RequestId,
    },
    /// The cluster cannot be removed.
    #[error("the cluster cannot be removed by a transaction")]
    ClusterRemoval,
    /// An address has a holder.
    #[error("address {address} for {object} has a holder: {holder}")]
    Address {
        /// Who asks.
        object: String,
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: String,
    },
    /// Something else has a holder: a name, VNI, subnet, port or Raft id.
    #[error("{what} of {object} has a holder: {holder}")]
    Held {
        /// The thing, with its value.
        what: String,
        /// Who asks.
        object: String,
        /// Who has it.
        holder: String,
    },
}

impl State {
    /// Stores a transaction whole or not at all. `revision` is the index of its log entry; it
    /// becomes the version of every object stored, and the transaction's time its `updated_at`.
    /// An empty transaction changes nothing, not even the revision.
    pub fn apply(&mut self, revision: Revision, transaction: &Transaction) -> Outcome {
        if transaction.is_empty() {
            return Outcome::Applied;
        }
        match self.checked(revision, transaction) {
            Ok(next) => {
                *self = next;
                Outcome::Applied
            }
            Err(conflict) => Outcome::Rejected(conflict),
        }
    }

    /// The state after the transaction, with everything checked.
    fn checked(&self, revision: Revision, transaction: &Transaction) -> Result<Self, Conflict> {
        if revision <= self.revision {
            return Err(Conflict::NotNewer { given: revision, state: self.revision });
        }
        self.check_versions(transaction)?;
        let mut next = self.clone();
        next.revision = revision;
        for answered in &transaction.answered {
            if next.answers.of(answered.request).is_some() {
                return Err(Conflict::Answered { request: answered.request });
            }
            next.keep_answer(revision, answered);
        }
        // All that goes away goes first, so that what it held can be taken within one transaction.
        for change in &transaction.changes {
            if let Some(old) = self.get(change.key()) {
                next.digest.take(&old);
            }
            // Removing takes nothing.
            let _ = next.replace(change.key(), None);
        }
        for change in &transaction.changes {
            let Change::Put { expected, object } = change else { continue };
            let created_at = match expected.and_then(|_| self.get(object.key())) {
                Some(old) => old.meta().created_at,
                None => transaction.at,
            };
            let meta = Meta { version: revision, created_at, updated_at: transaction.at };
            let key = object.key();
            let object = object.clone().with_meta(meta);
            next.digest.add(&object);
            next.replace(key, Some(object)).map_err(|taken| address_held(key, &taken))?;
        }
        for change in &transaction.changes {
            if let Change::Put { object, .. } = change {
                next.check_unique(object)?;
            }
        }
        for change in &transaction.changes {
            let key = change.key();
            next.revise(key, self.get(key).as_ref(), next.get(key).as_ref());
        }
        Ok(next)
    }

    fn check_versions(&self, transaction: &Transaction) -> Result<(), Conflict> {
        let mut seen = BTreeSet::new();
        for change in &transaction.changes {
            let key = change.key();
            if !seen.insert(key) {
                return Err(Conflict::Twice { object: key.to_string() });
            }
            let expected = match change {
                Change::Put { expected, .. } => *expected,
                Change::Remove { key: Key::Cluster, .. } => return Err(Conflict::ClusterRemoval),
                Change::Remove { expected, .. } => Some(*expected),
            };
            let found = self.get(key).map(|object| object.meta().version);
            if found != expected {
                return Err(Conflict::Stale { object: key.to_string(), expected, found });
            }
        }
        Ok(())
    }

    /// Whether an object that is already stored holds anything that another one holds too.
    fn check_unique(&self, object: &Object) -> Result<(), Conflict> {
        match object {
            // There is one cluster by construction, and addresses are checked by the index.
            Object::Cluster(_) | Object::Task(_) => Ok(()),
            Object::Node(node) => self.check_node(node),
            Object::Network(network) => self.check_network(network),
            Object::Service(service) => self.check_service(service),
        }
    }

    fn check_node(&self, node: &Node) -> Result<(), Conflict> {
        let Some(place) = node.raft() else { return Ok(()) };
        let clash = self.index.raft_ids.of(place.raft_id).find(|other| *other != node.id);
        let what = || format!("Raft id {}", place.raft_id);
        refuse(&node.id, clash.map(|other| (what(), other.to_string())))
    }

    fn check_network(&self, network: &Network) -> Result<(), Conflict> {
        let other = |id: &NetworkId| *id != network.id;
        let clash = self.index.vnis.of(network.vni).find(other);
        let what = || format!("VNI {}", network.vni);
        refuse(&network.id, clash.map(|other| (what(), other.to_string())))?;
        if network.removed {
            return Ok(());
        }
        let clash = self.index.network_names.of(network.spec.name.clone()).find(other);
        let what = || format!("name {}", network.spec.name);
        refuse(&network.id, clash.map(|other| (what(), other.to_string())))?;
        let clash = network.subnets.iter().find_map(|subnet| {
            let other = self.networks_over(subnet).find(|found| found.id != network.id)?;
            Some((format!("subnet {subnet}"), other.id.to_string()))
        });
        refuse(&network.id, clash)
    }

    fn check_service(&self, service: &Service) -> Result<(), Conflict> {
        check_own_ports(service)?;
        if service.removed {
            return Ok(());
        }
        let other = |id: &ServiceId| *id != service.id;
        let clash = self.index.service_names.of(service.spec.name.clone()).find(other);
        let what = || format!("name {}", service.spec.name);
        refuse(&service.id, clash.map(|other| (what(), other.to_string())))?;
        let clash = everywhere(service).find_map(|port| {
            let number = (port.protocol, port.published);
            let taken = self.index.ports.holder(number, port.mode, port.address, service.id);
            taken.map(|holder| (format!("port {port}"), holder.to_string()))
        });
        refuse(&service.id, clash)
    }
}

/// The ports that a service has on every node.
fn everywhere(service: &Service) -> impl Iterator<Item = &PublishedPort> {
    service.ports.iter().filter(|port| port.mode == PublishMode::Ingress)
}

/// Within a service: a published port is given once, and so is the port towards the ingress VIP,
/// whatever protocol it is for.
fn check_own_ports(service: &Service) -> Result<(), Conflict> {
    let me = || service.id.to_string();
    let mut towards_vip = BTreeSet::new();
    for (at, port) in everywhere(service).enumerate() {
        let twice = everywhere(service).take(at).any(|other| other.overlaps(port));
        refuse(&service.id, twice.then(|| (format!("port {port}"), me())))?;
        let twice = port.ingress_ports.values().find(|number| !towards_vip.insert(**number));
        let clash = twice.map(|number| (format!("ingress port {number}"), me()));
        refuse(&service.id, clash)?;
    }
    Ok(())
}

/// Turns a thing and its holder, if there is one, into a conflict.
fn refuse(object: &impl ToString, clash: Option<(String, String)>) -> Result<(), Conflict> {
    match clash {
        Some((what, holder)) => Err(Conflict::Held { what, object: object.to_string(), holder }),
        None => Ok(()),
    }
}

fn address_held(key: Key, taken: &Taken) -> Conflict {
    Conflict::Address {
        object: key.to_string(),
        address: taken.address,
        holder: format!("{:?} on network {}", taken.by, taken.network),
    }
}

#[cfg(test)]
mod tests;
