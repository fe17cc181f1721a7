//! Which files a task's log has.

use std::io;
use std::path::{Path, PathBuf};

use crate::layout::LOGS;

/// The marker that no more will be written.
const END: &str = "end";

/// Where the logs of `task` are.
#[must_use]
pub fn directory(data_dir: &Path, task: &str) -> PathBuf {
    data_dir.join(LOGS).join(task)
}

/// Marks the logs of a task whose supervisor could not do so, so that followers end.
pub fn mark_ended(directory: &Path) -> io::Result<()> {
    std::fs::File::create(directory.join(END)).map(drop)
}

/// Whether no more will be written.
#[must_use]
pub fn has_ended(directory: &Path) -> bool {
    directory.join(END).exists()
}

/// The numbers of the log files in `directory`, oldest first.
pub fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The file of a number.
#[must_use]
pub fn file(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:08}.log"))
}
