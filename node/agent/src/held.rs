//! Which assignments of managers this node has, and what names them to the leader.

use std::sync::Arc;

use cluster::assignment::{Assignment, Digest};

/// The digests of what came from managers since start. What was read from disk has none.
#[derive(Debug, Default)]
pub(crate) struct Held {
    newest: Option<(Digest, Arc<Assignment>)>,
}

impl Held {
    /// An assignment came.
    pub(crate) fn take(&mut self, digest: Digest, assignment: Arc<Assignment>) {
        self.newest = Some((digest, assignment));
    }

    /// What the leader is told that this node has.
    pub(crate) fn have(&self) -> Option<Digest> {
        self.newest.as_ref().map(|(digest, _)| *digest)
    }

    /// What names the assignment that is in force; none for one that no manager sent, or that a
    /// manager which lags behind has sent another one after.
    pub(crate) fn digest_of(&self, assignment: &Arc<Assignment>) -> Option<Digest> {
        let newest = self.newest.as_ref().filter(|(_, newest)| Arc::ptr_eq(newest, assignment));
        newest.map(|(digest, _)| *digest)
    }
}
