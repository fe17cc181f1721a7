//! A number that equal states share, kept at the cost of each change.
//!
//! It is the sum of a hash of every object and answer, so an object is added and taken away without
//! a look at the others. It tells accidents apart, not attacks: managers trust each other.

use std::fmt;
use std::hash::Hasher as _;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::codec;
use crate::time::Revision;
use crate::transaction::{Answered, Object};

/// Digests of different layouts do not compare. Raise it when an object that stays the same is
/// hashed to something else, as when it is encoded in another way.
pub const DIGEST_LAYOUT: u32 = 3;

/// Of all objects and answers of a state; of an empty state 0.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Digest(u128);

impl Digest {
    pub(crate) fn add(&mut self, object: &Object) {
        self.0 = self.0.wrapping_add(hash(&codec::object_bytes(object)));
    }

    pub(crate) fn take(&mut self, object: &Object) {
        self.0 = self.0.wrapping_sub(hash(&codec::object_bytes(object)));
    }

    pub(crate) fn add_answer(&mut self, at: Revision, answered: &Answered) {
        self.0 = self.0.wrapping_add(hash(&codec::answered_bytes(at, answered)));
    }

    pub(crate) fn take_answer(&mut self, at: Revision, answered: &Answered) {
        self.0 = self.0.wrapping_sub(hash(&codec::answered_bytes(at, answered)));
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

fn hash(bytes: &[u8]) -> u128 {
    let mut hasher = SipHasher24::new();
    hasher.write(bytes);
    hasher.finish128().as_u128()
}

/// Goal: managers of two versions compare digests only if equal states give them equal ones.
/// Method: the digest of one object of each kind, as the layout has it.
#[test]
fn the_layout_gives_the_same_objects_the_same_digest() {
    use std::sync::Arc;

    use crate::fixture;
    use crate::object::Cluster;

    let mut node = fixture::node(2, "a", Some(7));
    node.description.schema = 1;
    let objects = [
        Object::Cluster(Arc::new(Cluster { schema: 1, ..fixture::cluster() })),
        Object::Node(Arc::new(node)),
        Object::Network(Arc::new(fixture::network(3, "web", "10.0.1.0/24"))),
        Object::Service(Arc::new(fixture::service(5, "redis"))),
        Object::Task(Arc::new(fixture::task(6, 5, vec![fixture::attachment(3, "10.0.1.2")]))),
    ];
    let mut digest = Digest::default();
    objects.iter().for_each(|object| digest.add(object));
    assert_eq!(
        format!("layout {DIGEST_LAYOUT}: {digest:?}"),
        "layout 3: 69268a5af2bc97a9335fa00644193098"
    );
}
