//! The newest known address of every member.
//!
//! openraft hands an address to a link once and keeps the link when the address of its member
//! changes, so links look the address up here for every call.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(crate) struct PeerBook {
    peers: Mutex<BTreeMap<u64, Addresses>>,
}

#[derive(Default)]
struct Addresses {
    /// As the log has it.
    recorded: Option<String>,
    /// As the member itself has reported since. It is used before it is in the log, because the
    /// majority that has to record it may need this member.
    told: Option<String>,
}

impl PeerBook {
    /// The log has this address. A new recorded address replaces what the member reported before.
    pub(crate) fn learn(&self, raft_id: u64, address: &str) {
        let mut peers = self.peers();
        let peer = peers.entry(raft_id).or_default();
        if peer.recorded.as_deref() != Some(address) {
            *peer = Addresses { recorded: Some(address.to_owned()), told: None };
        }
    }

    /// The member itself says that it is there.
    pub(crate) fn hear(&self, raft_id: u64, address: &str) {
        self.peers().entry(raft_id).or_default().told = Some(address.to_owned());
    }

    pub(crate) fn address(&self, raft_id: u64) -> Option<String> {
        let peers = self.peers();
        let peer = peers.get(&raft_id)?;
        peer.told.clone().or_else(|| peer.recorded.clone())
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<u64, Addresses>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[test]
fn what_a_member_tells_counts_until_another_address_is_recorded() {
    let book = PeerBook::default();
    book.learn(1, "a");
    book.hear(1, "b");
    book.learn(1, "a");
    assert_eq!(book.address(1).as_deref(), Some("b"));
    book.learn(1, "c");
    assert_eq!(book.address(1).as_deref(), Some("c"));
    assert_eq!(book.address(2), None);
}
