//! Reads a task's log across rotation, and waits for more where asked to.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use futures_util::stream::unfold;
use supervise::logs::{LogLine, LogStream, file, has_ended, numbers};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::clock;

/// Tasks that ended and whose logs a node keeps.
pub const KEPT_MAX: usize = 100;
/// How often a follower at the end of the log looks for more.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
/// How much is read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Which lines a reader wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Only so many lines from the end of what is there when reading begins.
    pub tail: Option<usize>,
    /// Lines of this time and later.
    pub since: Option<SystemTime>,
    /// Lines of this time and earlier; a follower ends when it has passed.
    pub until: Option<SystemTime>,
    /// Whether to wait for more until the task has ended.
    pub follow: bool,
    /// Whether lines of standard output are wanted.
    pub stdout: bool,
    /// Whether lines of standard error are wanted.
    pub stderr: bool,
}

impl Query {
    /// All that there is, without waiting for more.
    pub fn all() -> Self {
        Query { tail: None, since: None, until: None, follow: false, stdout: true, stderr: true }
    }

    fn wants(&self, line: &LogLine) -> bool {
        let stream = match line.stream {
            LogStream::Stdout => self.stdout,
            LogStream::Stderr => self.stderr,
        };
        stream
            && self.since.is_none_or(|since| line.time >= since)
            && self.until.is_none_or(|until| line.time <= until)
    }
}

/// The lines of the log in `directory` that `query` wants, oldest first. The stream ends at the
/// end of the log; for a follower, at the end of the task.
pub fn read(directory: PathBuf, query: Query) -> impl Stream<Item = io::Result<LogLine>> + Send {
    let reader = Reader {
        directory,
        query,
        place: Place::Unknown,
        buffer: Vec::new(),
        taken: 0,
        seen: false,
        told: 0,
    };
    unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await {
            Ok(None) => None,
            Ok(Some(line)) => Some((Ok(line), Some(reader))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

/// Removes what is in `logs`, the directory of all logs, but for the [`KEPT_MAX`] tasks that wrote
/// last; the logs of the tasks named are kept in any case.
///
/// # Errors
/// When they cannot be listed or removed.
pub fn prune(logs: &Path, running: &BTreeSet<String>) -> io::Result<()> {
    let mut ended = Vec::new();
    let entries = match fs::read_dir(logs) {
        // No task has kept any.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let task = entry.file_name().to_string_lossy().into_owned();
        if !running.contains(&task) {
            ended.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    ended.sort_unstable_by(|one, other| other.cmp(one));
    ended.iter().skip(KEPT_MAX).try_for_each(|(_, log)| match fs::remove_dir_all(log) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    })
}

struct Reader {
    directory: PathBuf,
    query: Query,
    place: Place,
    /// Bytes that have been read; those before `taken` have been returned as lines.
    buffer: Vec<u8>,
    taken: usize,
    /// Whether the log has been there: a follower of a log that is removed ends.
    seen: bool,
    /// Lines that have been returned.
    told: usize,
}

enum Place {
    /// Where to begin is not decided yet.
    Unknown,
    In {
        number: u64,
        file: tokio::fs::File,
    },
}

/// What is behind the end of a file.
enum Beyond {
    File(u64),
    Nothing,
    End,
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<LogLine>> {
        // What is written while it reads is not more of the tail.
        let has_all = self.query.tail.is_some_and(|tail| self.told >= tail);
        if has_all && !self.query.follow {
            return Ok(None);
        }
        loop {
            while let Some(line) = self.take_line() {
                if self.query.until.is_some_and(|until| line.time > until) {
                    return Ok(None);
                }
                if self.query.wants(&line) {
                    self.told = self.told.saturating_add(1);
                    return Ok(Some(line));
                }
            }
            if !self.advance().await? {
                return Ok(None);
            }
        }
    }

    fn take_line(&mut self) -> Option<LogLine> {
        while let Some(length) = self.buffer[self.taken..].iter().position(|byte| *byte == b'\n') {
            let line = LogLine::decode(&self.buffer[self.taken..self.taken + length]);
            self.taken += length + 1;
            if line.is_some() {
                return line;
            }
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        None
    }

    /// Reads more, goes on to the next file or waits. `false` at the end.
    async fn advance(&mut self) -> io::Result<bool> {
        let Place::In { number, .. } = self.place else {
            return self.begin().await;
        };
        // What is beyond is asked before the read that finds nothing more in this file: a writer
        // never returns to a file once the next one or the end mark is there.
        let beyond = self.beyond(number)?;
        if self.fill().await? {
            return Ok(true);
        }
        match beyond {
            Beyond::File(next) => {
                self.open(next, 0).await?;
                Ok(true)
            }
            Beyond::End => Ok(false),
            Beyond::Nothing => Ok(self.wait().await),
        }
    }

    async fn wait(&self) -> bool {
        let over = self.query.until.is_some_and(|until| clock::wall() > until);
        if !self.query.follow || over {
            return false;
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        true
    }

    async fn begin(&mut self) -> io::Result<bool> {
        let numbers = match numbers(&self.directory) {
            Ok(numbers) => numbers,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        if numbers.is_empty() {
            return Ok(!self.seen && self.wait().await);
        }
        self.seen = true;
        let (directory, query) = (self.directory.clone(), self.query.clone());
        let start = tokio::task::spawn_blocking(move || start(&directory, &query, &numbers));
        let (number, offset) = start.await.map_err(io::Error::other)??;
        self.open(number, offset).await?;
        Ok(true)
    }

    /// Opens a file; where rotation has just removed it the place stays, and the next look finds
    /// what is left.
    async fn open(&mut self, number: u64, offset: u64) -> io::Result<()> {
        match tokio::fs::File::open(file(&self.directory, number)).await {
            Ok(mut file) => {
                file.seek(io::SeekFrom::Start(offset)).await?;
                // An entry that was cut at the end of the last file has no rest.
                self.buffer.clear();
                self.place = Place::In { number, file };
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn fill(&mut self) -> io::Result<bool> {
        let Place::In { file, .. } = &mut self.place else { return Ok(false) };
        self.buffer.reserve(CHUNK_BYTES);
        Ok(file.read_buf(&mut self.buffer).await? > 0)
    }

    fn beyond(&self, number: u64) -> io::Result<Beyond> {
        // The mark is looked for first: a file that was there before it is then listed.
        let ended = has_ended(&self.directory);
        let numbers = match numbers(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Beyond::End),
            numbers => numbers?,
        };
        Ok(match numbers.into_iter().find(|next| *next > number) {
            Some(next) => Beyond::File(next),
            None if ended => Beyond::End,
            None => Beyond::Nothing,
        })
    }
}

/// The file and offset at which the query's `tail` begins.
fn start(directory: &Path, query: &Query, numbers: &[u64]) -> io::Result<(u64, u64)> {
    let oldest = numbers.first().copied().unwrap_or(1);
    let Some(mut wanted) = query.tail else { return Ok((oldest, 0)) };
    for number in numbers.iter().rev() {
        let (offsets, size) = match matching_offsets(directory, query, *number, wanted) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found?,
        };
        wanted -= offsets.len();
        if wanted == 0 {
            return Ok((*number, offsets.front().copied().unwrap_or(size)));
        }
    }
    Ok((oldest, 0))
}

/// The offsets of the last `wanted` lines of a file that the query wants, and the file's size.
fn matching_offsets(
    directory: &Path,
    query: &Query,
    number: u64,
    wanted: usize,
) -> io::Result<(VecDeque<u64>, u64)> {
    let mut reader = BufReader::new(File::open(file(directory, number))?);
    let mut offsets = VecDeque::new();
    let mut offset = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = reader.read_until(b'\n', &mut line)? as u64;
        // An entry without its newline is still being written.
        if count == 0 || line.pop() != Some(b'\n') {
            return Ok((offsets, offset));
        }
        if LogLine::decode(&line).is_some_and(|line| query.wants(&line)) {
            offsets.push_back(offset);
            if offsets.len() > wanted {
                offsets.pop_front();
            }
        }
        offset += count;
    }
}

#[cfg(test)]
mod tests;
