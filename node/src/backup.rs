//! A cluster's state in one file: written while it runs, checked before it is used.
//!
//! The file is a line with its format, a line of JSON that says what it is of, the state's own
//! bytes, and the SHA-256 of all that. It holds the CA's key and every token: it is as secret as a
//! manager's disk.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use cluster::id::ClusterId;
use cluster::state::State;
use cluster::time::{Revision, Timestamp};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use serde::{Deserialize, Serialize};

/// First line of a backup.
const FORMAT: &[u8] = b"skein backup 1\n";
/// The longest second line that is read.
const HEAD_BYTES_MAX: u64 = 64 << 10;
const SUM_BYTES: u64 = SHA256_OUTPUT_LEN as u64;
/// Bytes that are read at once to check a file.
const PIECE_BYTES: usize = 256 << 10;

/// What a backup is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Head {
    /// The cluster.
    #[serde(rename = "ClusterID")]
    pub cluster: ClusterId,
    /// Its state's revision.
    pub revision: Revision,
    /// When it was made, milliseconds since the Unix epoch.
    pub made_at: Timestamp,
    /// Version of the program that made it.
    pub version: String,
    /// Nodes.
    pub nodes: usize,
    /// Networks.
    pub networks: usize,
    /// Services.
    pub services: usize,
    /// Tasks.
    pub tasks: usize,
}

/// A backup that cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file.
    #[error("{activity} backup {path}")]
    File {
        /// What was tried.
        activity: &'static str,
        /// Which.
        path: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{0} is no backup of a Skein cluster, or one of a newer version")]
    Foreign(String),
    /// It was changed.
    #[error("backup {path} is damaged: {reason}; take another one")]
    Damaged {
        /// Which.
        path: String,
        /// How it is known.
        reason: String,
    },
    /// There is nothing to keep.
    #[error("there is no cluster to back up")]
    Empty,
}

/// Passes bytes on and counts them into a sum.
struct Summing<W> {
    to: W,
    sum: Context,
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Writes a backup of a state.
pub fn write(state: &State, made_at: Timestamp, to: &mut dyn Write) -> io::Result<()> {
    let cluster = state.cluster.as_ref().ok_or_else(|| io::Error::other(BackupError::Empty))?;
    let head = Head {
        cluster: cluster.id,
        revision: state.revision,
        made_at,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        nodes: state.nodes.len(),
        networks: state.live_networks().count(),
        services: state.live_services().count(),
        tasks: state.tasks.len(),
    };
    let mut file = Summing { to: BufWriter::new(to), sum: Context::new(&SHA256) };
    file.write_all(FORMAT)?;
    serde_json::to_writer(&mut file, &head)?;
    file.write_all(b"\n")?;
    state.write_snapshot(&mut file).map_err(io::Error::other)?;
    let Summing { mut to, sum } = file;
    to.write_all(sum.finish().as_ref())?;
    to.flush()
}

/// Checks a backup and reads what it is of.
pub fn inspect(path: &Path) -> Result<Head, BackupError> {
    checked(path).map(|(head, _rest)| head)
}

/// Checks a backup and reads all of it.
pub fn read(path: &Path) -> Result<(Head, State), BackupError> {
    let (head, mut content) = checked(path)?;
    let state =
        State::read_snapshot(&mut content).map_err(|e| damaged(path, crate::causes::chain(&e)))?;
    if state.cluster.as_ref().is_none_or(|cluster| cluster.id != head.cluster) {
        return Err(damaged(path, "it holds another cluster than it says".to_owned()));
    }
    Ok((head, state))
}

fn damaged(path: &Path, reason: String) -> BackupError {
    BackupError::Damaged { path: path.display().to_string(), reason }
}

/// The head, and the state's bytes behind it.
fn checked(path: &Path) -> Result<(Head, impl Read), BackupError> {
    let failed =
        |source| BackupError::File { activity: "read", path: path.display().to_string(), source };
    let foreign = || BackupError::Foreign(path.display().to_string());
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let length = file.get_ref().metadata().map_err(failed)?.len();
    let mut format = Vec::new();
    file.by_ref().take(FORMAT.len() as u64).read_to_end(&mut format).map_err(failed)?;
    if format != FORMAT {
        return Err(foreign());
    }
    let content = length.checked_sub(SUM_BYTES).filter(|length| *length > FORMAT.len() as u64);
    let content = content.ok_or_else(|| damaged(path, "it is cut short".to_owned()))?;
    check_sum(&mut file, content)
        .map_err(failed)?
        .then_some(())
        .ok_or_else(|| damaged(path, "its checksum does not hold".to_owned()))?;
    file.seek(SeekFrom::Start(FORMAT.len() as u64)).map_err(failed)?;
    let mut head = Vec::new();
    let read = file.by_ref().take(HEAD_BYTES_MAX).read_until(b'\n', &mut head).map_err(failed)?;
    let rest = content.saturating_sub((FORMAT.len() + read) as u64);
    let head = serde_json::from_slice(&head).map_err(|e| damaged(path, e.to_string()))?;
    Ok((head, file.take(rest)))
}

fn check_sum(file: &mut BufReader<File>, length: u64) -> io::Result<bool> {
    file.seek(SeekFrom::Start(0))?;
    let mut sum = Context::new(&SHA256);
    let mut content = file.by_ref().take(length);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = content.read(&mut piece)?;
        if read == 0 {
            break;
        }
        sum.update(&piece[..read]);
    }
    let mut stored = Vec::new();
    file.read_to_end(&mut stored)?;
    Ok(stored == sum.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a backup is used as it was written or not at all.
    #[test]
    fn a_backup_that_was_changed_is_refused() {
        let state = crate::fixture::cluster();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let mut bytes = Vec::new();
        write(&state, Timestamp(7), &mut bytes).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let (head, back) = read(&path).unwrap();
        assert_eq!(back, state);
        assert_eq!((head.nodes, head.made_at), (state.nodes.len(), Timestamp(7)));
        assert_eq!(inspect(&path).unwrap(), head);

        for at in (0..bytes.len()).step_by(37) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            std::fs::write(&path, &flipped).unwrap();
            let error = read(&path).unwrap_err().to_string();
            let expected = if at < FORMAT.len() { "is no backup" } else { "is damaged" };
            assert!(error.contains(expected), "byte {at}: {error}");
        }
        for length in [0, 5, FORMAT.len(), FORMAT.len() + 40, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(inspect(&path).is_err(), "{length} bytes");
        }
        let mut nothing = Vec::new();
        let error = write(&State::default(), Timestamp(7), &mut nothing).unwrap_err();
        assert_eq!(error.to_string(), "there is no cluster to back up");
    }
}
