//! The tables of `log.redb` and how they are opened and read.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable,
    TableDefinition,
};
use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::Error;
use crate::types::{Entry, LogId, Vote};

pub(super) const FILE_NAME: &str = "log.redb";

/// Index of the entry → the entry.
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// One row per key below.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

pub(super) const VOTE: &str = "vote";
pub(super) const COMMITTED: &str = "committed";
pub(super) const PURGED: &str = "purged";
const RAFT_ID: &str = "raft_id";

/// Memory that redb may use as cache; the newest entries are held by the tail anyway.
const CACHE_BYTES: usize = 8 << 20;
/// The log tells who was a manager when: only root reads it.
const FOLDER_MODE: u32 = 0o700;
/// The same: keys of the cluster are in it.
const FILE_MODE: u32 = 0o600;

/// What the log holds beside entries.
pub(super) struct Meta {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) last: Option<LogId>,
}

pub(super) fn open(folder: &Path, raft_id: u64) -> Result<(Database, Meta), Error> {
    let path = folder.join(FILE_NAME);
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::OpenLog {
        path: path.clone(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)
        .map_err(|e| failed(Box::new(e)))?;
    // redb would make it readable for all; an empty file is one to it that is to be filled.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(FILE_MODE);
    options
        .open(&path)
        .and_then(|file| file.set_permissions(Permissions::from_mode(FILE_MODE)))
        .map_err(|e| failed(Box::new(e)))?;
    let database = match Builder::new().set_cache_size(CACHE_BYTES).create(&path) {
        Ok(database) => database,
        Err(DatabaseError::DatabaseAlreadyOpen) => return Err(Error::InUse { path }),
        Err(e) => return Err(failed(Box::new(e))),
    };
    let stored = claim(&database, raft_id).map_err(|e| failed(Box::new(e)))?;
    if stored != raft_id {
        return Err(Error::Foreign { path, stored, given: raft_id });
    }
    let meta = read_meta(&database).map_err(|e| failed(Box::new(e)))?;
    sync_names(folder).map_err(|e| failed(Box::new(e)))?;
    Ok((database, meta))
}

/// Puts the names of a new file and folder on disk: a vote in a file that is gone after a power
/// failure would be given again.
fn sync_names(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Makes the tables, writes the id into a new file, and returns the id that the file has.
fn claim(database: &Database, raft_id: u64) -> io::Result<u64> {
    let write = database.begin_write().map_err(io::Error::other)?;
    let stored = {
        write.open_table(LOG).map_err(io::Error::other)?;
        let mut meta = write.open_table(META).map_err(io::Error::other)?;
        let stored = meta
            .get(RAFT_ID)
            .map_err(io::Error::other)?
            .map(|row| codec::decode::<u64>(row.value()))
            .transpose()?;
        match stored {
            Some(id) => id,
            None => {
                let row = codec::encode(&raft_id)?;
                meta.insert(RAFT_ID, row.as_slice()).map_err(io::Error::other)?;
                raft_id
            }
        }
    };
    write.commit().map_err(io::Error::other)?;
    Ok(stored)
}

fn read_meta(database: &Database) -> io::Result<Meta> {
    let read = database.begin_read().map_err(io::Error::other)?;
    let log = read.open_table(LOG).map_err(io::Error::other)?;
    let last = log
        .last()
        .map_err(io::Error::other)?
        .map(|(_, row)| codec::decode::<Entry>(row.value()))
        .transpose()?
        .map(|entry| entry.log_id);
    Ok(Meta {
        vote: meta_row(&read, VOTE)?,
        committed: meta_row(&read, COMMITTED)?,
        purged: meta_row(&read, PURGED)?,
        last,
    })
}

fn meta_row<T: DeserializeOwned>(read: &ReadTransaction, key: &str) -> io::Result<Option<T>> {
    let meta = read.open_table(META).map_err(io::Error::other)?;
    let row = meta.get(key).map_err(io::Error::other)?;
    Ok(row.map(|row| codec::decode(row.value())).transpose()?)
}

/// The entries `[start, end)` that are on disk.
pub(super) fn rows(read: &ReadTransaction, start: u64, end: u64) -> io::Result<Vec<Entry>> {
    let log = read.open_table(LOG).map_err(io::Error::other)?;
    log.range(start..end)
        .map_err(io::Error::other)?
        .map(|row| {
            let (_, row) = row.map_err(io::Error::other)?;
            Ok(codec::decode(row.value())?)
        })
        .collect()
}
