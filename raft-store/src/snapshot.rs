//! Snapshots as files: written whole, flushed, renamed into place, so a name that does not end in
//! `.tmp` is complete unless the disk lost something, which its checksum tells.
//!
//! A file is a header (magic, lengths, checksum), the metadata of openraft, and the machine's
//! bytes. Names are the index and the term, zero-padded, so that they sort as the log does.
//!
//! The newest two are kept, and the log is purged only up to the older one, so that a damaged
//! newest snapshot costs nothing but time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::codec;
use crate::error::Error;
use crate::types::{Snapshot, SnapshotMeta};

/// A state of more bytes cannot be snapshot.
pub(crate) const SNAPSHOT_BYTES_MAX: usize = 1 << 30;
/// Older files are removed.
const KEEP: usize = 2;
const MAGIC: &[u8; 8] = b"skeinsn1";
const HEADER_BYTES: usize = 8 + 8 + 8 + 4;
/// The metadata holds the members and no more.
const META_BYTES_MAX: u64 = 1 << 20;
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const SUFFIX: &str = ".snap";
const UNFINISHED: &str = ".tmp";
/// Put aside as evidence until the next start.
const DAMAGED: &str = ".damaged";
/// Digits of the index at the beginning of a name.
const INDEX_DIGITS: usize = 20;

/// The folder that holds the snapshots of one node.
pub(crate) struct SnapshotFolder {
    path: PathBuf,
    /// Held while files change: a snapshot that is made and one that is installed must not remove
    /// each other's files.
    state: Mutex<State>,
    /// Index of the older one of the kept snapshots; 0 while there is only one.
    floor: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Another process may own the folder now.
    Closed,
}

impl SnapshotFolder {
    /// Makes the folder and removes what an earlier process left unfinished.
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>, Error> {
        let failed = |source| Error::OpenSnapshots { path: path.to_path_buf(), source };
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path).map_err(failed)?;
        for ending in [UNFINISHED, DAMAGED] {
            for name in names(path, ending).map_err(failed)? {
                fs::remove_file(path.join(name)).map_err(failed)?;
            }
        }
        let folder = Self {
            path: path.to_path_buf(),
            state: Mutex::new(State::Open),
            floor: AtomicU64::new(0),
        };
        folder.prune().map_err(failed)?;
        Ok(Arc::new(folder))
    }

    /// The index up to which the log is not needed even if the newest snapshot is damaged.
    pub(crate) fn floor(&self) -> Option<u64> {
        Some(self.floor.load(Ordering::Acquire)).filter(|index| *index > 0)
    }

    /// Waits for a snapshot that is being written and refuses further ones.
    pub(crate) async fn close(self: &Arc<Self>) {
        let folder = self.clone();
        let closed = tokio::task::spawn_blocking(move || *folder.hold() = State::Closed).await;
        if let Err(e) = closed {
            tracing::warn!(error = %e, "closing the snapshot folder");
        }
    }

    fn hold(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a snapshot and returns its path when it is on disk under its name.
    pub(crate) async fn save(
        self: &Arc<Self>,
        meta: SnapshotMeta,
        body: Bytes,
    ) -> io::Result<PathBuf> {
        let folder = self.clone();
        tokio::task::spawn_blocking(move || folder.write(&meta, &body))
            .await
            .map_err(io::Error::other)?
    }

    /// The newest snapshot whose checksum holds; damaged ones are put aside.
    pub(crate) async fn newest_good(self: &Arc<Self>) -> io::Result<Option<Snapshot>> {
        let folder = self.clone();
        tokio::task::spawn_blocking(move || folder.read_newest()).await.map_err(io::Error::other)?
    }

    fn write(&self, meta: &SnapshotMeta, body: &[u8]) -> io::Result<PathBuf> {
        let state = self.hold();
        if *state == State::Closed {
            return Err(io::Error::other("the snapshot folder is closed"));
        }
        if body.len() > SNAPSHOT_BYTES_MAX {
            return Err(io::Error::other(format!(
                "a snapshot of {} bytes is over the limit of {SNAPSHOT_BYTES_MAX}",
                body.len()
            )));
        }
        let name = file_name(meta);
        let path = self.path.join(&name);
        let unfinished = self.path.join(format!("{name}{UNFINISHED}"));
        let head = codec::encode(meta)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(&unfinished)?;
        file.write_all(&header(&head, body))?;
        file.write_all(&head)?;
        file.write_all(body)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(&self.path)?.sync_all()?;
        self.prune()?;
        Ok(path)
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
            match read(&path) {
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
}

fn file_name(meta: &SnapshotMeta) -> String {
    let (index, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
    format!("{index:0INDEX_DIGITS$}-{term:0INDEX_DIGITS$}{SUFFIX}")
}

/// File names with this ending, sorted, so oldest first.
fn names(folder: &Path, ending: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        // A name that is not UTF-8 is not one of ours.
        if let Ok(name) = entry?.file_name().into_string()
            && name.ends_with(ending)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn header(head: &[u8], body: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&(head.len() as u64).to_le_bytes());
    header[16..24].copy_from_slice(&(body.len() as u64).to_le_bytes());
    let sum = crc32(crc32(0, head), body);
    header[24..].copy_from_slice(&sum.to_le_bytes());
    header
}

fn read(path: &Path) -> io::Result<Snapshot> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes < HEADER_BYTES as u64 {
        return Err(damaged("it is cut short"));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header)?;
    let word = |at: usize| {
        header[at..at + 8].iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte))
    };
    let (head_bytes, body_bytes) = (word(8), word(16));
    if header[..8] != *MAGIC {
        return Err(damaged("it is not a snapshot of this version"));
    }
    if head_bytes > META_BYTES_MAX || body_bytes > SNAPSHOT_BYTES_MAX as u64 {
        return Err(damaged("its lengths are over the limits"));
    }
    if bytes != HEADER_BYTES as u64 + head_bytes + body_bytes {
        return Err(damaged("it is cut short or has bytes too many"));
    }
    let mut head = vec![0; head_bytes as usize];
    file.read_exact(&mut head)?;
    let mut body = vec![0; body_bytes as usize];
    file.read_exact(&mut body)?;
    if crc32(crc32(0, &head), &body).to_le_bytes() != header[24..] {
        return Err(damaged("its checksum does not hold"));
    }
    Ok(Snapshot { meta: codec::decode(&head)?, snapshot: Bytes::from(body) })
}

/// CRC-32 of IEEE 802.3, continued from `sum`.
fn crc32(sum: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0xEDB8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes
        .iter()
        .fold(!sum, |sum, byte| TABLE[((sum ^ u32::from(*byte)) & 0xFF) as usize] ^ sum >> 8)
}
