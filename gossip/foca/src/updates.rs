/* This Source Code Form is subject to the terms of the Mozilla Public
 * License, v. 2.0. If a copy of the MPL was not distributed with this
 * file, You can obtain one at https://mozilla.org/MPL/2.0/. */
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::cmp::Reverse;

use bytes::BufMut;

/// Updates that don't fit in what is left of a buffer before it is taken
/// for full.
const MISFITS: usize = 3;

/// Serialized updates of members, by address: what one message carries is
/// found without a look at those that it does not.
pub(crate) struct Updates<K> {
    data: BTreeMap<K, (usize, Vec<u8>)>,
    // Invariant: the transmissions that remain, the length and the key of
    // each of `data`. Fewest transmissions so far first, then the longest
    order: BTreeSet<(Reverse<usize>, Reverse<usize>, K)>,
}

impl<K: Ord + Clone> Updates<K> {
    pub(crate) const fn new() -> Self {
        Self {
            data: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    pub(crate) fn add_or_replace(&mut self, key: K, data: Vec<u8>, max_tx: usize) {
        debug_assert!(max_tx > 0);
        self.remove(&key);
        self.order
            .insert((Reverse(max_tx), Reverse(data.len()), key.clone()));
        self.data.insert(key, (max_tx, data));
    }

    fn remove(&mut self, key: &K) {
        if let Some((remaining, data)) = self.data.remove(key) {
            self.order
                .remove(&(Reverse(remaining), Reverse(data.len()), key.clone()));
        }
    }

    pub(crate) fn fill(&mut self, mut buffer: impl BufMut, max_items: usize) -> usize {
        let mut sent = Vec::new();
        let mut misfits = 0;
        for (_, Reverse(len), key) in &self.order {
            if sent.len() >= max_items || misfits >= MISFITS {
                break;
            }
            match self.data.get(key) {
                Some((_, data)) if *len <= buffer.remaining_mut() => {
                    buffer.put_slice(data);
                    sent.push(key.clone());
                }
                _ => misfits += 1,
            }
        }
        for key in &sent {
            if let Some((remaining, data)) = self.data.remove(key) {
                let len = Reverse(data.len());
                self.order.remove(&(Reverse(remaining), len, key.clone()));
                if remaining > 1 {
                    let remaining = remaining - 1;
                    self.order.insert((Reverse(remaining), len, key.clone()));
                    self.data.insert(key.clone(), (remaining, data));
                }
            }
        }
        sent.len()
    }
}
