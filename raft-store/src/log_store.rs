//! The log and the votes, on redb.
//!
//! Every write goes through one queue to one writer thread, so writes reach the disk in the order
//! in which openraft made them. An append is readable at once, from the tail held in memory, and
//! its callback fires when the batch that holds it is on disk.
//!
//! Invariants:
//! * The tail is a contiguous suffix of the log, and every entry that is not yet on disk is in it.
//! * An entry leaves the tail only after its own write (by sequence number) is on disk, so a
//!   truncation that is still queued cannot bring an overwritten entry back.
//! * Nothing that is known to be committed is cut off.
//! * After one failed write nothing more is written: what the disk holds is unknown then.

pub(crate) mod database;
pub(crate) mod mark;
mod tail;
mod writer;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use redb::{Database, ReadableDatabase};
use tokio::sync::oneshot;

use self::database::{COMMITTED, Meta, Opened, PURGED, VOTE};
use self::tail::Tail;
use self::writer::{Op, WriteQueue};
use crate::codec;
use crate::error::Error;
use crate::seal::Sealer;
use crate::types::{Entry, LogId, TypeConfig, Vote};

/// Entries sent to a follower in one message add up to about this many bytes.
const APPEND_BYTES_MAX: usize = 8 << 20;

/// Whether a log may be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The node has never voted under this Raft id: an empty log is created unless there is one.
    New,
    /// The node has had a log. Without it, the node might vote against what it acknowledged.
    Existing,
}

/// The log of one node. Clones share one database and one writer.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    queue: WriteQueue,
    sealer: Arc<Sealer>,
}

pub(super) struct Shared {
    /// `None` once closed, so that the file lock is given back while clones still exist.
    database: Mutex<Option<Arc<Database>>>,
    state: Mutex<LogView>,
}

/// What openraft sees of the log, ahead of the disk by what is queued.
struct LogView {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    tail: Tail,
}

pub(super) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> io::Error {
    io::Error::other("the log is closed")
}

impl LogStore {
    /// Opens `<folder>/log.redb` for this Raft id, or makes it, and starts its writer.
    pub(crate) fn open(
        folder: &Path,
        raft_id: u64,
        presence: Presence,
        sealer: Arc<Sealer>,
    ) -> Result<Self, Error> {
        let Opened { database, meta, mark } = database::open(folder, raft_id, presence, &sealer)?;
        let Meta { vote, committed, purged, last, extent } = meta;
        let database = Arc::new(database);
        let state = LogView { vote, committed, purged, last, tail: Tail::default() };
        let queue =
            writer::start(database.clone(), extent, mark, sealer.clone()).map_err(|source| {
                Error::OpenLog { path: folder.join(database::FILE_NAME), source: Box::new(source) }
            })?;
        let database = Mutex::new(Some(database));
        let shared = Arc::new(Shared { database, state: Mutex::new(state) });
        Ok(Self { shared, queue, sealer })
    }

    /// Index up to which entries were purged, if any were.
    pub(crate) fn purged(&self) -> Option<u64> {
        hold(&self.shared.state).purged.map(|id| id.index)
    }

    /// Whether the disk had no room for a write.
    pub(crate) fn disk_is_full(&self) -> bool {
        self.queue.disk_is_full()
    }

    fn meta_row<T: serde::Serialize>(&self, key: &str, value: &T) -> io::Result<Vec<u8>> {
        self.sealer.seal(&database::meta_place(key), &codec::encode(value)?)
    }

    /// Writes what is queued, then releases the database file. Idempotent.
    pub(crate) async fn close(&self) {
        hold(&self.shared.database).take();
        self.queue.close().await;
    }

    /// Reads `[start, end)`, clipped to what the log has; a hole is an error.
    async fn read(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let (mut entries, older) = {
            let state = hold(&self.shared.state);
            let start = start.max(state.purged.map_or(0, |id| id.index + 1));
            let end = end.min(state.last.map_or(0, |id| id.index + 1));
            if start >= end {
                return Ok(Vec::new());
            }
            let split = state.tail.first().unwrap_or(end).clamp(start, end);
            let entries = state.tail.range(split, end);
            if split == start {
                (entries, None)
            } else {
                let database = hold(&self.shared.database).clone().ok_or_else(closed)?;
                // Begun under the lock: the view of the disk and of the tail are of one moment.
                let read = database.begin_read().map_err(io::Error::other)?;
                (entries, Some((read, start, split)))
            }
        };
        if let Some((read, start, split)) = older {
            let sealer = self.sealer.clone();
            let rows = tokio::task::spawn_blocking(move || {
                database::without_panic(|| database::rows(&read, &sealer, start, split))
            });
            let rows = rows.await.map_err(io::Error::other)??;
            entries.splice(0..0, rows);
        }
        let whole = entries.iter().zip(start_of(&entries)..).all(|(e, i)| e.log_id.index == i);
        if whole { Ok(entries) } else { Err(io::Error::other("the log has a hole")) }
    }
}

fn start_of(entries: &[Entry]) -> u64 {
    entries.first().map_or(0, |entry| entry.log_id.index)
}

/// Entries from the front whose payloads add up to at most `bytes_max`; at least one.
fn limit(mut entries: Vec<Entry>, bytes_max: usize) -> Vec<Entry> {
    let mut sum = 0;
    let keep = entries
        .iter()
        .take_while(|entry| {
            sum += tail::weight(entry);
            sum <= bytes_max
        })
        .count();
    entries.truncate(keep.max(1));
    entries
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(hold(&self.shared.state).vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        Ok(limit(self.read(start, end).await?, APPEND_BYTES_MAX))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = hold(&self.shared.state);
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last.or(state.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let row = self.meta_row(VOTE, vote)?;
        hold(&self.shared.state).vote = Some(*vote);
        self.queue.write(|done| Op::Vote { row, done }).await
    }

    /// Returns before the disk has it: a lost `committed` is an older true one, and waiting would
    /// add a flush to every write.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        hold(&self.shared.state).committed = committed;
        match committed {
            Some(id) => {
                let row = self.meta_row(COMMITTED, &id)?;
                self.queue.send(Op::Committed { row }).await
            }
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(hold(&self.shared.state).committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let rows = entries
            .iter()
            .map(|entry| {
                let index = entry.log_id.index;
                let place = database::entry_place(index);
                Ok((index, self.sealer.seal(&place, &codec::encode(entry)?)?))
            })
            .collect::<io::Result<Vec<_>>>()?;
        let slot = self.queue.reserve().await?;
        {
            let mut state = hold(&self.shared.state);
            if let Some(last) = entries.last() {
                state.last = Some(last.log_id);
            }
            state.tail.push(entries, slot.sequence(), self.queue.flushed());
        }
        slot.send(Op::Append { rows, done: callback })
    }

    /// Waits for the disk: a snapshot of what comes next, which is written by another way, must not
    /// be there before these entries are gone.
    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        let committed = hold(&self.shared.state).committed;
        if let Some(committed) = committed.filter(|committed| committed.index >= from) {
            return Err(io::Error::other(format!(
                "entries from {from} on were to be cut off, and {} is committed: this manager or \
                 its leader has lost what was acknowledged",
                committed.index
            )));
        }
        let slot = self.queue.reserve().await?;
        {
            let mut state = hold(&self.shared.state);
            state.tail.truncate(from);
            state.last = state.last.filter(|newest| newest.index < from).or(last);
        }
        let (done, wait) = oneshot::channel();
        slot.send(Op::Truncate { from, done })?;
        wait.await.map_err(io::Error::other)?
    }

    /// Returns before the disk has it: entries that come back after a crash are purged again.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let row = self.meta_row(PURGED, &upto)?;
        let slot = self.queue.reserve().await?;
        {
            let mut state = hold(&self.shared.state);
            state.tail.purge(upto.index);
            state.purged = Some(upto);
            if state.last.is_none_or(|last| last.index <= upto.index) {
                state.last = None;
            }
        }
        slot.send(Op::Purge { row, upto: upto.index })
    }
}
