//! A number that equal states share, kept at the cost of each change.
//!
//! It is the sum of a hash of every object, so an object is added and taken away without a look at
//! the others. It tells accidents apart, not attacks: managers trust each other.

use std::fmt;
use std::hash::Hasher as _;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::codec;
use crate::transaction::Object;

/// Of all objects of a state; of an empty state 0.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Digest(u128);

impl Digest {
    pub(crate) fn add(&mut self, object: &Object) {
        self.0 = self.0.wrapping_add(hash(object));
    }

    pub(crate) fn take(&mut self, object: &Object) {
        self.0 = self.0.wrapping_sub(hash(object));
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

fn hash(object: &Object) -> u128 {
    let mut hasher = SipHasher24::new();
    hasher.write(&codec::object_bytes(object));
    hasher.finish128().as_u128()
}
