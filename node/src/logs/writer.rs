//! Splits a task's output into lines and writes them to files that are rotated by size.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::line::{LogLine, LogStream, TEXT_BYTES_MAX};
use crate::executor::LogLimits;

/// Rotation keeps at least the file before the one being written.
const FILES_MIN: usize = 2;
/// Entries are written out when this much has been gathered.
const BATCH_BYTES: usize = 64 << 10;

/// Writes the log of one task.
pub(crate) struct Writer {
    directory: PathBuf,
    limits: LogLimits,
    file: File,
    number: u64,
    size: u64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Writer {
    /// Begins a new file in `directory`, which is made when missing.
    pub(crate) fn open(directory: &Path, limits: LogLimits) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let number = super::files(directory)?.last().map_or(1, |last| last + 1);
        let file = create(directory, number)?;
        let directory = directory.to_owned();
        let (stdout, stderr) = (Vec::new(), Vec::new());
        Ok(Writer { directory, limits, file, number, size: 0, stdout, stderr })
    }

    /// Takes what the task has written to `stream`, read at `time`.
    ///
    /// # Errors
    /// When it cannot be written; what was gathered so far is then lost, and later calls may
    /// succeed.
    pub(crate) fn write(
        &mut self,
        stream: LogStream,
        bytes: &[u8],
        time: SystemTime,
    ) -> io::Result<()> {
        let mut rest = std::mem::take(self.pending(stream));
        rest.extend_from_slice(bytes);
        let mut start = 0;
        let mut batch = Vec::new();
        loop {
            let open = &rest[start..];
            let window = &open[..open.len().min(TEXT_BYTES_MAX)];
            let (text, partial, next) = match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => (&window[..end], false, start + end + 1),
                // A newline just behind the window ends the line without an empty rest.
                None if open.get(TEXT_BYTES_MAX) == Some(&b'\n') => {
                    (window, false, start + TEXT_BYTES_MAX + 1)
                }
                None if open.len() > TEXT_BYTES_MAX => (window, true, start + TEXT_BYTES_MAX),
                None => break,
            };
            LogLine { time, stream, partial, text: text.to_vec() }.encode(&mut batch);
            start = next;
            if batch.len() >= BATCH_BYTES {
                self.append(&batch)?;
                batch.clear();
            }
        }
        rest.drain(..start);
        *self.pending(stream) = rest;
        self.append(&batch)
    }

    /// Writes lines that have no newline yet, and the mark that this is the end.
    pub(crate) fn close(mut self, time: SystemTime) -> io::Result<()> {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let text = std::mem::take(self.pending(stream));
            if !text.is_empty() {
                let mut entry = Vec::new();
                LogLine { time, stream, partial: false, text }.encode(&mut entry);
                self.append(&entry)?;
            }
        }
        super::mark_ended(&self.directory)
    }

    fn pending(&mut self, stream: LogStream) -> &mut Vec<u8> {
        match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        }
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
        let numbers = super::files(&self.directory)?;
        let keep = FILES_MIN.max(self.limits.files_max as usize);
        for number in numbers.iter().take(numbers.len().saturating_sub(keep)) {
            fs::remove_file(super::file(&self.directory, *number))?;
        }
        Ok(())
    }
}

fn create(directory: &Path, number: u64) -> io::Result<File> {
    File::options().append(true).create_new(true).open(super::file(directory, number))
}
