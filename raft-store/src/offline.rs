//! A log that no node has open: read to its end, or created for a node that starts alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openraft::storage::RaftLogStorage as _;
use openraft::{EntryPayload, Membership, RaftLogReader as _};

use crate::error::Error;
use crate::log_store::LogStore;
use crate::node::{self, Storage};
use crate::snapshot::SnapshotFolder;
use crate::types::{
    LeaderId, LogId, Machine, Member, Peer, SnapshotContent, SnapshotMeta, StoredMembership, Vote,
};

/// Entries that are read in one go; one may have megabytes.
const READ_MAX: u64 = 8;

/// Where a log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub term: u64,
    pub index: u64,
}

impl Position {
    /// The one that comes next, after everything that any leader of this log's terms wrote.
    #[must_use]
    pub fn next(self) -> Self {
        Self { term: self.term + 1, index: self.index + 1 }
    }
}

struct Parts {
    log: LogStore,
    snapshots: Arc<SnapshotFolder>,
}

fn open(storage: &Storage<'_>) -> Result<Parts, Error> {
    let (log, snapshots) = node::parts(storage)?;
    Ok(Parts { log, snapshots })
}

fn failed(storage: &Storage<'_>, reason: &dyn ToString) -> Error {
    Error::Restore { path: storage.dir.to_path_buf(), reason: reason.to_string() }
}

/// Brings a new machine up to the end of a log. Entries that are not known to be committed are
/// applied too: a caller of this has no majority left that could say which are.
pub async fn replay(storage: Storage<'_>, machine: &mut dyn Machine) -> Result<Position, Error> {
    let Parts { mut log, snapshots } = open(&storage)?;
    let replayed = read(&storage, &mut log, &snapshots, machine).await;
    log.close().await;
    snapshots.close().await;
    replayed
}

async fn read(
    storage: &Storage<'_>,
    log: &mut LogStore,
    snapshots: &Arc<SnapshotFolder>,
    machine: &mut dyn Machine,
) -> Result<Position, Error> {
    node::complete(log, snapshots).await?;
    let newest = snapshots.newest_good().await.map_err(|e| failed(storage, &e))?;
    let mut last = None;
    if let Some(snapshot) = newest {
        last = snapshot.meta.last_log_id;
        let mut reader = snapshot.snapshot.reader().map_err(|e| failed(storage, &e))?;
        let index = last.map_or(0, |id| id.index);
        machine.restore(index, &mut reader).map_err(|e| failed(storage, &e))?;
    }
    loop {
        let start = last.map_or(0, |id: LogId| id.index + 1);
        let entries = log.try_get_log_entries(start..start + READ_MAX).await;
        let entries = entries.map_err(|e| failed(storage, &e))?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            last = Some(entry.log_id);
            if let EntryPayload::Normal(payload) = &entry.payload {
                let index = entry.log_id.index;
                machine
                    .apply(index, &payload.0)
                    .map_err(|reason| failed(storage, &format!("entry {index}: {reason}")))?;
            }
        }
    }
    let vote = log.read_vote().await.map_err(|e| failed(storage, &e))?;
    let last = last.ok_or_else(|| failed(storage, &"the log is empty"))?;
    let term = vote.map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term);
    Ok(Position { term, index: last.index })
}

/// Creates the log of a node whose voters are the given ones, which include the node itself. The
/// log starts with a snapshot of the given state at the given position.
pub async fn found(
    storage: Storage<'_>,
    voters: &[Peer],
    at: Position,
    content: SnapshotContent,
) -> Result<(), Error> {
    let Parts { mut log, snapshots } = open(&storage)?;
    let founded = write(&storage, &mut log, &snapshots, voters, at, content).await;
    log.close().await;
    snapshots.close().await;
    founded
}

async fn write(
    storage: &Storage<'_>,
    log: &mut LogStore,
    snapshots: &Arc<SnapshotFolder>,
    voters: &[Peer],
    at: Position,
    content: SnapshotContent,
) -> Result<(), Error> {
    let state = log.get_log_state().await.map_err(|e| failed(storage, &e))?;
    if state.last_log_id.is_some() {
        return Err(failed(storage, &"there is a log already"));
    }
    let id = LogId::new(LeaderId { term: at.term, node_id: storage.raft_id }, at.index);
    let ids: BTreeSet<u64> = voters.iter().map(|voter| voter.raft_id).collect();
    if !ids.contains(&storage.raft_id) {
        return Err(failed(storage, &"the node is not among the voters of its own log"));
    }
    let member = |voter: &Peer| (voter.raft_id, Member { address: voter.address.clone() });
    let members: BTreeMap<u64, Member> = voters.iter().map(member).collect();
    let membership = Membership::new(vec![ids], members).map_err(|e| failed(storage, &e))?;
    let meta = SnapshotMeta {
        last_log_id: Some(id),
        last_membership: StoredMembership::new(Some(id), membership),
    };
    snapshots.save(meta, content).await.map_err(|e| failed(storage, &e))?;
    let vote = Vote::new(at.term, storage.raft_id);
    log.save_vote(&vote).await.map_err(|e| failed(storage, &e))?;
    log.purge(id).await.map_err(|e| failed(storage, &e))
}
