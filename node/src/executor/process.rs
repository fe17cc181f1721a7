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

use cluster::id::TaskId;

use super::{LaunchSpec, Root, TASK_ID_BYTES_MAX, is_file_name, limits_supported};
use crate::clock;
use crate::supervise::protocol::SOCKET;
use crate::supervise::remains;
use crate::supervise::status::{self, LAUNCH, LOCK, LOG, Launch};
use crate::supervise::{LAYERS, OWNER, VOLUMES, WORKS, detach, privilege::lacking};

mod handle;
mod lost;

pub use handle::{Fds, Handle};

/// The directory of tasks below the run directory.
pub const TASKS: &str = "tasks";
/// Tasks that ended and whose logs a node keeps.
pub const LOGS_KEPT_MAX: usize = 100;
/// How often a supervisor that is starting is looked for.
const ADOPT_INTERVAL: Duration = Duration::from_millis(20);

/// The longest path of a socket: `sun_path` of unix(7) less the zero byte at its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Refuses a run directory whose tasks would have sockets with paths that are too long.
///
/// # Errors
/// What to do about it; or when the directory cannot be read.
pub fn check_run_dir(run_dir: &Path) -> io::Result<()> {
    let longest = Path::new(TASKS).join(TaskId(u128::MAX).to_string()).join(SOCKET);
    let limit = SOCKET_PATH_BYTES_MAX - 1 - longest.as_os_str().len();
    let has = run_dir.canonicalize()?.as_os_str().len();
    if has <= limit {
        return Ok(());
    }
    let told = format!(
        "run directory {} has {has} bytes, and at most {limit} leave room for the paths of its \
         tasks' sockets: give a shorter one with --run-dir",
        run_dir.display()
    );
    Err(io::Error::new(io::ErrorKind::InvalidFilename, told))
}

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

    fn launch_blocking(&self, spec: LaunchSpec) -> Result<(Launch, PathBuf), Error> {
        if let Some(reason) = refusal(&spec).or_else(|| self.state_as_root(&spec.root)) {
            return Err(Error::Rejected { reason });
        }
        let task = spec.task.clone();
        let task_dir = self.run_dir.join(TASKS).join(&task);
        let (run_dir, data_dir) = (self.run_dir.clone(), self.data_dir.clone());
        let launch = Launch { spec, run_dir, data_dir, launched_at: clock::monotonic() };
        match fs::DirBuilder::new().mode(0o700).create(&task_dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::AlreadyLaunched { task });
            }
            Err(source) => return Err(Error::Launch { task, source }),
            Ok(()) => {}
        }
        match self.spawn(&launch, &task_dir) {
            Ok(()) => Ok((launch, task_dir)),
            Err(source) => {
                // The first error is the one that explains; a next start removes the rest.
                let _ = remains::remove(&launch, &task_dir);
                Err(Error::Launch { task, source })
            }
        }
    }

    /// The daemon's state, keys and all, is no root of a task; the volumes in it may be.
    fn state_as_root(&self, root: &Root) -> Option<String> {
        let Root::Directory(path) = root else { return None };
        let path = path.canonicalize().ok()?;
        let own = path.starts_with(&self.run_dir) || path.starts_with(&self.data_dir);
        (own && !path.starts_with(self.data_dir.join(VOLUMES))).then(|| {
            let root = root.to_string();
            format!("image {root}: that is the daemon's own state: use another directory")
        })
    }

    fn spawn(&self, launch: &Launch, task_dir: &Path) -> io::Result<()> {
        let lock = detach::try_lock(&task_dir.join(LOCK))?
            .ok_or_else(|| io::Error::other("another supervisor has the task's lock"))?;
        status::write(task_dir, LAUNCH, launch)?;
        let arguments = [Path::new("supervise"), task_dir];
        detach::spawn(&self.exe, arguments, lock, &task_dir.join(LOG))
    }

    /// Finds every task that an executor of this run directory has launched and not released.
    /// A task whose supervisor is gone is killed if need be, and its handle says how it ended.
    ///
    /// # Errors
    /// When the directory of tasks cannot be read. A supervisor that lives but does not answer is
    /// logged and left alone.
    pub async fn adopt_all(&self) -> io::Result<Vec<Handle>> {
        let mut handles = Vec::new();
        for entry in fs::read_dir(self.run_dir.join(TASKS))? {
            let task_dir = entry?.path();
            match self.adopt_directory(&task_dir).await {
                Ok(handle) => handles.extend(handle),
                Err(error) => {
                    let directory = task_dir.display();
                    tracing::error!(%directory, %error, "a task cannot be adopted");
                }
            }
        }
        handles.sort_by(|one, other| one.task().cmp(other.task()));
        let executor = self.clone();
        // Nobody waits for it: what is left may be large.
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = executor.remove_abandoned() {
                tracing::error!(%error, "remove what tasks have left");
            }
        }));
        Ok(handles)
    }

    /// Removes what tasks have written that are not there any more, because their directories were
    /// in memory and the machine has restarted.
    fn remove_abandoned(&self) -> io::Result<()> {
        let layers = match fs::read_dir(self.data_dir.join(LAYERS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            layers => layers?,
        };
        let remove = |layer: io::Result<fs::DirEntry>| {
            let layer = layer?;
            let owner = layer.path().join(OWNER);
            if owner.is_symlink() && !owner.exists() {
                remains::remove_tree(&self.data_dir.join(WORKS).join(layer.file_name()))?;
                remains::remove_tree(&layer.path())?;
            }
            Ok(())
        };
        // One that cannot be removed keeps none of the others.
        let removed: Vec<io::Result<()>> = layers.map(remove).collect();
        removed.into_iter().collect()
    }

    /// Finds one task, for a caller whose [`launch`](Self::launch) was cut off. `None` when no such
    /// task has been launched, or it has been released.
    ///
    /// # Errors
    /// When its supervisor lives but does not answer.
    pub async fn adopt(&self, task: &str) -> io::Result<Option<Handle>> {
        if !is_file_name(task, TASK_ID_BYTES_MAX) {
            return Ok(None);
        }
        self.adopt_directory(&self.run_dir.join(TASKS).join(task)).await
    }

    async fn adopt_directory(&self, task_dir: &Path) -> io::Result<Option<Handle>> {
        let deadline = clock::monotonic() + detach::START_LIMIT;
        loop {
            let lock = match detach::try_lock(&task_dir.join(LOCK)) {
                // It has been released between two looks.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                lock => lock?,
            };
            let launch: io::Result<Launch> = status::read(task_dir, LAUNCH);
            if let Err(error) = &launch
                && status::is_damage(error)
            {
                match self.end_damaged(task_dir, lock.is_some()).await {
                    // Its supervisor may be ending.
                    Err(_) if clock::monotonic() < deadline => {
                        tokio::time::sleep(ADOPT_INTERVAL).await;
                        continue;
                    }
                    ended => {
                        let directory = task_dir.display();
                        tracing::error!(%directory, %error, "{LAUNCH} is damaged: the task ends");
                        return ended.map(|()| None);
                    }
                }
            }
            if lock.is_some() {
                return adopt_lost(task_dir).await;
            }
            let attached = match launch {
                Ok(launch) => Handle::attach(launch, task_dir.to_owned()).await,
                Err(error) => Err(error),
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
    async fn end_damaged(&self, task_dir: &Path, is_lost: bool) -> io::Result<()> {
        if !is_lost {
            return handle::end(task_dir).await;
        }
        let task = task_dir.file_name().unwrap_or_default().to_string_lossy();
        let spec = LaunchSpec::new(task, Root::Host, Vec::new());
        let (run_dir, data_dir) = (self.run_dir.clone(), self.data_dir.clone());
        let launch = Launch { spec, run_dir, data_dir, launched_at: Duration::ZERO };
        lost::conclude(&launch, task_dir).await?;
        remains::remove(&launch, task_dir)
    }

    /// Where the logs of a task are; see [`crate::logs::read`].
    pub fn log_directory(&self, task: &str) -> PathBuf {
        crate::logs::directory(&self.data_dir, task)
    }

    /// Removes the logs of all but the [`LOGS_KEPT_MAX`] tasks that wrote last; those of the tasks
    /// named are kept in any case.
    ///
    /// # Errors
    /// When they cannot be listed or removed.
    pub fn prune_logs(&self, running: &BTreeSet<String>) -> io::Result<()> {
        let mut ended = Vec::new();
        let entries = match fs::read_dir(self.data_dir.join(crate::logs::DIRECTORY)) {
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

/// A directory without a launch spec is from a daemon that died before it started anything.
async fn adopt_lost(task_dir: &Path) -> io::Result<Option<Handle>> {
    let Ok(launch) = status::read::<Launch>(task_dir, LAUNCH) else {
        fs::remove_dir_all(task_dir)?;
        return Ok(None);
    };
    Handle::of_lost(launch, task_dir.to_owned()).await.map(Some)
}

fn refusal(spec: &LaunchSpec) -> Option<String> {
    let root = match &spec.root {
        Root::Host => None,
        Root::Directory(path) if path.is_absolute() && path.is_dir() => None,
        Root::Directory(path) => Some(format!(
            "image dir:{0}: {0:?} is not a directory of this node: make it, or use another image",
            path.display()
        )),
    };
    let limits = || limits_supported(&spec.limits).err();
    spec.refusal().or(root).or_else(limits).or_else(|| lacking(&spec.rights))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A directory whose path has so many bytes.
    fn directory(above: &Path, bytes: usize) -> PathBuf {
        let above = above.canonicalize().unwrap();
        let directory = above.join("x".repeat(bytes - above.as_os_str().len() - 1));
        fs::create_dir(&directory).unwrap();
        directory
    }

    #[test]
    fn the_longest_run_directory_has_room_for_its_sockets_and_a_longer_one_is_refused() {
        let above = tempfile::tempdir().unwrap();
        let longest = directory(above.path(), 62);
        check_run_dir(&longest).unwrap();
        let task_dir = longest.join(TASKS).join(TaskId(u128::MAX).to_string());
        fs::create_dir_all(&task_dir).unwrap();
        UnixListener::bind(task_dir.join(SOCKET)).unwrap();

        let refused = check_run_dir(&directory(above.path(), 63)).unwrap_err().to_string();
        assert!(refused.contains("has 63 bytes, and at most 62"), "{refused}");
        assert!(refused.ends_with("give a shorter one with --run-dir"), "{refused}");
    }
}
