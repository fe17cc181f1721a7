//! The leader's side of assignments in parts, kept from one state to the next: only what a change
//! concerns is looked at again. A part is made once per change, and all nodes share its bytes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::{Common, Hash, OnNetwork, Own, assigned_task, bytes, targets};
use crate::assignment::AssignedTask;
use crate::id::{NetworkId, NodeId};
use crate::object::{Node, Service, Task};
use crate::session::{Digest, Listed, PartId, Told};
use crate::state::{State, Table};
use crate::time::Revision;

/// Earlier digests of a network's part that are remembered: a kernel that holds an older one is not
/// known to follow any change of the network.
const EARLIER_MAX: usize = 16;

/// The parts of all nodes' assignments at a state.
#[derive(Debug)]
pub struct Parts {
    hash: Hash,
    state: State,
    common: Option<Part>,
    networks: BTreeMap<NetworkId, Versions>,
    own: BTreeMap<NodeId, OwnPart>,
    /// Nodes by the networks that their own parts name.
    on: BTreeMap<NetworkId, BTreeSet<NodeId>>,
    lists: BTreeMap<NodeId, Arc<List>>,
}

#[derive(Debug, Clone)]
struct Part {
    digest: Digest,
    bytes: Bytes,
}

/// A network's part, and what it was before.
#[derive(Debug, Default)]
struct Versions {
    newest: Option<Part>,
    /// With the newest state that gave each, oldest first.
    earlier: VecDeque<(Digest, Revision)>,
}

#[derive(Debug, Clone)]
struct OwnPart {
    digest: Digest,
    networks: BTreeSet<NetworkId>,
    /// Until the node says that it has them.
    bytes: Option<Bytes>,
}

/// What one node's assignment consists of.
#[derive(Debug, PartialEq, Eq)]
pub struct List {
    /// Names the assignment.
    pub digest: Digest,
    /// Of all parts.
    pub digests: Arc<BTreeSet<Digest>>,
    parts: Vec<(PartId, Digest)>,
}

/// What a newer state made void.
#[derive(Debug, Default)]
pub struct Followed {
    /// Lists of nodes whose assignment may have changed.
    pub lists: Vec<(NodeId, Arc<List>)>,
    /// Networks of which a part, or who takes part, may have changed.
    pub networks: BTreeSet<NetworkId>,
    /// Whether nodes came, went, or changed their state or their place on the ingress network.
    pub nodes: bool,
}

impl Parts {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(hash: Hash) -> Self {
        Self {
            hash,
            state: State::default(),
            common: None,
            networks: BTreeMap::new(),
            own: BTreeMap::new(),
            on: BTreeMap::new(),
            lists: BTreeMap::new(),
        }
    }

    /// The newest state that was followed.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The digest of these parts together.
    #[must_use]
    pub fn digest_of_all(&self, parts: &BTreeSet<Digest>) -> Digest {
        Digest::of_all(parts, self.hash)
    }

    /// What a node's assignment consists of; `None` if it has none.
    pub fn list(&mut self, node: NodeId) -> Option<Arc<List>> {
        if let Some(list) = self.lists.get(&node) {
            return Some(Arc::clone(list));
        }
        let own = self.own_of(node)?;
        let mut parts = vec![(PartId::Common, self.common()?.digest), (PartId::Own, own.digest)];
        for network in own.networks {
            parts.push((PartId::Network(network), self.network(network)?.digest));
        }
        let digests = Arc::new(parts.iter().map(|(_, digest)| *digest).collect());
        let list = Arc::new(List { digest: self.digest_of_all(&digests), digests, parts });
        self.lists.insert(node, Arc::clone(&list));
        Some(list)
    }

    /// The list if it is known without a look at the state.
    #[must_use]
    pub fn known_list(&self, node: NodeId) -> Option<&Arc<List>> {
        self.lists.get(&node)
    }

    /// The assignment of a node, with the bytes of the parts that it does not have.
    pub fn tell(&mut self, node: NodeId, have: &BTreeSet<Digest>) -> Option<Told> {
        let list = self.list(node)?;
        let mut parts = Vec::with_capacity(list.parts.len());
        for (part, digest) in &list.parts {
            let lacks = !have.contains(digest);
            let bytes = if lacks { Some(self.bytes_of(node, *part)?) } else { None };
            parts.push(Listed { part: *part, digest: *digest, bytes });
        }
        Some(Told { revision: self.state.revision, parts })
    }

    /// A node has these parts: bytes that nobody else needs are forgotten.
    pub fn has(&mut self, node: NodeId, have: &BTreeSet<Digest>) {
        if let Some(own) = self.own.get_mut(&node)
            && have.contains(&own.digest)
        {
            own.bytes = None;
        }
    }

    /// The newest state that gives one of these digests for the part of a network, as far as known.
    pub fn newest_of(&mut self, network: NetworkId, held: &BTreeSet<Digest>) -> Option<Revision> {
        if self.network(network).is_some_and(|part| held.contains(&part.digest)) {
            return Some(self.state.revision);
        }
        let earlier = &self.networks.get(&network)?.earlier;
        let found = earlier.iter().rev().find(|(digest, _)| held.contains(digest));
        found.map(|(_, revision)| *revision)
    }

    fn bytes_of(&mut self, node: NodeId, part: PartId) -> Option<Bytes> {
        match part {
            PartId::Common => self.common().map(|part| part.bytes),
            PartId::Network(id) => self.network(id).map(|part| part.bytes),
            PartId::Own => {
                let own = self.own.get_mut(&node)?;
                if own.bytes.is_none() {
                    own.bytes = Some(bytes(&Own::of(&self.state, node)?).into());
                }
                own.bytes.clone()
            }
        }
    }

    fn part(&self, content: &impl serde::Serialize) -> Part {
        let bytes = bytes(content);
        Part { digest: Digest((self.hash)(&bytes)), bytes: bytes.into() }
    }

    fn common(&mut self) -> Option<Part> {
        if self.common.is_none() {
            self.common = Some(self.part(&Common::of(&self.state)?));
        }
        self.common.clone()
    }

    fn network(&mut self, id: NetworkId) -> Option<Part> {
        if let Some(Versions { newest: Some(part), .. }) = self.networks.get(&id) {
            return Some(part.clone());
        }
        let part = self.part(&OnNetwork::of(&self.state, id)?);
        self.networks.entry(id).or_default().newest = Some(part.clone());
        Some(part)
    }

    fn own_of(&mut self, node: NodeId) -> Option<OwnPart> {
        if let Some(known) = self.own.get(&node) {
            return Some(known.clone());
        }
        let own = Own::of(&self.state, node)?;
        let Part { digest, bytes } = self.part(&own);
        let part = OwnPart { digest, networks: own.networks, bytes: Some(bytes) };
        for network in &part.networks {
            self.on.entry(*network).or_default().insert(node);
        }
        self.own.insert(node, part.clone());
        Some(part)
    }

    /// Goes on to a newer state: forgets what differs, and says what that was. An older one changes
    /// nothing.
    pub fn follow(&mut self, state: &State) -> Followed {
        if state.revision <= self.state.revision {
            return Followed::default();
        }
        let before = std::mem::replace(&mut self.state, state.clone());
        let same_cluster = match (&before.cluster, &state.cluster) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after),
            _none_before_or_after => false,
        };
        let mut changed = Changed::default();
        changed.services(&before, state);
        changed.tasks(&before, state);
        changed.members(&before, state);
        changed.networks.extend(keys_that_differ(&before.networks, &state.networks));
        changed.common |= !same_cluster;
        let ingress = |state: &State| state.ingress_network().map(|network| network.id);
        if ingress(&before) != ingress(state) {
            changed.nodes.extend(self.own.keys());
        }
        // Another task may have got the address of one whose node was down.
        let lost = state.lost_tasks().chain(before.lost_tasks());
        changed.nodes.extend(lost.filter_map(|task| task.node));
        let lists = self.forget(&changed, before.revision);
        let networks = changed.networks.union(&changed.taking_part).copied().collect();
        Followed { lists, networks, nodes: changed.members }
    }

    /// `before` is the newest state that gave what is forgotten.
    fn forget(&mut self, changed: &Changed, before: Revision) -> Vec<(NodeId, Arc<List>)> {
        let mut nodes = changed.nodes.clone();
        nodes.extend(changed.networks.iter().filter_map(|network| self.on.get(network)).flatten());
        for node in &changed.nodes {
            self.forget_own(*node);
        }
        for network in &changed.networks {
            if !self.state.networks.contains_key(network) {
                self.networks.remove(network);
            } else if let Some(versions) = self.networks.get_mut(network)
                && let Some(part) = versions.newest.take()
            {
                versions.earlier.push_back((part.digest, before));
                if versions.earlier.len() > EARLIER_MAX {
                    versions.earlier.pop_front();
                }
            }
        }
        let mut all = false;
        if changed.common {
            // Most changes of a node change nothing that others know of it.
            let known = self.common.take().map(|part| part.digest);
            all = known.is_none() || self.common().map(|part| part.digest) != known;
        }
        if all {
            return std::mem::take(&mut self.lists).into_iter().collect();
        }
        let void = nodes.into_iter();
        void.filter_map(|node| Some((node, self.lists.remove(&node)?))).collect()
    }

    fn forget_own(&mut self, node: NodeId) {
        let Some(own) = self.own.remove(&node) else { return };
        for network in own.networks {
            if let Entry::Occupied(mut on) = self.on.entry(network) {
                on.get_mut().remove(&node);
                if on.get().is_empty() {
                    on.remove();
                }
            }
        }
    }
}

/// What differs between two states.
#[derive(Debug, Default)]
struct Changed {
    /// Nodes whose own part may differ.
    nodes: BTreeSet<NodeId>,
    /// Networks whose part may differ.
    networks: BTreeSet<NetworkId>,
    /// Networks that other nodes may take part in.
    taking_part: BTreeSet<NetworkId>,
    common: bool,
    /// See [`Followed::nodes`].
    members: bool,
}

impl Changed {
    fn tasks(&mut self, before: &State, after: &State) {
        for item in OrdMap::diff(&before.tasks, &after.tasks) {
            let (old, new) = match item {
                DiffItem::Add(_, new) => (None, Some(&**new)),
                DiffItem::Remove(_, old) => (Some(&**old), None),
                DiffItem::Update { old: (_, old), new: (_, new) } => (Some(&**old), Some(&**new)),
            };
            // Most changes of a task change nothing that others know of it.
            let is_shown_alike = old.and_then(shown) == new.and_then(shown);
            let takes_part_alike = old.and_then(takes_part) == new.and_then(takes_part);
            for task in old.into_iter().chain(new) {
                let networks = task.attachments.iter().map(|held| held.network);
                self.nodes.extend(task.node);
                if !takes_part_alike {
                    self.taking_part.extend(networks.clone());
                }
                if !is_shown_alike {
                    self.networks.extend(networks);
                }
            }
        }
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

    fn members(&mut self, before: &State, after: &State) {
        let changed = keys_that_differ(&before.nodes, &after.nodes);
        let told = |state: &State, id: &NodeId| {
            let node: Option<&Arc<Node>> = state.nodes.get(id);
            node.map(|node| (node.status.state, node.ingress.clone()))
        };
        self.members |= changed.iter().any(|id| told(before, id) != told(after, id));
        self.common |= !changed.is_empty();
        self.nodes.extend(changed);
    }
}

/// The node that takes part in a task's networks by it, and the networks: see [`State::nodes_on`].
fn takes_part(task: &Task) -> Option<(NodeId, BTreeSet<NetworkId>)> {
    let node = task.node.filter(|_| !task.status.state.is_terminal())?;
    Some((node, task.attachments.iter().map(|held| held.network).collect()))
}

/// What every node on a task's networks knows of it.
fn shown(task: &Task) -> Option<AssignedTask> {
    let node = task.node.filter(|_| !task.is_over())?;
    Some(assigned_task(task, node, |_| true))
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
