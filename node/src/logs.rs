//! The output of tasks on disk: written by the supervisor, read by anyone.
//!
//! A task's directory holds files `00000001.log`, `00000002.log` … of which the newest is being
//! written and the oldest are removed; nothing is renamed, so a reader that has read a file to its
//! end goes on with the next number. The file `end` says that no more will come.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

mod line;
mod reader;
mod splitter;
mod writer;

pub use line::{LogLine, LogStream};
pub use reader::read;
pub(crate) use splitter::Splitter;
pub(crate) use writer::Writer;

/// The directory of all logs below the data directory.
pub const DIRECTORY: &str = "logs";
/// The marker that no more will be written.
const END: &str = "end";

/// Where the logs of `task` are.
pub fn directory(data_dir: &Path, task: &str) -> PathBuf {
    data_dir.join(DIRECTORY).join(task)
}

/// Marks the logs of a task whose supervisor could not do so, so that followers end.
pub(crate) fn mark_ended(directory: &Path) -> io::Result<()> {
    std::fs::File::create(directory.join(END)).map(drop)
}

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

/// The numbers of the log files in `directory`, oldest first.
fn files(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn file(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:08}.log"))
}

#[cfg(test)]
mod tests;
