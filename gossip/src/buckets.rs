//! A summary of a set of facts by node, so that two that hold the same find that out by one number,
//! and where they differ by a few hundred.

use cluster::id::NodeId;

use crate::codec::scramble;

/// Parts of a summary.
pub const BUCKETS: usize = 256;

/// For each part the exclusive or of the hashes of what is said of its nodes; of a node of which
/// nothing is known the hash is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Buckets(Vec<u64>);

impl Default for Buckets {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

/// The part that a node belongs to; the same on every node.
pub(crate) fn bucket_of(node: NodeId) -> u8 {
    scramble(node, [0; 3]).to_be_bytes()[0]
}

impl Buckets {
    /// What is said of a node changes from one hash to another.
    pub(crate) fn change(&mut self, node: NodeId, from: u64, to: u64) {
        if let Some(bucket) = self.0.get_mut(usize::from(bucket_of(node))) {
            *bucket ^= from ^ to;
        }
    }

    /// Of two kinds of facts together.
    pub(crate) fn with(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a ^ b).collect())
    }

    /// One number for all.
    pub(crate) fn root(&self) -> u64 {
        let place = |(at, hash): (u128, &u64)| scramble(NodeId(at), [*hash, 0, 0]);
        (0..).zip(&self.0).map(place).fold(0, |all, hash| all ^ hash)
    }

    pub(crate) fn hashes(&self) -> &[u64] {
        &self.0
    }

    /// The parts in which another summary differs.
    pub(crate) fn differing(&self, theirs: &[u64]) -> Vec<u8> {
        (0..=u8::MAX)
            .filter(|at| self.0.get(usize::from(*at)) != theirs.get(usize::from(*at)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_have_one_root_in_any_order_and_a_difference_is_found() {
        let (mut left, mut right) = (Buckets::default(), Buckets::default());
        for node in 0..1_000_u128 {
            left.change(NodeId(node), 0, scramble(NodeId(node), [1, 2, 3]));
            let node = NodeId(999 - node);
            right.change(node, 0, scramble(node, [1, 2, 3]));
        }
        assert_eq!((left.root(), left.differing(right.hashes())), (right.root(), vec![]));
        let (before, after) = (scramble(NodeId(7), [1, 2, 3]), scramble(NodeId(7), [1, 2, 4]));
        right.change(NodeId(7), before, after);
        assert_ne!(left.root(), right.root());
        assert_eq!(left.differing(right.hashes()), [bucket_of(NodeId(7))]);
        right.change(NodeId(7), after, before);
        assert_eq!(left, right);
    }
}
