//! A transaction in the making: a working copy of the state that remembers what was touched.
//!
//! Planners read the copy as if it were the state, so each sees what the ones before it decided;
//! at the end the difference to the base is the transaction. Planners that change nothing leave no
//! trace, which makes every plan idempotent.

use std::sync::Arc;

use imbl::OrdSet;

use crate::codec;
use crate::id::{IdSource, NetworkId, NodeId, ServiceId, TaskId};
use crate::object::{Meta, Network, Node, Service, Task};
use crate::state::State;
use crate::time::Timestamp;
use crate::transaction::{Change, Key, Object, Transaction};

/// Objects after which planners stop adding to a transaction and leave the rest to the next one.
pub(crate) const CHANGES_MAX: usize = 400;
/// The same for their bytes, as they were when first touched: half of what an entry may have.
const BYTES_MAX: usize = 4 << 20;

/// A transaction in the making. A copy is cheap.
#[derive(Clone)]
pub(crate) struct Draft<'a> {
    base: &'a State,
    state: State,
    touched: OrdSet<Key>,
    bytes: usize,
    ids: IdSource,
    now: Timestamp,
    wake: Option<Timestamp>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(base: &'a State, seed: u128, now: Timestamp) -> Self {
        Self {
            base,
            state: base.clone(),
            touched: OrdSet::new(),
            bytes: 0,
            ids: IdSource::new(seed),
            now,
            wake: None,
        }
    }

    /// The state as it would be.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The state that the draft began with.
    pub(crate) fn base(&self) -> &State {
        self.base
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Ids are drawn from this seed from now on.
    pub(crate) fn draw_from(&mut self, seed: u128) {
        self.ids = IdSource::new(seed);
    }

    /// A raw id that nothing else has.
    pub(crate) fn draw(&mut self) -> u128 {
        self.ids.draw()
    }

    /// Version and times of an object that is created here.
    pub(crate) fn new_meta(&self) -> Meta {
        Meta { created_at: self.now, updated_at: self.now, ..Meta::default() }
    }

    /// Something falls due then, if not before.
    pub(crate) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |earlier| earlier.min(at)));
    }

    /// Whether the rest is for the next transaction, which is then due at once.
    pub(crate) fn is_full(&mut self) -> bool {
        let full = self.is_over_limits();
        if full {
            self.wake_at(self.now);
        }
        full
    }

    pub(crate) fn is_over_limits(&self) -> bool {
        self.touched.len() >= CHANGES_MAX || self.bytes >= BYTES_MAX
    }

    /// Objects that were touched.
    pub(crate) fn objects(&self) -> usize {
        self.touched.len()
    }

    /// Their bytes, as they were when first touched.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn has_touched(&self, key: Key) -> bool {
        self.touched.contains(&key)
    }

    pub(crate) fn put(&mut self, object: Object) {
        if self.touched.insert(object.key()).is_none() {
            self.bytes += codec::object_bytes(&object).len();
        }
        let taken = self.state.put(object);
        // `apply` checks again and rejects; planners only take what they found free.
        debug_assert!(taken.is_ok(), "a planner gave out an address twice: {taken:?}");
    }

    pub(crate) fn remove(&mut self, key: Key) {
        self.touched.insert(key);
        self.state.remove(key);
    }

    pub(crate) fn edit_task(&mut self, id: TaskId, edit: impl FnOnce(&mut Task)) {
        if let Some(task) = edited(self.state.tasks.get(&id), edit) {
            self.put(Object::Task(task));
        }
    }

    pub(crate) fn edit_service(&mut self, id: ServiceId, edit: impl FnOnce(&mut Service)) {
        if let Some(service) = edited(self.state.services.get(&id), edit) {
            self.put(Object::Service(service));
        }
    }

    pub(crate) fn edit_network(&mut self, id: NetworkId, edit: impl FnOnce(&mut Network)) {
        if let Some(network) = edited(self.state.networks.get(&id), edit) {
            self.put(Object::Network(network));
        }
    }

    pub(crate) fn edit_node(&mut self, id: NodeId, edit: impl FnOnce(&mut Node)) {
        if let Some(node) = edited(self.state.nodes.get(&id), edit) {
            self.put(Object::Node(node));
        }
    }

    /// What differs from the base, and when the next thing falls due.
    pub(crate) fn finish(self) -> (Transaction, Option<Timestamp>) {
        let mut changes = Vec::new();
        for key in self.touched {
            let before = self.base.get(key);
            let expected = before.as_ref().map(|object| object.meta().version);
            match (self.state.get(key), expected) {
                (Some(object), _) if before.as_ref() == Some(&object) => {}
                (Some(object), _) => changes.push(Change::Put { expected, object }),
                (None, Some(expected)) => changes.push(Change::Remove { key, expected }),
                (None, None) => {}
            }
        }
        (Transaction { at: self.now, changes, answered: Vec::new() }, self.wake)
    }
}

/// The edited copy, if there is an object and the edit changed it.
fn edited<T: Clone + PartialEq>(
    object: Option<&Arc<T>>,
    edit: impl FnOnce(&mut T),
) -> Option<Arc<T>> {
    let before = object?;
    let mut after = T::clone(before);
    edit(&mut after);
    (after != **before).then(|| Arc::new(after))
}
