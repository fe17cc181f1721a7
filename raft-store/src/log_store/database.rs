//! The tables of `log.redb`, and how they are opened, checked and read.
//!
//! Every row is sealed for its place ([`crate::seal`]). On open, redb checks the pages and `audit`
//! the rows: every row in the extent must be present and open. One case remains: redb discards a
//! commit whose pages are damaged, as after a torn write. `Mark` shows whether that commit had been
//! acknowledged.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable,
    StorageError, TableDefinition, TableError, WriteTransaction,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Presence;
use super::mark::Mark;
use crate::codec;
use crate::error::Error;
use crate::seal::Sealer;
use crate::types::{Entry, LogId, Vote};

pub(super) const FILE_NAME: &str = "log.redb";

/// Index of the entry → the entry.
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// One row per key below.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

pub(super) const VOTE: &str = "vote";
pub(super) const COMMITTED: &str = "committed";
pub(super) const PURGED: &str = "purged";
pub(super) const EXTENT: &str = "extent";
const RAFT_ID: &str = "raft_id";

/// Memory that redb may use as cache; the newest entries are held by the tail anyway.
const CACHE_BYTES: usize = 8 << 20;
/// The log shows who was a manager at which time: only root may read it.
const FOLDER_MODE: u32 = 0o700;
/// The same: keys of the cluster are in it.
const FILE_MODE: u32 = 0o600;

/// How far the log reached at the last commit, and which commit that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    pub(crate) commits: u64,
    /// Index of the entry that comes next.
    pub(crate) end: u64,
}

/// Metadata of the log.
pub(super) struct Meta {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) last: Option<LogId>,
    pub(super) extent: Extent,
}

/// An open log that passed all checks.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) meta: Meta,
    pub(super) mark: Mark,
}

/// Where a row is, as far as sealing goes.
pub(super) fn entry_place(index: u64) -> [u8; 12] {
    let mut place = *b"log\0\0\0\0\0\0\0\0\0";
    place[4..].copy_from_slice(&index.to_be_bytes());
    place
}

pub(super) fn meta_place(key: &str) -> Vec<u8> {
    [b"meta\0", key.as_bytes()].concat()
}

pub(super) fn open(
    folder: &Path,
    raft_id: u64,
    presence: Presence,
    sealer: &Arc<Sealer>,
) -> Result<Opened, Error> {
    let path = folder.join(FILE_NAME);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::InvalidData => {
            Error::Damaged { path: path.clone(), reason: source.to_string() }
        }
        _other => Error::OpenLog { path: path.clone(), source: Box::new(source) },
    };
    let is_there = match std::fs::metadata(&path) {
        Ok(file) => file.len() > 0,
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(failed(e)),
    };
    if presence == Presence::Existing && !is_there {
        return Err(Error::Gone { path });
    }
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(failed)?;
    // redb would make it readable for all; an empty file is one to it that is to be filled.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(FILE_MODE);
    options
        .open(&path)
        .and_then(|file| file.set_permissions(Permissions::from_mode(FILE_MODE)))
        .map_err(failed)?;
    let database = match without_panic(|| open_file(&path)) {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => return Err(Error::InUse { path }),
        database => database.map_err(failed)?,
    };
    let checked = without_panic(|| {
        let stored = match claimed(&database, sealer)? {
            None if presence == Presence::New => claim(&database, raft_id, sealer)?,
            None => return Err(damaged("it has no Raft id".to_owned())),
            Some(stored) => stored,
        };
        Ok((stored, if stored == raft_id { Some(audit(&database, sealer)?) } else { None }))
    });
    let (stored, meta) = checked.map_err(failed)?;
    let Some(meta) = meta else { return Err(Error::Foreign { path, stored, given: raft_id }) };
    let mark = Mark::open(folder, presence, sealer.clone()).map_err(failed)?;
    mark.check(meta.extent.commits).map_err(failed)?;
    sync_names(folder).map_err(failed)?;
    Ok(Opened { database, meta, mark })
}

fn open_file(path: &Path) -> io::Result<Database> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder.create(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => {
            io::Error::new(io::ErrorKind::ResourceBusy, "another process has it open")
        }
        DatabaseError::Storage(StorageError::Io(error)) => error,
        other => damaged(other.to_string()),
    })
}

fn damaged(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// redb's errors of reading: what is not a failure of the disk is damage.
fn storage(error: StorageError) -> io::Error {
    match error {
        StorageError::Io(error) => error,
        StorageError::PreviousIo => io::Error::other("the disk has refused an earlier write"),
        other => damaged(other.to_string()),
    }
}

fn table(error: TableError) -> io::Error {
    match error {
        TableError::Storage(error) => storage(error),
        other => damaged(other.to_string()),
    }
}

/// redb takes some damage for a fault of its own and panics.
pub(super) fn without_panic<T>(read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        Err(damaged(text.unwrap_or("its pages contradict each other").to_owned()))
    })
}

/// redb's errors of writing; the disk's own words are kept as they are.
pub(super) fn refused(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// Puts the names of a new file and folder on disk: a vote in a file that is gone after a power
/// failure would be given again.
fn sync_names(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// The Raft id that the log was made for; `None` in a database without tables.
fn claimed(database: &Database, sealer: &Sealer) -> io::Result<Option<u64>> {
    let read = database.begin_read().map_err(io::Error::other)?;
    match read.open_table(META) {
        Ok(_meta) => meta_row(&read, RAFT_ID, sealer),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(table(error)),
    }
}

/// Makes the tables of a new log.
fn claim(database: &Database, raft_id: u64, sealer: &Sealer) -> io::Result<u64> {
    let write = database.begin_write().map_err(refused)?;
    write.open_table(LOG).map_err(table)?;
    put_meta(&write, RAFT_ID, &raft_id, sealer)?;
    put_meta(&write, EXTENT, &Extent { commits: 0, end: 0 }, sealer)?;
    write.commit().map_err(refused)?;
    Ok(raft_id)
}

pub(super) fn put_meta<T: Serialize>(
    write: &WriteTransaction,
    key: &str,
    value: &T,
    sealer: &Sealer,
) -> io::Result<()> {
    let row = sealer.seal(&meta_place(key), &codec::encode(value)?)?;
    let mut meta = write.open_table(META).map_err(table)?;
    meta.insert(key, row.as_slice()).map_err(storage)?;
    Ok(())
}

fn meta_row<T: DeserializeOwned>(
    read: &ReadTransaction,
    key: &str,
    sealer: &Sealer,
) -> io::Result<Option<T>> {
    let meta = read.open_table(META).map_err(table)?;
    let Some(row) = meta.get(key).map_err(storage)? else { return Ok(None) };
    let content = sealer
        .open(&meta_place(key), row.value())
        .map_err(|broken| damaged(format!("row {key}: {broken}")))?;
    codec::decode(&content).map(Some).map_err(|e| damaged(format!("row {key}: {e}")))
}

/// Reads every row: none may be missing, too many, or other than it was written.
fn audit(database: &Database, sealer: &Sealer) -> io::Result<Meta> {
    let read = database.begin_read().map_err(io::Error::other)?;
    let extent: Extent = meta_row(&read, EXTENT, sealer)?
        .ok_or_else(|| damaged("it does not say how far it reaches".to_owned()))?;
    let vote: Option<Vote> = meta_row(&read, VOTE, sealer)?;
    let committed: Option<LogId> = meta_row(&read, COMMITTED, sealer)?;
    let purged: Option<LogId> = meta_row(&read, PURGED, sealer)?;
    let first = purged.map_or(0, |id| id.index + 1);
    let mut last = None;
    let mut next = first;
    for row in read.open_table(LOG).map_err(table)?.iter().map_err(storage)? {
        let (index, row) = row.map_err(storage)?;
        if index.value() != next {
            return Err(damaged(format!("entry {next} is missing")));
        }
        last = Some(entry(sealer, next, row.value())?.log_id);
        next += 1;
    }
    if next != extent.end.max(first) {
        return Err(damaged(format!("it ends before entry {next}, not {}", extent.end)));
    }
    let newest = last.or(purged);
    if committed > newest {
        return Err(damaged("entries that were acknowledged are missing".to_owned()));
    }
    if vote.is_none() && newest.is_some() {
        return Err(damaged("it has entries and no vote".to_owned()));
    }
    Ok(Meta { vote, committed, purged, last, extent })
}

fn entry(sealer: &Sealer, index: u64, row: &[u8]) -> io::Result<Entry> {
    let content = sealer
        .open(&entry_place(index), row)
        .map_err(|broken| damaged(format!("entry {index}: {broken}")))?;
    let entry: Entry =
        codec::decode(&content).map_err(|e| damaged(format!("entry {index}: {e}")))?;
    if entry.log_id.index != index {
        return Err(damaged(format!("entry {index} says that it is {}", entry.log_id.index)));
    }
    Ok(entry)
}

/// The entries `[start, end)` that are on disk.
pub(super) fn rows(
    read: &ReadTransaction,
    sealer: &Sealer,
    start: u64,
    end: u64,
) -> io::Result<Vec<Entry>> {
    let log = read.open_table(LOG).map_err(table)?;
    log.range(start..end)
        .map_err(storage)?
        .map(|row| {
            let (index, row) = row.map_err(storage)?;
            entry(sealer, index.value(), row.value())
        })
        .collect()
}
