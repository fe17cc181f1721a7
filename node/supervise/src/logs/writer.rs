//! Writes the lines of a task's output to files that are rotated by size.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::files::{file, mark_ended, numbers};
use super::line::LogStream;
use super::splitter::Splitter;
use crate::spec::LogLimits;

/// Rotation keeps at least the file before the one being written.
const FILES_MIN: usize = 2;
/// Entries are written out when this much has been gathered.
const BATCH_BYTES: usize = 64 << 10;

/// Writes the log of one task.
pub struct Writer {
    directory: PathBuf,
    limits: LogLimits,
    file: File,
    number: u64,
    size: u64,
    splitter: Splitter,
}

impl Writer {
    /// Begins a new file in `directory`, which is made when missing.
    pub fn open(directory: &Path, limits: LogLimits) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let number = numbers(directory)?.last().map_or(1, |last| last + 1);
        let file = create(directory, number)?;
        let directory = directory.to_owned();
        let splitter = Splitter::default();
        Ok(Writer { directory, limits, file, number, size: 0, splitter })
    }

    /// Takes what the task has written to `stream`, read at `time`.
    ///
    /// # Errors
    /// When it cannot be written; what was gathered so far is then lost, and later calls may
    /// succeed.
    pub fn write(&mut self, stream: LogStream, bytes: &[u8], time: SystemTime) -> io::Result<()> {
        let mut batch = Vec::new();
        for line in self.splitter.split(stream, bytes, time) {
            line.encode(&mut batch);
            if batch.len() >= BATCH_BYTES {
                self.append(&batch)?;
                batch.clear();
            }
        }
        self.append(&batch)
    }

    /// Writes lines that have no newline yet, and the mark that this is the end.
    pub fn close(mut self, time: SystemTime) -> io::Result<()> {
        for line in self.splitter.rest(time) {
            let mut entry = Vec::new();
            line.encode(&mut entry);
            self.append(&entry)?;
        }
        mark_ended(&self.directory)
    }

    /// Writes whole entries. A batch is never split over files, so a file exceeds its limit by
    /// less than one batch.
    fn append(&mut self, entries: &[u8]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        if self.size >= self.limits.file_bytes_max {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(entries) {
            // Half an entry would make all that follow unreadable.
            self.file.set_len(self.size)?;
            return Err(error);
        }
        self.size += entries.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = create(&self.directory, self.number + 1)?;
        self.number += 1;
        self.size = 0;
        let numbers = numbers(&self.directory)?;
        let keep = FILES_MIN.max(self.limits.files_max as usize);
        for number in numbers.iter().take(numbers.len().saturating_sub(keep)) {
            fs::remove_file(file(&self.directory, *number))?;
        }
        Ok(())
    }
}

fn create(directory: &Path, number: u64) -> io::Result<File> {
    File::options().append(true).create_new(true).open(file(directory, number))
}
