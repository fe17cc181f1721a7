//! What a task's directory says about it, for readers that come when no supervisor lives.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::layout::{LAYERS, NAMESPACES, SANDBOX_PREFIX, WORKS};
use crate::protocol::TaskReport;
use crate::spec::{LaunchSpec, Root};

/// The content of [`LAUNCH`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// What the task is to run; without a command, no more than its id is known yet.
    pub spec: LaunchSpec,
    /// Where the node keeps what does not outlive its boot.
    pub run_dir: PathBuf,
    /// Where the node keeps the rest.
    pub data_dir: PathBuf,
    /// By the monotonic clock. Tells this launch from a later one of the same task.
    pub launched_at: Duration,
}

impl Launch {
    /// A sandbox for `task`.
    #[must_use]
    pub fn sandbox(task: &str, run_dir: &Path, data_dir: &Path, launched_at: Duration) -> Self {
        let spec = LaunchSpec::new(task, Root::Host, Vec::new());
        Launch { spec, run_dir: run_dir.to_owned(), data_dir: data_dir.to_owned(), launched_at }
    }

    /// The sandbox alone.
    pub(crate) fn without_task(&self) -> Self {
        Self::sandbox(&self.spec.task, &self.run_dir, &self.data_dir, self.launched_at)
    }

    /// Whether a task has been launched in the sandbox.
    #[must_use]
    pub fn has_task(&self) -> bool {
        !self.spec.argv.is_empty()
    }

    /// The file that names the task's sandbox.
    pub(crate) fn namespace_file(&self) -> PathBuf {
        let name = format!("{SANDBOX_PREFIX}{}", self.spec.task);
        self.run_dir.join(NAMESPACES).join(name)
    }

    /// The task's private writable directory, as the node sees it.
    pub(crate) fn work_directory(&self) -> PathBuf {
        self.data_dir.join(WORKS).join(&self.spec.task)
    }

    /// What the task has changed in its root, as the node sees it.
    pub(crate) fn layer_directory(&self) -> PathBuf {
        self.data_dir.join(LAYERS).join(&self.spec.task)
    }
}

/// The content of [`STATUS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) report: TaskReport,
    /// When pid 1 was forked, in the kernel's ticks: tells it from a later process of that pid.
    pub(crate) pid_ticks: Option<u64>,
}

/// Replaces the file `name` in `directory` by `value`, whole or not at all for every reader. What
/// a loss of power would end anyway need not survive it.
pub(crate) fn write<T: Serialize>(directory: &Path, name: &str, value: &T) -> io::Result<()> {
    replace(directory, name, value, false)
}

/// As [`write`], and it survives a loss of power.
pub(crate) fn write_durably<T: Serialize>(
    directory: &Path,
    name: &str,
    value: &T,
) -> io::Result<()> {
    replace(directory, name, value, true)?;
    File::open(directory)?.sync_all()
}

fn replace<T: Serialize>(directory: &Path, name: &str, value: &T, sync: bool) -> io::Result<()> {
    let partial = directory.join(format!("{name}.new"));
    let mut file = File::create(&partial)?;
    file.write_all(&serde_json::to_vec_pretty(value)?)?;
    if sync {
        file.sync_all()?;
    }
    fs::rename(&partial, directory.join(name))
}

/// Reads the file `name` in `directory`.
pub(crate) fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(directory.join(name))?)?)
}

/// Whether a file is there that was not written so: it is replaced whole or not at all.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// When a living process was forked, in ticks since boot; `None` when there is none.
pub(crate) fn process_ticks(pid: i32) -> Option<u64> {
    ticks_of_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22 of /proc/PID/stat (proc_pid_stat(5)). The second field is in parentheses and may hold
/// anything. A zombie has ended, so it counts as none.
fn ticks_of_stat(stat: &str) -> Option<u64> {
    let mut rest = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = rest.next()?;
    // The state is field 3, so the start time is the nineteenth after it.
    let ticks = rest.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(ticks)
}

#[cfg(test)]
mod tests;
