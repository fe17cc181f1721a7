//! [`Search`]: which manager a call is put to next, until one answers as the leader.

use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Managers that one call is put to at most. A cluster has a handful; each that does not lead may
/// name another.
pub const ASKED_MAX: usize = 32;

/// One call's way to the leader. The leader that answered last is asked first, then who a manager
/// says leads, then all managers that are known.
#[derive(Debug)]
pub struct Search {
    hint: Option<SocketAddr>,
    asked: BTreeSet<SocketAddr>,
}

impl Search {
    /// `leader` answered last.
    #[must_use]
    pub fn new(leader: Option<SocketAddr>) -> Self {
        Self { hint: leader, asked: BTreeSet::new() }
    }

    /// Who is asked next because someone named it; nobody twice.
    pub fn hinted(&mut self) -> Option<SocketAddr> {
        let hint = self.hint.take()?;
        self.asks(hint)
    }

    /// Who is asked next of these, in their order.
    pub fn one_of(&mut self, known: impl IntoIterator<Item = SocketAddr>) -> Option<SocketAddr> {
        known.into_iter().find_map(|address| self.asks(address))
    }

    /// A manager that was asked does not lead; it may know who does.
    pub fn redirected(&mut self, leader: Option<SocketAddr>) {
        self.hint = leader;
    }

    fn asks(&mut self, address: SocketAddr) -> Option<SocketAddr> {
        let may = self.asked.len() < ASKED_MAX && self.asked.insert(address);
        may.then_some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    /// Goal: the leader is found by as few calls as can be, and nobody is asked twice. Method: all
    /// steps of a search, in which two managers name each other.
    #[test]
    fn hints_go_first_and_nobody_is_asked_twice() {
        let known = || [at(1), at(2), at(3)];
        let mut search = Search::new(Some(at(2)));
        assert_eq!(search.hinted(), Some(at(2)));
        assert_eq!(search.hinted(), None);
        assert_eq!(search.one_of(known()), Some(at(1)));
        search.redirected(Some(at(9)));
        assert_eq!(search.hinted(), Some(at(9)));
        search.redirected(Some(at(2)));
        assert_eq!(search.hinted(), None);
        assert_eq!(search.one_of(known()), Some(at(3)));
        search.redirected(None);
        assert_eq!((search.hinted(), search.one_of(known())), (None, None));
    }

    /// Goal: a manager that always names another address does not keep a call going.
    #[test]
    fn a_search_ends() {
        let mut search = Search::new(None);
        let mut port = 0;
        loop {
            port += 1;
            search.redirected(Some(at(port)));
            if search.hinted().is_none() {
                break;
            }
        }
        assert_eq!(usize::from(port), ASKED_MAX + 1);
        assert_eq!(search.one_of([at(u16::MAX)]), None);
    }
}
