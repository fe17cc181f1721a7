//! An index: which objects have a key.

use imbl::OrdSet;

use crate::id::Id;

/// Objects by what they have or belong to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pairs<K: Ord, I: Id>(OrdSet<(K, I)>);

impl<K: Ord, I: Id> Default for Pairs<K, I> {
    fn default() -> Self {
        Self(OrdSet::new())
    }
}

impl<K: Ord + Clone, I: Id> Pairs<K, I> {
    /// Those of a key, in order.
    pub(crate) fn of(&self, key: K) -> impl Iterator<Item = I> + use<'_, K, I> {
        self.0.range((key.clone(), I::MIN)..=(key, I::MAX)).map(|(_, id)| *id)
    }

    /// The keys from one to another, once for each object.
    pub(crate) fn keys(&self, first: K, last: K) -> impl Iterator<Item = &K> {
        self.0.range((first, I::MIN)..=(last, I::MAX)).map(|(key, _)| key)
    }

    /// All, once for each of their keys.
    pub(crate) fn ids(&self) -> impl Iterator<Item = I> + use<'_, K, I> {
        self.0.iter().map(|(_, id)| *id)
    }

    /// The least key.
    pub(crate) fn first_key(&self) -> Option<&K> {
        self.0.get_min().map(|(key, _)| key)
    }

    /// The greatest key.
    pub(crate) fn last_key(&self) -> Option<&K> {
        self.0.get_max().map(|(key, _)| key)
    }

    pub(super) fn note(&mut self, key: K, id: I, held: bool) {
        if held {
            self.0.insert((key, id));
        } else {
            self.0.remove(&(key, id));
        }
    }
}
