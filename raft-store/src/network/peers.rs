//! The newest known address of every member.
//!
//! openraft hands an address to a link once and keeps the link when the address of its member
//! changes, so links look the address up here for every call.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

#[derive(Default)]
pub(crate) struct PeerBook {
    addresses: Mutex<BTreeMap<u64, String>>,
}

impl PeerBook {
    pub(crate) fn learn(&self, raft_id: u64, address: &str) {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(raft_id, address.to_owned());
    }

    pub(crate) fn address(&self, raft_id: u64) -> Option<String> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).get(&raft_id).cloned()
    }
}
