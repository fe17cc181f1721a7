//! A small file with the number of the last commit that the log acknowledged.
//!
//! redb discards the newest commit if its pages are damaged. After a power failure that commit was
//! never acknowledged, but after disk damage it may have been. The mark is written after a commit
//! is on disk and before it is acknowledged, so a log that is older than its mark has lost data.
//! The mark is not flushed: a power failure can only leave an older value, which was also true.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::Presence;
use crate::seal::{SEAL_BYTES, Sealer};

pub(crate) const FILE_NAME: &str = "log.mark";
const FILE_MODE: u32 = 0o600;
const PLACE: &[u8] = b"mark";
const BYTES: usize = 8 + SEAL_BYTES;

pub(crate) struct Mark {
    file: File,
    sealer: Arc<Sealer>,
    /// The number that it had when it was opened.
    pub(crate) found: u64,
}

impl Mark {
    pub(crate) fn open(folder: &Path, presence: Presence, sealer: Arc<Sealer>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(FILE_MODE);
        let file = options.create(presence == Presence::New).open(folder.join(FILE_NAME));
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => invalid(format!("{FILE_NAME} next to it is missing")),
            _other => error,
        })?;
        let mut mark = Self { file, sealer, found: 0 };
        if presence == Presence::New && mark.file.metadata()?.len() == 0 {
            mark.write(0)?;
            mark.file.sync_all()?;
        }
        mark.found = mark.read()?;
        Ok(mark)
    }

    /// Whether the log holds all that was acknowledged.
    pub(super) fn check(&self, commits: u64) -> io::Result<()> {
        let lost = self.found.saturating_sub(commits);
        if lost > 0 {
            return Err(invalid(format!("its newest {lost} commits are missing")));
        }
        Ok(())
    }

    pub(crate) fn write(&self, commits: u64) -> io::Result<()> {
        let row = self.sealer.seal(PLACE, &commits.to_be_bytes())?;
        self.file.write_all_at(&row, 0)
    }

    fn read(&self) -> io::Result<u64> {
        let broken = || invalid(format!("{FILE_NAME} next to it is damaged"));
        let mut row = [0; BYTES];
        if self.file.metadata()?.len() != BYTES as u64 {
            return Err(broken());
        }
        self.file.read_exact_at(&mut row, 0)?;
        let content = self.sealer.open(PLACE, &row).map_err(|_broken| broken())?;
        let number: [u8; 8] = content.try_into().map_err(|_length| broken())?;
        Ok(u64::from_be_bytes(number))
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
