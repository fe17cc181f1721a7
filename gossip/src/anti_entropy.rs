//! Repair of tables: two nodes compare digests per owner and exchange what either lacks.
//!
//! One exchange (`Ask` with the asker's digests, answered by a `Delta`) brings the asker up to
//! the answerer's knowledge; `AskOf` up to what the answerer knows of some owners. If the answer's
//! digests show that the answerer lacks rows, a second one (`Give`, answered by `Taken`) goes the
//! other way. Cut-off answers say so and are continued by another `Ask`.

use std::collections::BTreeMap;

use cluster::id::NodeId;
use serde::{Deserialize, Serialize};

use crate::proof::Proof;
use crate::row::{Row, Version};
use crate::table::Table;

/// A message of an exchange starts no further owner beyond this many rows (about 3 MB). An owner's
/// rows are never divided, for only all of them have a floor.
pub const SYNC_ROWS_MAX: usize = 20_000;

/// Summary of one owner's rows in one table. Tombstones do not count: nodes drop them at
/// different times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Whose rows.
    pub owner: NodeId,
    /// The newest generation of which the whole set has been held.
    pub floor: u64,
    /// The newest version seen, tombstones included.
    pub last: Version,
    /// How many rows.
    pub live: u32,
    /// Exclusive or of the rows' hashes.
    pub hash: u64,
}

impl Digest {
    /// Of no rows at all.
    #[must_use]
    pub fn empty(owner: NodeId) -> Self {
        Self { owner, floor: 0, last: Version::default(), live: 0, hash: 0 }
    }

    /// Whether both tables hold the same rows of the owner.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        (self.floor, self.live, self.hash) == (other.floor, other.live, other.hash)
    }
}

/// Rows of one owner on their way to another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bundle {
    pub(crate) owner: NodeId,
    /// Not 0: with these rows the receiver knows the whole set of that generation.
    pub(crate) floor: u64,
    pub(crate) rows: Vec<Row>,
}

/// A clean restart that is under way: its peers hold the node alive until the grace is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RestartNotice {
    pub(crate) node: NodeId,
    /// The run that ended.
    pub(crate) generation: u64,
    pub(crate) grace_ms: u32,
    /// That the node itself said so. Who passes it on may shorten the grace.
    pub(crate) proof: Proof,
}

/// What an asker sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SyncRequest {
    /// The asker's digest of every owner, and the owner after which to go on if the last answer
    /// was cut off.
    Ask(Vec<Digest>, Option<NodeId>),
    /// The asker's digests of some owners, of whom the answerer knows more.
    AskOf(Vec<Digest>),
    /// Rows that the answer to an `Ask` showed to be lacking.
    Give(Vec<Bundle>),
}

/// What it gets back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SyncReply {
    /// To an `Ask`.
    Delta(Delta),
    /// To a `Give`.
    Taken,
}

/// Everything that the asker lacks, and where the answerer stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delta {
    pub(crate) bundles: Vec<Bundle>,
    /// The answerer's digests of the owners on which it disagrees with the asker.
    pub(crate) digests: Vec<Digest>,
    pub(crate) restarting: Vec<RestartNotice>,
    /// Whether the answerer's own view is complete.
    pub(crate) complete: bool,
    /// The answer is cut off after this owner: ask again.
    pub(crate) more: Option<NodeId>,
}

/// The digest of every owner in the table.
pub(crate) fn digests(table: &Table) -> Vec<Digest> {
    table.owners().map(|owner| table.digest(owner)).collect()
}

/// What the holder of these digests lacks of the owners after `after`, the digests on which it
/// disagrees with this table, and the owner after which the answer is cut off, if it is.
pub(crate) fn answer(
    table: &Table,
    theirs: &[Digest],
    after: Option<NodeId>,
) -> (Vec<Bundle>, Vec<Digest>, Option<NodeId>) {
    let by_owner: BTreeMap<NodeId, &Digest> = theirs.iter().map(|d| (d.owner, d)).collect();
    let all = table
        .owners()
        .filter(|owner| after.is_none_or(|after| *owner > after))
        .map(|owner| by_owner.get(&owner).map_or(Digest::empty(owner), |d| **d));
    let (bundles, more) = deltas(table, all);
    let differing = (by_owner.values())
        .map(|theirs| (table.digest(theirs.owner), theirs))
        .filter(|(mine, theirs)| !mine.agrees(theirs))
        .map(|(mine, _)| mine)
        .collect();
    (bundles, differing, more)
}

/// What a node with these digests lacks; the last owner looked at if there may be more.
pub(crate) fn deltas(
    table: &Table,
    theirs: impl IntoIterator<Item = Digest>,
) -> (Vec<Bundle>, Option<NodeId>) {
    let mut bundles = Vec::new();
    let mut rows = 0;
    let mut last = None;
    for digest in theirs {
        if rows >= SYNC_ROWS_MAX {
            return (bundles, last);
        }
        last = Some(digest.owner);
        if let Some(bundle) = table.delta(&digest) {
            rows += bundle.rows.len();
            bundles.push(bundle);
        }
    }
    (bundles, None)
}
