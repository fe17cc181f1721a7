//! Snapshots as files. A file is written completely, flushed, and renamed into place, so a file
//! whose name does not end in `.tmp` is complete. If the disk loses data, the seals show it.
//!
//! Names are the index and the term, zero-padded, so that they sort as the log does.
//!
//! The newest two are kept, and the log is purged only up to the older one, so that a damaged
//! newest snapshot costs nothing but time. A snapshot that a leader sent, or with which a recovery
//! started, is the only one until the next two are made.

mod file;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use self::file::{
    FRAME_BYTES, SNAPSHOT_BYTES_MAX, SnapshotFile, SnapshotReader, SnapshotWriter,
};
use crate::disk_full::DiskFull;
use crate::error::Error;
use crate::seal::Sealer;
use crate::types::{SnapshotContent, SnapshotMeta, TypeConfig};

pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotFile>;

/// Older files are removed.
const KEEP: usize = 2;
const FOLDER_MODE: u32 = 0o700;
const SUFFIX: &str = ".snap";
const UNFINISHED: &str = ".tmp";
/// Put aside as evidence until the next start.
const DAMAGED: &str = ".damaged";
/// Digits of the index at the beginning of a name.
const INDEX_DIGITS: usize = 20;

/// The folder that holds the snapshots of one node.
pub(crate) struct SnapshotFolder {
    path: PathBuf,
    sealer: Arc<Sealer>,
    /// Held while this node writes a snapshot of its own.
    writing: Mutex<()>,
    /// Held while files change: a snapshot that is made and one that is installed must not remove
    /// each other's files.
    state: Mutex<State>,
    disk: DiskFull,
    /// Index of the older one of the kept snapshots; 0 while there is only one.
    floor: AtomicU64,
    /// Files that were begun: no two have one name.
    begun: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Another process may own the folder now.
    Closed,
}

impl SnapshotFolder {
    /// Makes the folder and removes what an earlier process left unfinished.
    pub(crate) fn open(path: &Path, sealer: Arc<Sealer>) -> Result<Arc<Self>, Error> {
        let failed = |source| Error::OpenSnapshots { path: path.to_path_buf(), source };
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path).map_err(failed)?;
        for ending in [UNFINISHED, DAMAGED] {
            for name in names(path, ending).map_err(failed)? {
                fs::remove_file(path.join(name)).map_err(failed)?;
            }
        }
        let folder = Self {
            path: path.to_path_buf(),
            sealer,
            writing: Mutex::new(()),
            state: Mutex::new(State::Open),
            disk: DiskFull::default(),
            floor: AtomicU64::new(0),
            begun: AtomicU64::new(0),
        };
        folder.prune().map_err(failed)?;
        Ok(Arc::new(folder))
    }

    /// The index up to which the log is not needed even if the newest snapshot is damaged.
    pub(crate) fn floor(&self) -> Option<u64> {
        Some(self.floor.load(Ordering::Acquire)).filter(|index| *index > 0)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for a snapshot that is being written and refuses further ones.
    pub(crate) async fn close(self: &Arc<Self>) {
        let folder = self.clone();
        let closed = tokio::task::spawn_blocking(move || {
            let _written = folder.writing.lock().unwrap_or_else(PoisonError::into_inner);
            *folder.hold() = State::Closed;
        });
        let closed = closed.await;
        if let Err(e) = closed {
            tracing::warn!(error = %e, "closing the snapshot folder");
        }
    }

    fn hold(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold_open(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.hold();
        match *state {
            State::Open => Ok(state),
            State::Closed => Err(io::Error::other("the snapshot folder is closed")),
        }
    }

    /// Writes a snapshot and returns it when it is on disk under its name.
    pub(crate) async fn save(
        self: &Arc<Self>,
        meta: SnapshotMeta,
        content: SnapshotContent,
    ) -> io::Result<SnapshotFile> {
        let folder = self.clone();
        let saved = tokio::task::spawn_blocking(move || folder.write(&meta, content));
        saved.await.map_err(io::Error::other)?
    }

    fn write(&self, meta: &SnapshotMeta, content: SnapshotContent) -> io::Result<SnapshotFile> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.hold_open()?);
        let written = self.begin(meta).and_then(|mut writer| {
            content(&mut writer)?;
            writer.finish()
        });
        let placed = written.and_then(|written| self.place(meta, written));
        placed.inspect_err(|error| self.disk.note(error))
    }

    /// Whether the disk had no room for a snapshot of this node's own.
    pub(crate) fn disk_is_full(&self) -> bool {
        self.disk.was_seen()
    }

    /// Begins to write one that a leader sends.
    pub(crate) fn receive(&self, meta: &SnapshotMeta) -> io::Result<SnapshotWriter> {
        let _alone = self.hold_open()?;
        self.begin(meta)
    }

    /// One that is installed may be read yet while the next one comes in.
    fn begin(&self, meta: &SnapshotMeta) -> io::Result<SnapshotWriter> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{number}{UNFINISHED}"));
        SnapshotWriter::create(path, meta, self.sealer.clone())
    }

    /// Gives a finished snapshot its name.
    pub(crate) fn place(
        &self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> io::Result<SnapshotFile> {
        let _alone = self.hold_open()?;
        let path = self.path.join(file_name(meta));
        fs::rename(snapshot.path(), &path)?;
        File::open(&self.path)?.sync_all()?;
        self.prune()?;
        Ok(snapshot.renamed(path))
    }

    /// The newest snapshot whose seals hold; damaged ones are put aside.
    pub(crate) async fn newest_good(self: &Arc<Self>) -> io::Result<Option<Snapshot>> {
        let folder = self.clone();
        tokio::task::spawn_blocking(move || folder.read_newest()).await.map_err(io::Error::other)?
    }

    fn prune(&self) -> io::Result<()> {
        let names = names(&self.path, SUFFIX)?;
        for name in names.iter().rev().skip(KEEP) {
            fs::remove_file(self.path.join(name))?;
        }
        let oldest = names.iter().rev().nth(KEEP - 1);
        let floor = oldest.and_then(|name| name.get(..INDEX_DIGITS)?.parse().ok()).unwrap_or(0);
        self.floor.store(floor, Ordering::Release);
        Ok(())
    }

    fn read_newest(&self) -> io::Result<Option<Snapshot>> {
        let _alone = self.hold();
        for name in names(&self.path, SUFFIX)?.iter().rev() {
            let path = self.path.join(name);
            match self.read(&path, name) {
                Ok(snapshot) => return Ok(Some(snapshot)),
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(path = %path.display(), error = %e, "a snapshot is damaged");
                    fs::rename(&path, self.path.join(format!("{name}{DAMAGED}")))?;
                    self.prune()?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    fn read(&self, path: &Path, name: &str) -> io::Result<Snapshot> {
        let (meta, snapshot) = SnapshotFile::open(path, self.sealer.clone())?;
        if file_name(&meta) != name {
            let reason = format!("it is {} under another name", file_name(&meta));
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(Snapshot { meta, snapshot })
    }
}

fn file_name(meta: &SnapshotMeta) -> String {
    let (index, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
    format!("{index:0INDEX_DIGITS$}-{term:0INDEX_DIGITS$}{SUFFIX}")
}

/// File names with this ending, sorted, so oldest first.
fn names(folder: &Path, ending: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        // All our names are UTF-8.
        if let Ok(name) = entry?.file_name().into_string()
            && name.ends_with(ending)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
