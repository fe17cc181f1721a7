//! Connections of peers that have not shown a certificate of a member: few, short-lived, and apart
//! from those of members, so that a host that reaches the port cannot keep members out.
//!
//! A new one is always taken. Where there are too many, the oldest one of the address that has most
//! makes room: a peer that shows its certificate at once needs milliseconds, and is gone from here
//! before a flood of others has had its turn.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// How many there are at one time, on one listener.
pub(super) const NEWCOMERS_MAX: usize = 128;

/// All newcomers of a listener. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Newcomers(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    by_address: BTreeMap<IpAddr, VecDeque<(u64, CancellationToken)>>,
    count: usize,
    next: u64,
}

/// One newcomer; its place is free when this value is gone.
pub(super) struct Newcomer {
    all: Newcomers,
    address: IpAddr,
    number: u64,
    /// Rings when it has to make room.
    pub(super) evicted: CancellationToken,
}

impl Newcomers {
    /// Takes one more.
    pub(super) fn enter(&self, address: IpAddr) -> Newcomer {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.count >= NEWCOMERS_MAX {
            waiting.make_room();
        }
        let evicted = CancellationToken::new();
        let number = waiting.next;
        waiting.next += 1;
        waiting.count += 1;
        waiting.by_address.entry(address).or_default().push_back((number, evicted.clone()));
        Newcomer { all: self.clone(), address, number, evicted }
    }
}

impl Waiting {
    fn make_room(&mut self) {
        // Of several that have equally many, the one whose oldest is the oldest of all.
        let oldest = |waiting: &VecDeque<(u64, _)>| Reverse(waiting.front().map(|first| first.0));
        let rank = |waiting: &VecDeque<_>| (waiting.len(), oldest(waiting));
        let most = self.by_address.iter().max_by_key(|(_, waiting)| rank(waiting));
        let Some(address) = most.map(|(address, _)| *address) else { return };
        let oldest = self.by_address.get(&address).and_then(|waiting| waiting.front());
        if let Some((number, evicted)) = oldest.cloned() {
            evicted.cancel();
            self.leave(address, number);
        }
    }

    fn leave(&mut self, address: IpAddr, number: u64) {
        let Some(waiting) = self.by_address.get_mut(&address) else { return };
        let before = waiting.len();
        waiting.retain(|(other, _)| *other != number);
        self.count -= before - waiting.len();
        if waiting.is_empty() {
            self.by_address.remove(&address);
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let mut waiting = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.leave(self.address, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equally_busy_addresses_the_oldest_makes_room() {
        let all = Newcomers::default();
        let address = |last: usize| IpAddr::from([192, 0, 2, u8::try_from(last).unwrap()]);
        let held: Vec<Newcomer> = (0..NEWCOMERS_MAX).map(|last| all.enter(address(last))).collect();
        let late = all.enter(IpAddr::from([203, 0, 113, 1]));
        let evicted = held.iter().filter(|newcomer| newcomer.evicted.is_cancelled());
        assert_eq!(evicted.map(|newcomer| newcomer.address).collect::<Vec<_>>(), [address(0)]);
        assert!(!late.evicted.is_cancelled());
    }

    #[test]
    fn the_oldest_of_the_busiest_address_makes_room() {
        let all = Newcomers::default();
        let (flood, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let first = all.enter(other);
        let mut held: Vec<Newcomer> = (1..NEWCOMERS_MAX).map(|_| all.enter(flood)).collect();
        assert!(held.iter().all(|newcomer| !newcomer.evicted.is_cancelled()));
        held.push(all.enter(flood));
        assert!(held[0].evicted.is_cancelled() && !held[1].evicted.is_cancelled());
        let late = all.enter(other);
        assert!(held[1].evicted.is_cancelled());
        assert!(!first.evicted.is_cancelled() && !late.evicted.is_cancelled());
        // One that was evicted leaves once, not twice.
        drop(held);
        let count = || all.0.lock().unwrap().count;
        assert_eq!(count(), 2);
        drop((first, late));
        assert_eq!(count(), 0);
        assert!(all.0.lock().unwrap().by_address.is_empty());
    }
}
