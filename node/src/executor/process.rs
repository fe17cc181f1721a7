//! Runs tasks as supervised processes of this node.
//!
//! The executor holds nothing that cannot be found again: what is known of a task is its directory
//! `<run-dir>/tasks/<task id>` and its supervisor, and [`ProcessExecutor::adopt_all`] returns
//! both after a restart of the daemon.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use supervise::client::{self, START_LIMIT, TaskDir, Unread};
use supervise::layout::{LOGS, TASKS};
use supervise::{Launch, logs};

use super::{LaunchSpec, Root};
use crate::clock;

mod handle;

pub use handle::{Fds, Handle};

/// Tasks that ended and whose logs a node keeps.
pub const LOGS_KEPT_MAX: usize = 100;
/// How often a supervisor that is starting is looked for.
const ADOPT_INTERVAL: Duration = Duration::from_millis(20);

/// Why an executor could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This task cannot run on this node, ever; the text is for the user.
    #[error("{reason}")]
    Rejected {
        /// What is wrong, with the value and the remedy.
        reason: String,
    },
    /// A task of this id is here already.
    #[error("task {task} has already been launched")]
    AlreadyLaunched {
        /// The task.
        task: String,
    },
    /// The supervisor could not be started or did not become ready.
    #[error("launch task {task}")]
    Launch {
        /// The task.
        task: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The supervisor does not answer.
    #[error("reach the supervisor of task {task}")]
    Supervisor {
        /// The task.
        task: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The request does not fit the task's phase.
    #[error("task {task}: {reason}")]
    Refused {
        /// The task.
        task: String,
        /// The supervisor's words.
        reason: String,
    },
    /// What is left of a task could not be removed.
    #[error("remove what is left of task {task}")]
    Remove {
        /// The task.
        task: String,
        /// What went wrong.
        source: io::Error,
    },
}

impl Error {
    /// Whether the reason may pass, so that trying again can help. Final is what the spec asks for
    /// and this node does not have or offer; a lack of memory, disk, processes or descriptors, a
    /// missing directory of Skein's, and a supervisor that is slow or gone may pass.
    pub fn may_pass(&self) -> bool {
        match self {
            Error::Rejected { .. } | Error::Refused { .. } => false,
            Error::AlreadyLaunched { .. }
            | Error::Launch { .. }
            | Error::Supervisor { .. }
            | Error::Remove { .. } => true,
        }
    }
}

/// The executor of one node.
#[derive(Debug, Clone)]
pub struct ProcessExecutor {
    exe: PathBuf,
    run_dir: PathBuf,
    data_dir: PathBuf,
}

impl ProcessExecutor {
    /// An executor whose supervisors are the program `exe`, called as `exe supervise DIR`.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub fn new(exe: &Path, run_dir: &Path, data_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(run_dir)?;
        fs::create_dir_all(data_dir)?;
        let (run_dir, data_dir) = (run_dir.canonicalize()?, data_dir.canonicalize()?);
        fs::create_dir_all(run_dir.join(TASKS))?;
        Ok(ProcessExecutor { exe: exe.to_owned(), run_dir, data_dir })
    }

    /// Makes the task's sandbox. The task runs when [`Handle::start`] is called.
    ///
    /// # Errors
    /// [`Error::Rejected`] when this node can never run it; nothing is left behind on any error
    /// but [`Error::AlreadyLaunched`].
    pub async fn launch(&self, spec: LaunchSpec) -> Result<Handle, Error> {
        let task = spec.task.clone();
        let (executor, failed) = (self.clone(), task.clone());
        let launched = tokio::task::spawn_blocking(move || executor.launch_blocking(spec)).await;
        let (launch, task_dir) =
            launched.map_err(|error| Error::Launch { task, source: io::Error::other(error) })??;
        match Handle::attach(launch, task_dir.clone()).await {
            Ok(handle) => Ok(handle),
            Err(source) => {
                handle::abandon(task_dir).await;
                Err(Error::Launch { task: failed, source })
            }
        }
    }

    fn launch_blocking(&self, spec: LaunchSpec) -> Result<(Launch, TaskDir), Error> {
        let task = spec.task.clone();
        let launch = self.of(spec, clock::monotonic());
        if let Some(reason) = client::refusal(&launch) {
            return Err(Error::Rejected { reason });
        }
        let Some(task_dir) = TaskDir::of(&self.run_dir, &task) else {
            return Err(Error::Rejected {
                reason: format!("task id {task:?} is not a plain name"),
            });
        };
        match fs::DirBuilder::new().mode(0o700).create(task_dir.path()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::AlreadyLaunched { task });
            }
            Err(source) => return Err(Error::Launch { task, source }),
            Ok(()) => {}
        }
        match task_dir.supervise(&self.exe, &launch) {
            Ok(()) => Ok((launch, task_dir)),
            Err(source) => {
                // The first error is the one that explains; a next start removes the rest.
                let _ = task_dir.remove(&launch);
                Err(Error::Launch { task, source })
            }
        }
    }

    fn of(&self, spec: LaunchSpec, launched_at: Duration) -> Launch {
        let (run_dir, data_dir) = (self.run_dir.clone(), self.data_dir.clone());
        Launch { spec, run_dir, data_dir, launched_at }
    }

    /// Finds every task that an executor of this run directory has launched and not released.
    /// A task whose supervisor is gone is killed if need be, and its handle says how it ended.
    ///
    /// # Errors
    /// When the directory of tasks cannot be read. A supervisor that lives but does not answer is
    /// logged and left alone.
    pub async fn adopt_all(&self) -> io::Result<Vec<Handle>> {
        let mut handles = Vec::new();
        for task_dir in TaskDir::all(&self.run_dir)? {
            match self.adopt_directory(&task_dir).await {
                Ok(handle) => handles.extend(handle),
                Err(error) => {
                    let directory = task_dir.path().display();
                    tracing::error!(%directory, %error, "a task cannot be adopted");
                }
            }
        }
        handles.sort_by(|one, other| one.task().cmp(other.task()));
        let data_dir = self.data_dir.clone();
        // Nobody waits for it: what is left may be large.
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = client::remove_abandoned(&data_dir) {
                tracing::error!(%error, "remove what tasks have left");
            }
        }));
        Ok(handles)
    }

    /// Finds one task, for a caller whose [`launch`](Self::launch) was cut off. `None` when no such
    /// task has been launched, or it has been released.
    ///
    /// # Errors
    /// When its supervisor lives but does not answer.
    pub async fn adopt(&self, task: &str) -> io::Result<Option<Handle>> {
        match TaskDir::of(&self.run_dir, task) {
            Some(task_dir) => self.adopt_directory(&task_dir).await,
            None => Ok(None),
        }
    }

    async fn adopt_directory(&self, task_dir: &TaskDir) -> io::Result<Option<Handle>> {
        let deadline = clock::monotonic() + START_LIMIT;
        loop {
            let lock = match task_dir.lock() {
                // It has been released between two looks.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                lock => lock?,
            };
            let attached = match (task_dir.launch(), lock.is_some()) {
                (Err(Unread::Damaged(error)), is_lost) => {
                    match self.end_damaged(task_dir, is_lost).await {
                        // Its supervisor may be ending.
                        Err(_) if clock::monotonic() < deadline => {
                            tokio::time::sleep(ADOPT_INTERVAL).await;
                            continue;
                        }
                        ended => {
                            let directory = task_dir.path().display();
                            tracing::error!(%directory, %error, "a task whose launch is damaged ends");
                            return ended.map(|()| None);
                        }
                    }
                }
                (Ok(launch), true) => {
                    return Handle::of_lost(launch, task_dir.clone()).await.map(Some);
                }
                (Err(Unread::Missing(_)), true) => {
                    // From a daemon that died before it started anything.
                    fs::remove_dir_all(task_dir.path())?;
                    return Ok(None);
                }
                (Ok(launch), false) => Handle::attach(launch, task_dir.clone()).await,
                (Err(Unread::Missing(error)), false) => Err(error),
            };
            match attached {
                // It may be starting, or ending.
                Err(_) if clock::monotonic() < deadline => {
                    tokio::time::sleep(ADOPT_INTERVAL).await;
                }
                attached => return attached.map(Some),
            }
        }
    }

    /// Ends a task that nobody can tell any more what it is. To its node it is lost.
    async fn end_damaged(&self, task_dir: &TaskDir, is_lost: bool) -> io::Result<()> {
        if !is_lost {
            return handle::end(task_dir).await;
        }
        let task = task_dir.path().file_name().unwrap_or_default().to_string_lossy();
        let launch = self.of(LaunchSpec::new(task, Root::Host, Vec::new()), Duration::ZERO);
        let task_dir = task_dir.clone();
        let end = move || task_dir.conclude(&launch).and_then(|_| task_dir.remove(&launch));
        tokio::task::spawn_blocking(end).await.map_err(io::Error::other)?
    }

    /// Where the logs of a task are; see [`crate::logs::read`].
    pub fn log_directory(&self, task: &str) -> PathBuf {
        logs::directory(&self.data_dir, task)
    }

    /// Removes the logs of all but the [`LOGS_KEPT_MAX`] tasks that wrote last; those of the tasks
    /// named are kept in any case.
    ///
    /// # Errors
    /// When they cannot be listed or removed.
    pub fn prune_logs(&self, running: &BTreeSet<String>) -> io::Result<()> {
        let mut ended = Vec::new();
        let entries = match fs::read_dir(self.data_dir.join(LOGS)) {
            // No task has kept any.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let task = entry.file_name().to_string_lossy().into_owned();
            if !running.contains(&task) {
                ended.push((entry.metadata()?.modified()?, task));
            }
        }
        ended.sort_unstable_by(|one, other| other.cmp(one));
        ended.iter().skip(LOGS_KEPT_MAX).try_for_each(|(_, task)| self.remove_logs(task))
    }

    /// Removes the logs of a task that has been released. None is no error.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub fn remove_logs(&self, task: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.log_directory(task)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
