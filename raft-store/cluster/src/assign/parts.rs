//! Digests of assignments, kept from one state to the next: only what a change concerns is looked
//! at again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::{Common, OnNetwork, Own, targets};
use crate::id::{NetworkId, NodeId};
use crate::object::{Service, Task};
use crate::state::{State, Table};

type Digest = [u8; 32];

/// The digests of all nodes' assignments at a state.
#[derive(Debug)]
pub struct Parts {
    hash: fn(&[u8]) -> Digest,
    state: State,
    common: Option<Digest>,
    networks: BTreeMap<NetworkId, Digest>,
    own: BTreeMap<NodeId, (Digest, BTreeSet<NetworkId>)>,
    whole: BTreeMap<NodeId, Digest>,
}

impl Parts {
    /// Knows nothing yet. `hash` has no collisions that anybody could make.
    #[must_use]
    pub fn new(hash: fn(&[u8]) -> [u8; 32]) -> Self {
        Self {
            hash,
            state: State::default(),
            common: None,
            networks: BTreeMap::new(),
            own: BTreeMap::new(),
            whole: BTreeMap::new(),
        }
    }

    /// The digest of a node's assignment at a state, its revision left out: equal digests ask for
    /// the same work. `None` if the node has none.
    pub fn digest(&mut self, state: &State, node: NodeId) -> Option<[u8; 32]> {
        if self.state.revision != state.revision {
            self.follow(state);
        }
        if let Some(digest) = self.whole.get(&node) {
            return Some(*digest);
        }
        let (own, networks) = self.own_of(node)?;
        let mut all = [self.common()?, own].concat();
        for network in networks {
            all.extend(network.0.to_be_bytes());
            all.extend(self.network(network)?);
        }
        let digest = (self.hash)(&all);
        self.whole.insert(node, digest);
        Some(digest)
    }

    fn common(&mut self) -> Option<Digest> {
        if self.common.is_none() {
            self.common = Some((self.hash)(&bytes(&Common::of(&self.state)?)));
        }
        self.common
    }

    fn network(&mut self, id: NetworkId) -> Option<Digest> {
        if let Some(digest) = self.networks.get(&id) {
            return Some(*digest);
        }
        let digest = (self.hash)(&bytes(&OnNetwork::of(&self.state, id)?));
        self.networks.insert(id, digest);
        Some(digest)
    }

    fn own_of(&mut self, node: NodeId) -> Option<(Digest, BTreeSet<NetworkId>)> {
        if let Some(known) = self.own.get(&node) {
            return Some(known.clone());
        }
        let own = Own::of(&self.state, node)?;
        let known = ((self.hash)(&bytes(&own)), own.networks);
        self.own.insert(node, known.clone());
        Some(known)
    }

    /// Goes to another state: forgets the digests of what differs.
    fn follow(&mut self, state: &State) {
        let before = std::mem::replace(&mut self.state, state.clone());
        let same_cluster = match (&before.cluster, &state.cluster) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after),
            _none_before_or_after => false,
        };
        let mut changed = Changed::default();
        changed.services(&before, state);
        changed.tasks(&before, state);
        changed.nodes.extend(keys_that_differ(&before.nodes, &state.nodes));
        let nodes_differ = !changed.nodes.is_empty();
        changed.networks.extend(keys_that_differ(&before.networks, &state.networks));
        let ingress = |state: &State| state.ingress_network().map(|network| network.id);
        if ingress(&before) != ingress(state) {
            self.own.clear();
            self.whole.clear();
        }
        // Another task may have got the address of one whose node was down.
        let lost = state.lost_tasks().chain(before.lost_tasks());
        changed.nodes.extend(lost.filter_map(|task| task.node));
        self.forget(&changed, nodes_differ || !same_cluster);
    }

    fn forget(&mut self, changed: &Changed, common: bool) {
        for node in &changed.nodes {
            self.own.remove(node);
            self.whole.remove(node);
        }
        let mut networks = changed.networks.clone();
        networks.retain(|network| self.networks.remove(network).is_some());
        if !networks.is_empty() {
            let is_on = |node: &NodeId| match self.own.get(node) {
                Some((_, on)) => networks.iter().any(|network| on.contains(network)),
                None => true,
            };
            self.whole.retain(|node, _| !is_on(node));
        }
        if common {
            // Most changes of a node change nothing that others know of it.
            let before = self.common.take();
            if before.is_none() || self.common() != before {
                self.whole.clear();
            }
        }
    }
}

/// What differs between two states.
#[derive(Debug, Default)]
struct Changed {
    nodes: BTreeSet<NodeId>,
    networks: BTreeSet<NetworkId>,
}

impl Changed {
    fn tasks(&mut self, before: &State, after: &State) {
        each_that_differs(&before.tasks, &after.tasks, |task: &Task| {
            self.nodes.extend(task.node);
            self.networks.extend(task.attachments.iter().map(|held| held.network));
        });
    }

    fn services(&mut self, before: &State, after: &State) {
        each_that_differs(&before.services, &after.services, |service: &Service| {
            self.networks.extend(service.vips.keys().copied());
            self.networks.extend(targets(service).map(|(network, _)| network));
            for task in after.tasks_of(service.id) {
                self.networks.extend(task.attachments.iter().map(|held| held.network));
                if task.attachments.is_empty() {
                    self.nodes.extend(task.node);
                }
            }
        });
    }
}

/// Calls for what was there before and for what is there after, of each that is not the same.
fn each_that_differs<K: Ord, T: PartialEq>(
    before: &Table<K, T>,
    after: &Table<K, T>,
    mut look: impl FnMut(&T),
) {
    for item in OrdMap::diff(before, after) {
        match item {
            DiffItem::Add(_, object) | DiffItem::Remove(_, object) => look(object),
            DiffItem::Update { old: (_, old), new: (_, new) } => {
                look(old);
                look(new);
            }
        }
    }
}

fn keys_that_differ<K: Ord + Copy, T: PartialEq>(
    before: &Table<K, T>,
    after: &Table<K, T>,
) -> Vec<K> {
    let keys = OrdMap::diff(before, after).map(|item| match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => *key,
        DiffItem::Update { old: (key, _), .. } => *key,
    });
    keys.collect()
}

/// Encoding plain maps and numbers cannot fail; no bytes would only cost a resend.
fn bytes(part: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(part).unwrap_or_default()
}
