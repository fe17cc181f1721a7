//! A daemon's side of supervisors: a task's directory, its files, and what is said on its socket.
//!
//! Calls block: a runtime makes them where blocking is allowed. Who follows a task's reports reads
//! its [`socket`](TaskDir::socket) in any way, with [`subscription`] and [`take_report`].

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::id::TaskId;

use crate::layout::{LAUNCH, LAYERS, LOCK, LOG, OWNER, SOCKET, SPEC, TASKS, VOLUMES, WORKS};
use crate::protocol::{Message, Request, TaskReport};
use crate::spec::{LaunchSpec, Root, TASK_ID_BYTES_MAX, is_file_name};
use crate::status::{self, Launch};
use crate::wire::{self, Connection};
use crate::{cgroup, detach, lost, privilege, remains};

/// The mode of the program that supervises a task.
pub(crate) const MODE: &str = "supervise";
/// How long a supervisor may take until it is ready.
pub const START_LIMIT: Duration = detach::START_LIMIT;
/// How long a supervisor may take to answer.
pub const REQUEST_LIMIT: Duration = wire::REQUEST_LIMIT;
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

/// Why this node can never run a task of this launch, in words for the user.
#[must_use]
pub fn refusal(launch: &Launch) -> Option<String> {
    let spec = &launch.spec;
    let root = match &spec.root {
        Root::Host => None,
        Root::Directory(path) if path.is_absolute() && path.is_dir() => None,
        Root::Directory(path) => Some(format!(
            "image dir:{0}: {0:?} is not a directory of this node: make it, or use another image",
            path.display()
        )),
    };
    let limits = || cgroup::limits_supported(&spec.limits).err();
    let rights = || privilege::lacking(&spec.rights);
    spec.refusal().or(root).or_else(limits).or_else(rights).or_else(|| state_as_root(launch))
}

/// The daemon's state, keys and all, is no root of a task; the volumes in it may be.
fn state_as_root(launch: &Launch) -> Option<String> {
    let Launch { spec: LaunchSpec { root, .. }, run_dir, data_dir, .. } = launch;
    let Root::Directory(path) = root else { return None };
    let path = path.canonicalize().ok()?;
    let own = path.starts_with(run_dir) || path.starts_with(data_dir);
    (own && !path.starts_with(data_dir.join(VOLUMES)))
        .then(|| format!("image {root}: that is the daemon's own state: use another directory"))
}

/// Removes what tasks have written that are not there any more, because their directories were in
/// memory and the machine has restarted. Goes on after an error and returns the first.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_abandoned(data_dir: &Path) -> io::Result<()> {
    let layers = match fs::read_dir(data_dir.join(LAYERS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        layers => layers?,
    };
    let remove = |layer: io::Result<fs::DirEntry>| {
        let layer = layer?;
        let owner = layer.path().join(OWNER);
        if owner.is_symlink() && !owner.exists() {
            remains::remove_tree(&data_dir.join(WORKS).join(layer.file_name()))?;
            remains::remove_tree(&layer.path())?;
        }
        Ok(())
    };
    let removed: Vec<io::Result<()>> = layers.map(remove).collect();
    removed.into_iter().collect()
}

/// What makes a supervisor send its task's report, now and after every change.
///
/// # Errors
/// None for this request; the encoder has an error type.
pub fn subscription() -> io::Result<Vec<u8>> {
    wire::encode(&Request::Subscribe)
}

/// Takes the first whole report out of what a subscription has brought.
///
/// # Errors
/// When it is no report.
pub fn take_report(buffer: &mut Vec<u8>) -> io::Result<Option<TaskReport>> {
    let Some(line) = wire::take_line(buffer)? else { return Ok(None) };
    match serde_json::from_slice(&line)? {
        Message::Report(report) => Ok(Some(report)),
        message @ (Message::Done | Message::Refused { .. } | Message::Descriptors) => {
            Err(io::Error::other(format!("subscription got {message:?}")))
        }
    }
}

/// The directory of one task, below the run directory. A supervisor is known by it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskDir {
    path: PathBuf,
}

/// Why [`TaskDir::launch`] finds nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// There is nothing, or nothing that can be read now.
    #[error(transparent)]
    Missing(io::Error),
    /// There is a file that nobody has written so.
    #[error(transparent)]
    Damaged(io::Error),
}

impl TaskDir {
    /// That of a task; `None` where no task can have this id.
    #[must_use]
    pub fn of(run_dir: &Path, task: &str) -> Option<Self> {
        is_file_name(task, TASK_ID_BYTES_MAX)
            .then(|| TaskDir { path: run_dir.join(TASKS).join(task) })
    }

    /// All that are there.
    ///
    /// # Errors
    /// When the run directory cannot be read.
    pub fn all(run_dir: &Path) -> io::Result<Vec<Self>> {
        let entries = fs::read_dir(run_dir.join(TASKS))?;
        entries.map(|entry| Ok(TaskDir { path: entry?.path() })).collect()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The supervisor's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// Writes `launch` and starts its supervisor, the program `exe`. Returns when it is ready.
    ///
    /// # Errors
    /// In the supervisor's words where it could not start, or when another one lives.
    pub fn supervise(&self, exe: &Path, launch: &Launch) -> io::Result<()> {
        let lock = self
            .lock()?
            .ok_or_else(|| io::Error::other("another supervisor has the task's lock"))?;
        status::write(&self.path, LAUNCH, launch)?;
        detach::spawn(exe, [Path::new(MODE), &self.path], lock, &self.path.join(LOG))
    }

    /// The lock that a supervisor holds while it lives; `None` while one does.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn lock(&self) -> io::Result<Option<File>> {
        detach::try_lock(&self.path.join(LOCK))
    }

    /// What was launched here.
    ///
    /// # Errors
    /// When nothing was, or that cannot be read.
    pub fn launch(&self) -> Result<Launch, Unread> {
        status::read(&self.path, LAUNCH).map_err(|error| {
            if status::is_damage(&error) { Unread::Damaged(error) } else { Unread::Missing(error) }
        })
    }

    /// Whether this is the sandbox that `launch` is of, and not gone or made again since. A file
    /// that was damaged meanwhile is there.
    #[must_use]
    pub fn is_of(&self, launch: &Launch) -> bool {
        match self.launch() {
            Ok(found) => found.launched_at == launch.launched_at,
            Err(Unread::Damaged(_)) => true,
            Err(Unread::Missing(_)) => false,
        }
    }

    /// Has the supervisor get ready for a task. Blocks, at most for [`REQUEST_LIMIT`].
    ///
    /// # Errors
    /// When it does not answer. A refusal in its words is a message: the sandbox is for one task.
    pub fn hand_over(&self, spec: &LaunchSpec) -> io::Result<Message> {
        status::write(&self.path, SPEC, spec)?;
        self.call(&Request::Launch).map(|(message, _)| message)
    }

    /// Asks the supervisor. Blocks, at most for [`REQUEST_LIMIT`].
    ///
    /// # Errors
    /// When it does not answer.
    pub fn call(&self, request: &Request) -> io::Result<(Message, Vec<OwnedFd>)> {
        Connection::open(&self.socket())?.call(request)
    }

    /// Makes sure that no process is left of a task whose supervisor has died, and returns how it
    /// ended, which is recorded if the supervisor has not done so itself. Blocks.
    ///
    /// # Errors
    /// When a process cannot be ended, or the end not be recorded.
    pub fn conclude(&self, launch: &Launch) -> io::Result<TaskReport> {
        lost::conclude(launch, &self.path)
    }

    /// Removes what running a task has left, but not its sandbox and its logs.
    ///
    /// # Errors
    /// When something stays; trying again goes on.
    pub fn forget(&self, launch: &Launch) -> io::Result<()> {
        remains::remove_of_task(launch)?;
        status::write(&self.path, LAUNCH, &launch.without_task())
    }

    /// Removes everything of a task whose supervisor has died, but not its logs.
    ///
    /// # Errors
    /// When something stays; trying again goes on.
    pub fn remove(&self, launch: &Launch) -> io::Result<()> {
        remains::remove(launch, &self.path)
    }
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
        let task_dir = TaskDir::of(&longest, &TaskId(u128::MAX).to_string()).unwrap();
        fs::create_dir_all(task_dir.path()).unwrap();
        UnixListener::bind(task_dir.socket()).unwrap();

        let refused = check_run_dir(&directory(above.path(), 63)).unwrap_err().to_string();
        assert!(refused.contains("has 63 bytes, and at most 62"), "{refused}");
        assert!(refused.ends_with("give a shorter one with --run-dir"), "{refused}");
    }
}
