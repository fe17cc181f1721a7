//! Files that must survive a power cut: written aside, synced, renamed, directory synced.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The least that a file takes on most file systems.
const PROBE_BYTES: usize = 4096;

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{activity} {path}: {reason}")]
pub struct DiskError {
    /// What was tried.
    pub activity: &'static str,
    /// Which file.
    pub path: PathBuf,
    /// The system's words.
    pub reason: String,
}

fn failed(activity: &'static str, path: &Path) -> impl Fn(io::Error) -> DiskError {
    move |e| DiskError { activity, path: path.to_owned(), reason: e.to_string() }
}

/// Makes a directory that only root may enter.
pub fn private_dir(path: &Path) -> Result<(), DiskError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(failed("make directory", path))
}

/// Replaces a file whole; only root may read it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let err = failed("write", path);
    let aside = path.with_extension("new");
    if let Err(error) = fill(&aside, bytes) {
        // It would take the room that the next attempt needs.
        let _ = fs::remove_file(&aside);
        return Err(err(error));
    }
    fs::rename(&aside, path).map_err(&err)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(&err)
}

fn fill(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Whether files can be written in a directory now.
pub fn probe(dir: &Path) -> Result<(), DiskError> {
    let path = dir.join("probe.new");
    let filled = fill(&path, &[0; PROBE_BYTES]).map_err(failed("write", &path));
    let removed = remove(&path);
    filled.and(removed)
}

/// Replaces a JSON file whole.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), DiskError> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| failed("encode", path)(io::Error::other(e)))?;
    write(path, &bytes)
}

/// Reads a JSON file; `None` if there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DiskError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("read", path)(e)),
    };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|e| failed("read", path)(io::Error::other(e)))
}

/// Renames a file or a directory; success if there is none, as when it was renamed before.
pub fn rename(from: &Path, to: &Path) -> Result<(), DiskError> {
    let err = failed("rename", from);
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed.map_err(&err)?,
    }
    for dir in [from.parent(), to.parent()].into_iter().flatten() {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(&err)?;
    }
    Ok(())
}

/// Removes a file or a directory with all that is in it; success if there is none.
pub fn remove(path: &Path) -> Result<(), DiskError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(e)),
        _gone => Ok(()),
    }
}
