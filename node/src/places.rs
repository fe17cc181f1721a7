//! Places, so many for each holder, so that none of them can keep the others out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How many places there are, and who has taken them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Places<K> {
    of_one_max: usize,
    total_max: usize,
    taken: Arc<Mutex<Taken<K>>>,
}

#[derive(Debug)]
struct Taken<K> {
    by_holder: BTreeMap<K, usize>,
    total: usize,
}

/// One place; it is free when this value is gone.
#[derive(Debug)]
pub struct Place<K: Ord> {
    all: Places<K>,
    holder: K,
}

impl<K: Ord + Clone> Places<K> {
    /// Free ones: so many for one holder, and so many for all together.
    #[must_use]
    pub fn new(of_one_max: usize, total_max: usize) -> Self {
        let taken = Taken { by_holder: BTreeMap::new(), total: 0 };
        Self { of_one_max, total_max, taken: Arc::new(Mutex::new(taken)) }
    }

    /// One more place for a holder, if neither it nor all together have too many.
    #[must_use]
    pub fn take(&self, holder: K) -> Option<Place<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_holder.get(&holder).copied().unwrap_or_default();
        if own >= self.of_one_max || taken.total >= self.total_max {
            return None;
        }
        taken.by_holder.insert(holder.clone(), own + 1);
        taken.total += 1;
        Some(Place { all: self.clone(), holder })
    }
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.all.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(own) = taken.by_holder.get_mut(&self.holder) {
            *own -= 1;
            if *own == 0 {
                taken.by_holder.remove(&self.holder);
            }
        }
    }
}

#[test]
fn one_holder_cannot_take_all_places() {
    let places = Places::new(3, 5);
    let greedy: Vec<Place<u8>> = (0..5).filter_map(|_| places.take(1)).collect();
    assert_eq!(greedy.len(), 3);
    let others = (places.take(2), places.take(3));
    assert!(others.0.is_some() && others.1.is_some());
    assert!(places.take(4).is_none(), "all together have too many");
    drop((greedy, others));
    drop(places.take(1).expect("there is room again"));
    let taken = places.taken.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(taken.by_holder.is_empty() && taken.total == 0);
}
