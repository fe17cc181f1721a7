//! Repair of what two nodes know: they find where they differ and exchange what either lacks.
//!
//! A comparison begins with one number (`Compare`, answered by `Same` where the answerer has that
//! number too, else by the numbers of the parts). The asker then tells what it knows of the nodes
//! in the parts that differ (`Ask`, answered by a `Delta`), and knows afterwards all that the
//! answerer knows; after `AskOf` it knows all that the answerer knows of the rows of some owners.
//! If the answer shows that the answerer lacks something, a last message (`Give`, answered by
//! `Taken`) goes the other way. Cut-off answers say so and are continued by another `Ask`.

use std::collections::{BTreeMap, BTreeSet};

use cluster::id::NodeId;
use serde::{Deserialize, Serialize};

use crate::buckets::bucket_of;
use crate::codec::{WireMember, scramble};
use crate::proof::Proof;
use crate::row::{Row, Version};
use crate::table::Table;

/// A message of an exchange starts no further owner beyond this many rows (about 1.3 MB). Rows of
/// one owner are never divided, for only all of them have a floor.
pub const SYNC_ROWS_MAX: usize = 8_000;

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

    /// What it adds to a summary of many; 0 of no rows at all.
    pub(crate) fn summary(&self) -> u64 {
        if self.agrees(&Self::empty(self.owner)) {
            return 0;
        }
        scramble(self.owner, [self.floor, self.live.into(), self.hash])
    }
}

/// Which run of a node is known, and whether it is over. The greater one is the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) generation: u64,
    pub(crate) renewals: u32,
    pub(crate) is_down: bool,
}

impl Standing {
    /// What it adds to a summary of many; 0 if nothing is known.
    pub(crate) fn hash(&self, node: NodeId) -> u64 {
        if *self == Self::default() {
            return 0;
        }
        // Not the hash of any digest of the node's rows.
        scramble(node, [self.generation, self.renewals.into(), 1 << 40 | u64::from(self.is_down)])
    }
}

/// What a node knows of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) digest: Digest,
    pub(crate) standing: Standing,
}

impl Known {
    fn nothing(node: NodeId) -> Self {
        Self { digest: Digest::empty(node), standing: Standing::default() }
    }

    pub(crate) fn agrees(&self, other: &Self) -> bool {
        self.digest.agrees(&other.digest) && self.standing == other.standing
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
    /// The number of all that the asker knows, and whether its view is complete.
    Compare(u64, bool),
    /// What the asker knows in some parts.
    Ask(Question),
    /// The asker's digests of some owners, of whom the answerer knows more.
    AskOf(Vec<Digest>),
    /// Rows and members that the answer to an `Ask` showed to be lacking.
    Give(Vec<Bundle>, Vec<WireMember>),
}

/// What is asked of the parts that differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    /// The parts.
    pub(crate) buckets: BTreeSet<u8>,
    /// What the asker knows of nodes in them.
    pub(crate) known: Vec<Known>,
    /// The last answer was cut off after this node.
    pub(crate) after: Option<NodeId>,
}

/// What it gets back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SyncReply {
    /// To a `Compare`: there is nothing to exchange. Restarts that are under way, and whether the
    /// answerer's view is complete.
    Same(Vec<RestartNotice>, bool),
    /// To a `Compare`: the number of each part.
    Parts(Vec<u64>),
    /// To a `Compare` of one whose view is complete: the answerer's is not, and it will ask.
    Loading,
    /// To an `Ask`.
    Delta(Delta),
    /// To a `Give`.
    Taken,
}

/// Everything that the asker lacks, and where the answerer stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Delta {
    pub(crate) bundles: Vec<Bundle>,
    pub(crate) members: Vec<WireMember>,
    /// What the answerer knows of the nodes that the asker knows otherwise.
    pub(crate) known: Vec<Known>,
    pub(crate) restarting: Vec<RestartNotice>,
    /// Whether the answerer's own view is complete.
    pub(crate) complete: bool,
    /// The answer is cut off after this owner: ask again.
    pub(crate) more: Option<NodeId>,
}

/// Where two nodes differ, as one of them sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// What the other one has to be given of rows.
    pub(crate) bundles: Vec<Bundle>,
    /// Of these nodes this one knows a later run, or that it is over.
    pub(crate) later: Vec<NodeId>,
    /// What this one knows of the nodes that the other one knows otherwise.
    pub(crate) known: Vec<Known>,
    /// The node after which the rows are cut off, if they are.
    pub(crate) more: Option<NodeId>,
}

/// What the holder of a question lacks of what this node knows in the parts that it names.
pub(crate) fn answer(table: &Table, mine: &[Known], question: &Question) -> Difference {
    let Question { buckets, known, after } = question;
    let by_node = |known: &[Known]| -> BTreeMap<NodeId, Known> {
        let asked = known.iter().filter(|known| buckets.contains(&bucket_of(known.digest.owner)));
        asked.map(|known| (known.digest.owner, *known)).collect()
    };
    let (mine, theirs) = (by_node(mine), by_node(known));
    let of = |all: &BTreeMap<NodeId, Known>, node: NodeId| {
        all.get(&node).copied().unwrap_or_else(|| Known::nothing(node))
    };
    let asked = mine.keys().filter(|node| after.is_none_or(|after| **node > after));
    let (bundles, more) = deltas(table, asked.map(|node| of(&theirs, *node).digest));
    let later = mine.iter().filter(|(node, mine)| mine.standing > of(&theirs, **node).standing);
    let later = later.map(|(node, _)| *node).collect();
    let both = theirs.iter().map(|(node, theirs)| (of(&mine, *node), theirs));
    let known = both.filter(|(mine, theirs)| !mine.agrees(theirs)).map(|(mine, _)| mine).collect();
    Difference { bundles, later, known, more }
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
