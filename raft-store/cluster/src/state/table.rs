//! A table of objects.

use std::ops::Deref;
use std::sync::Arc;

use imbl::OrdMap;

/// A persistent map of objects: a copy shares all that does not change afterwards.
///
/// To decide or plan one change, objects are found by id or by the index: walks over a table are
/// for lists, snapshots and invariants (`growth.rs` counts them).
#[derive(Debug, PartialEq)]
pub struct Table<K: Ord, T>(OrdMap<K, Arc<T>>);

impl<K: Ord, T> Clone for Table<K, T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Ord, T> Default for Table<K, T> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

impl<K: Ord, T> Deref for Table<K, T> {
    type Target = OrdMap<K, Arc<T>>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K: Ord, T> Table<K, T> {
    /// All objects with their ids, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Arc<T>)> {
        counted(self.0.iter())
    }

    /// All objects, in the order of their ids.
    pub fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        counted(self.0.values())
    }

    /// All ids, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        counted(self.0.keys())
    }
}

impl<K: Ord + Copy, T> Table<K, T> {
    pub(super) fn put(&mut self, key: K, value: Arc<T>) {
        self.0.insert(key, value);
    }

    pub(super) fn take(&mut self, key: &K) {
        self.0.remove(key);
    }
}

#[cfg(not(test))]
fn counted<I: Iterator>(items: I) -> I {
    items
}

#[cfg(test)]
fn counted<I: Iterator>(items: I) -> impl Iterator<Item = I::Item> {
    items.inspect(|_| PASSED.with(|passed| passed.set(passed.get() + 1)))
}

#[cfg(test)]
thread_local! {
    static PASSED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many objects walks over tables came past on this thread.
#[cfg(test)]
pub(crate) fn passed() -> usize {
    PASSED.with(std::cell::Cell::get)
}
