//! The node's side of an assignment in parts: checks what a manager told, each part against its
//! digest, and puts the assignment together.
//!
//! An answer makes a whole assignment or none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Common, OnNetwork, Own, assemble};
use crate::assignment::Assignment;
use crate::id::{NetworkId, NodeId};
use crate::net::Addresses;
use crate::object::first_schema;
use crate::session::{Digest, Listed, PartId, Told};
use crate::time::Revision;

/// Why an answer is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// The bytes are not those that the digest names.
    #[error("{part} has the digest {has}, and {listed} is listed")]
    Mismatch {
        /// Which part.
        part: PartId,
        /// The digest of its bytes.
        has: Digest,
        /// The one that was said.
        listed: Digest,
    },
    /// Neither is it sent, nor does the node have it.
    #[error("{0} is listed, was not sent, and is not here")]
    NotSent(PartId),
    /// The assignment cannot do without it.
    #[error("{0} is not listed")]
    NotListed(PartId),
    /// It is listed twice.
    #[error("{0} is listed twice")]
    Twice(PartId),
    /// The node does not take part in that network.
    #[error("{0} is listed, and the node's own part does not name the network")]
    NotOurs(PartId),
    /// It is not what a part is.
    #[error("read {part}")]
    Malformed {
        /// Which part.
        part: PartId,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
    /// It is another network's or another node's.
    #[error("{0} is another one's")]
    Misplaced(PartId),
    /// This version programs one family for each network.
    #[error("network {0} has addresses of both IPv4 and IPv6, which is not supported yet")]
    BothFamilies(NetworkId),
    /// It is from an older state than what the node holds.
    #[error("an assignment of revision {} after one of {}", told.0, held.0)]
    Older {
        /// The state that was told.
        told: Revision,
        /// The one that the node holds.
        held: Revision,
    },
}

/// Has no collisions that anybody could make; managers and nodes use the same one.
pub type Hash = fn(&[u8]) -> [u8; 32];

type Whole = (Part<Common>, BTreeMap<NetworkId, Part<OnNetwork>>, Part<Own>);

/// A part with its digest.
#[derive(Debug)]
struct Part<T> {
    digest: Digest,
    content: Arc<T>,
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self { digest: self.digest, content: Arc::clone(&self.content) }
    }
}

/// An assignment that the node holds, with the parts that it consists of.
#[derive(Debug)]
pub struct Held {
    /// Names the assignment.
    pub digest: Digest,
    /// What is to be realised.
    pub assignment: Arc<Assignment>,
    common: Part<Common>,
    networks: BTreeMap<NetworkId, Part<OnNetwork>>,
    own: Part<Own>,
}

impl Held {
    /// The assignment that was kept.
    ///
    /// # Errors
    /// When it is not one of this node.
    pub fn restore(node: NodeId, kept: Kept, hash: Hash) -> Result<Self, PartError> {
        let Kept { schema: _, revision, common, networks, own } = kept;
        let networks = networks.into_iter().map(|part| (part.id, again(part, hash)));
        Self::of(node, revision, (again(common, hash), networks.collect(), again(own, hash)), hash)
    }

    /// The assignment that a manager told to a node which has this one.
    ///
    /// # Errors
    /// When it is not whole or not as it was listed.
    pub fn next(
        before: Option<&Self>,
        node: NodeId,
        told: Told,
        hash: Hash,
    ) -> Result<Self, PartError> {
        let held = before.map_or(Revision(0), |held| held.assignment.revision);
        if told.revision < held {
            return Err(PartError::Older { told: told.revision, held });
        }
        let mut listed = BTreeMap::new();
        for Listed { part, digest, bytes } in told.parts {
            if listed.insert(part, (digest, bytes)).is_some() {
                return Err(PartError::Twice(part));
            }
        }
        let known = before.map(|held| &held.common);
        let common = read(PartId::Common, &mut listed, known, hash)?;
        let known = before.map(|held| &held.own);
        let own: Part<Own> = read(PartId::Own, &mut listed, known, hash)?;
        let mut networks = BTreeMap::new();
        for id in &own.content.networks {
            let known = before.and_then(|held| held.networks.get(id));
            networks.insert(*id, read(PartId::Network(*id), &mut listed, known, hash)?);
        }
        if let Some(part) = listed.into_keys().next() {
            return Err(PartError::NotOurs(part));
        }
        Self::of(node, told.revision, (common, networks, own), hash)
    }

    fn of(node: NodeId, revision: Revision, parts: Whole, hash: Hash) -> Result<Self, PartError> {
        let (common, networks, own) = parts;
        if own.content.node != node {
            return Err(PartError::Misplaced(PartId::Own));
        }
        if let Some((id, _)) = networks.iter().find(|(id, part)| part.content.id != **id) {
            return Err(PartError::Misplaced(PartId::Network(*id)));
        }
        let contents: Vec<&OnNetwork> = networks.values().map(|part| &*part.content).collect();
        let assignment = assemble(revision, &common.content, &contents, &own.content);
        if let Some(network) = of_both_families(&assignment) {
            return Err(PartError::BothFamilies(network));
        }
        let assignment = Arc::new(assignment);
        let mut held = Self { digest: common.digest, assignment, common, networks, own };
        held.digest = Digest::of_all(&held.digests(), hash);
        Ok(held)
    }

    /// All of its parts.
    #[must_use]
    pub fn digests(&self) -> BTreeSet<Digest> {
        let networks = self.networks.values().map(|part| part.digest);
        networks.chain([self.common.digest, self.own.digest]).collect()
    }

    /// What a restart needs.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept {
            schema: self.assignment.schema,
            revision: self.assignment.revision,
            common: Common::clone(&self.common.content),
            networks: self.networks.values().map(|part| OnNetwork::clone(&part.content)).collect(),
            own: Own::clone(&self.own.content),
        }
    }
}

/// The parts of an assignment as they are kept on disk.
///
/// Digests are not: they are made of what was read, so that the node never says that it has what a
/// version of Skein that knows less has left out.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    /// What it may hold, see [`Assignment::schema`].
    #[serde(default = "first_schema")]
    pub schema: u32,
    revision: Revision,
    common: Common,
    networks: Vec<OnNetwork>,
    own: Own,
}

impl Kept {
    /// The assignment that these parts make.
    #[must_use]
    pub fn assignment(&self) -> Assignment {
        let networks: Vec<&OnNetwork> = self.networks.iter().collect();
        assemble(self.revision, &self.common, &networks, &self.own)
    }
}

impl Told {
    /// A whole assignment, sent at once; what is on its networks stands in the node's own part. A
    /// leader that serves many nodes has [`Parts`](super::Parts) instead.
    #[must_use]
    pub fn whole(assignment: &Assignment, hash: Hash) -> Self {
        let common = Common {
            cluster: assignment.cluster,
            schema: assignment.schema,
            data_path_port: assignment.data_path_port,
            gossip_keys: assignment.gossip_keys.clone(),
            nodes: assignment.nodes.clone(),
            removed: assignment.removed.clone(),
            trust: assignment.trust.clone(),
        };
        let own = Own {
            node: assignment.node,
            raft_id: assignment.raft_id,
            networks: assignment.networks.keys().copied().collect(),
            services: assignment.services.clone(),
            tasks: assignment.tasks.clone(),
            own: assignment.own.clone(),
        };
        let listed = |part, bytes: Vec<u8>| Listed {
            part,
            digest: Digest(hash(&bytes)),
            bytes: Some(bytes.into()),
        };
        let networks = assignment.networks.iter().map(|(id, network)| {
            let (services, tasks) = (BTreeMap::new(), BTreeMap::new());
            let part = OnNetwork { id: *id, network: network.clone(), services, tasks };
            listed(PartId::Network(*id), super::bytes(&part))
        });
        let parts = [
            listed(PartId::Common, super::bytes(&common)),
            listed(PartId::Own, super::bytes(&own)),
        ];
        Self { revision: assignment.revision, parts: networks.chain(parts).collect() }
    }
}

/// A network that has a subnet of each family, or on which anything has an address of each.
fn of_both_families(assignment: &Assignment) -> Option<NetworkId> {
    let networks = assignment.networks.iter();
    let placed = networks.map(|(id, network)| (*id, network.subnets.gateways()));
    let tasks = assignment.tasks.values().flat_map(|task| &task.attachments);
    let nodes = assignment.nodes.values().flat_map(|node| &node.ingress);
    let attached = tasks.chain(nodes).map(|held| (held.network, held.addresses));
    let services = assignment.services.values().flat_map(|service| &service.vips);
    let mut all = services.map(|(network, vips)| (*network, *vips)).chain(attached).chain(placed);
    all.find(|(_, addresses)| matches!(addresses, Addresses::Both(..))).map(|(network, _)| network)
}

/// The part with the listed digest: the one that was sent, or the one that is known.
fn read<T: DeserializeOwned>(
    part: PartId,
    listed: &mut BTreeMap<PartId, (Digest, Option<Bytes>)>,
    known: Option<&Part<T>>,
    hash: Hash,
) -> Result<Part<T>, PartError> {
    let (digest, bytes) = listed.remove(&part).ok_or(PartError::NotListed(part))?;
    let known = known.filter(|known| known.digest == digest);
    let Some(bytes) = bytes else { return known.cloned().ok_or(PartError::NotSent(part)) };
    let has = Digest(hash(&bytes));
    if has != digest {
        return Err(PartError::Mismatch { part, has, listed: digest });
    }
    let content = serde_json::from_slice(&bytes);
    let content = content.map_err(|source| PartError::Malformed { part, source })?;
    Ok(Part { digest, content: Arc::new(content) })
}

/// A part that was read from disk, with the digest of what was understood.
fn again<T: Serialize>(content: T, hash: Hash) -> Part<T> {
    Part { digest: Digest(hash(&super::bytes(&content))), content: Arc::new(content) }
}

#[cfg(test)]
mod tests;
