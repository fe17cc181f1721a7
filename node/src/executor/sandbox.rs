//! The sandboxes of this node's tasks: made, found again and let go. A supervisor holds each, its
//! network namespace and the sockets at which it asks for names, across restarts of the daemon.
//!
//! Nothing is held here that cannot be found again: what is known of a sandbox is its directory
//! `<run-dir>/tasks/<task id>` and its supervisor.

use std::fs;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use supervise::Launch;
use supervise::client::{self, START_LIMIT, TaskDir, Unread};
use supervise::layout::TASKS;
use supervise::protocol::{Message, Phase, Request, TaskReport};

use super::error::Error;
use crate::clock;

/// How often a supervisor that is starting is looked for.
const ADOPT_INTERVAL: Duration = Duration::from_millis(20);
/// How often a task that is killed is asked whether it has ended.
const END_INTERVAL: Duration = Duration::from_millis(20);

/// Those of one node.
#[derive(Debug, Clone)]
pub struct Supervisors {
    exe: PathBuf,
    run_dir: PathBuf,
    data_dir: PathBuf,
}

/// A sandbox that has been made and not released. Clones are the same sandbox; dropping all of them
/// leaves it alone.
#[derive(Debug, Clone)]
pub struct Sandbox {
    launch: Launch,
    task_dir: TaskDir,
}

/// What a sandbox consists of for the daemon. The sockets are non-blocking; what was asked while
/// no daemon was there waits in them.
#[derive(Debug)]
pub struct Fds {
    /// The network namespace.
    pub netns: OwnedFd,
    /// 127.0.0.11, port [`TaskReport::dns_port`].
    pub dns_udp: UdpSocket,
    /// The same port.
    pub dns_tcp: TcpListener,
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

impl Supervisors {
    /// Those below a run directory: they are the program `exe`, called as
    /// `exe supervise DIR`.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub fn new(exe: &Path, run_dir: &Path, data_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(run_dir)?;
        fs::create_dir_all(data_dir)?;
        let (run_dir, data_dir) = (run_dir.canonicalize()?, data_dir.canonicalize()?);
        fs::create_dir_all(run_dir.join(TASKS))?;
        Ok(Self { exe: exe.to_owned(), run_dir, data_dir })
    }

    /// Makes the sandbox of a task. Nothing is left behind on any error but
    /// [`Error::AlreadyLaunched`].
    ///
    /// # Errors
    /// [`Error::Rejected`] when no task can have this id.
    pub async fn make(&self, task: &str) -> Result<Sandbox, Error> {
        let (supervisors, id) = (self.clone(), task.to_owned());
        let made = tokio::task::spawn_blocking(move || supervisors.make_blocking(&id)).await;
        made.map_err(|error| Error::Launch {
            task: task.to_owned(),
            source: io::Error::other(error),
        })?
    }

    fn make_blocking(&self, id: &str) -> Result<Sandbox, Error> {
        let task = id.to_owned();
        let Some(task_dir) = TaskDir::of(&self.run_dir, id) else {
            return Err(Error::Rejected {
                reason: format!("task id {task:?} is not a plain name"),
            });
        };
        let launch = self.of(id, clock::monotonic());
        match fs::DirBuilder::new().mode(0o700).create(task_dir.path()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::AlreadyLaunched { task });
            }
            Err(source) => return Err(Error::Launch { task, source }),
            Ok(()) => {}
        }
        match task_dir.supervise(&self.exe, &launch) {
            Ok(()) => Ok(Sandbox { launch, task_dir }),
            Err(source) => {
                // The first error is the one that explains; a next start removes the rest.
                let _ = task_dir.remove(&launch);
                Err(Error::Launch { task, source })
            }
        }
    }

    /// A sandbox in which nothing has been launched.
    fn of(&self, task: &str, launched_at: Duration) -> Launch {
        Launch::sandbox(task, &self.run_dir, &self.data_dir, launched_at)
    }

    /// Finds every sandbox that was made below this run directory and not released, sorted by task.
    ///
    /// # Errors
    /// When the directory of tasks cannot be read. A supervisor that lives but does not answer is
    /// logged and left alone.
    pub async fn adopt_all(&self) -> io::Result<Vec<Sandbox>> {
        let mut found = Vec::new();
        for task_dir in TaskDir::all(&self.run_dir)? {
            match self.adopt_directory(&task_dir).await {
                Ok(sandbox) => found.extend(sandbox),
                Err(error) => {
                    let directory = task_dir.path().display();
                    tracing::error!(%directory, %error, "a task cannot be adopted");
                }
            }
        }
        found.sort_by(|one, other| one.task().cmp(other.task()));
        let data_dir = self.data_dir.clone();
        // Nobody waits for it: what is left may be large.
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = client::remove_abandoned(&data_dir) {
                tracing::error!(%error, "remove what tasks have left");
            }
        }));
        Ok(found)
    }

    /// Finds the sandbox of one task, for a caller whose [`make`](Self::make) was cut off. `None`
    /// when there is none, or it has been released.
    ///
    /// # Errors
    /// When its supervisor lives but does not answer.
    pub async fn adopt(&self, task: &str) -> io::Result<Option<Sandbox>> {
        match TaskDir::of(&self.run_dir, task) {
            Some(task_dir) => self.adopt_directory(&task_dir).await,
            None => Ok(None),
        }
    }

    async fn adopt_directory(&self, task_dir: &TaskDir) -> io::Result<Option<Sandbox>> {
        let deadline = clock::monotonic() + START_LIMIT;
        loop {
            let lock = match task_dir.lock() {
                // It has been released between two looks.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                lock => lock?,
            };
            let found = match (task_dir.launch(), lock.is_some()) {
                (Err(Unread::Damaged(error)), is_lost) => match self.end(task_dir, is_lost).await {
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
                },
                (Err(Unread::Missing(_)), true) => {
                    // From a daemon that died before it started anything.
                    fs::remove_dir_all(task_dir.path())?;
                    return Ok(None);
                }
                (Ok(launch), true) => {
                    return Ok(Some(Sandbox { launch, task_dir: task_dir.clone() }));
                }
                (Ok(launch), false) => {
                    let sandbox = Sandbox { launch, task_dir: task_dir.clone() };
                    sandbox.call(Request::Report).await.map(|_answer| sandbox)
                }
                (Err(Unread::Missing(error)), false) => Err(error),
            };
            match found {
                // It may be starting, or ending.
                Err(_) if clock::monotonic() < deadline => {
                    tokio::time::sleep(ADOPT_INTERVAL).await;
                }
                found => return found.map(Some),
            }
        }
    }

    /// Ends a task that nobody can tell any more what it is. To its node it is lost.
    async fn end(&self, task_dir: &TaskDir, is_lost: bool) -> io::Result<()> {
        let task = task_dir.path().file_name().unwrap_or_default().to_string_lossy();
        let launch = self.of(&task, Duration::ZERO);
        let sandbox = Sandbox { launch, task_dir: task_dir.clone() };
        if is_lost {
            return blocking(move || {
                sandbox.task_dir.conclude(&sandbox.launch)?;
                sandbox.task_dir.remove(&sandbox.launch)
            })
            .await;
        }
        let done = |message| match message {
            Message::Done => Ok(()),
            message => Err(io::Error::other(format!("its supervisor answered {message:?}"))),
        };
        done(sandbox.call(Request::Kill).await?.0)?;
        let deadline = clock::monotonic() + client::REQUEST_LIMIT;
        while !sandbox.has_ended().await? {
            if clock::monotonic() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            tokio::time::sleep(END_INTERVAL).await;
        }
        done(sandbox.call(Request::Release).await?.0)
    }
}

impl Sandbox {
    /// The task's id.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.launch.spec.task
    }

    /// Where its supervisor is spoken to.
    pub(super) fn task_dir(&self) -> &TaskDir {
        &self.task_dir
    }

    /// What it was made with.
    pub(super) fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Its namespace and DNS sockets.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub async fn fds(&self) -> Result<Fds, Error> {
        let (message, descriptors) = self.ask(Request::Descriptors).await?;
        let three = <[OwnedFd; 3]>::try_from(descriptors);
        match (message, three) {
            (Message::Descriptors, Ok([netns, udp, tcp])) => {
                Ok(Fds { netns, dns_udp: udp.into(), dns_tcp: tcp.into() })
            }
            (message, _) => Err(self.unexpected(message)),
        }
    }

    /// Lets go of a sandbox in which nothing runs, with all that is left of its task but the logs,
    /// and ends its supervisor. Doing it twice is no error.
    ///
    /// # Errors
    /// [`Error::Refused`] while the task runs; [`Error::Remove`] when something stays, after which
    /// it can be tried again.
    pub async fn release(&self) -> Result<(), Error> {
        let sandbox = self.clone();
        match blocking(move || sandbox.remove_if_lost()).await {
            Ok(true) => Ok(()),
            Ok(false) => self.done(Request::Release).await,
            Err(source) => Err(Error::Remove { task: self.task().to_owned(), source }),
        }
    }

    /// Whether nothing is left, because nothing was or because no supervisor lives to do it.
    fn remove_if_lost(&self) -> io::Result<bool> {
        if !self.task_dir.is_of(&self.launch) {
            return Ok(true);
        }
        match self.task_dir.lock()? {
            None => Ok(false),
            Some(_lock) => match self.task_dir.launch() {
                Ok(launch) => self.task_dir.remove(&launch),
                Err(Unread::Missing(_)) | Err(Unread::Damaged(_)) => {
                    self.task_dir.remove(&self.launch)
                }
            }
            .map(|()| true),
        }
    }

    async fn has_ended(&self) -> io::Result<bool> {
        Ok(match self.call(Request::Report).await?.0 {
            Message::Report(TaskReport { phase: Phase::Exited(_), .. }) => true,
            Message::Report(_) | Message::Done | Message::Refused { .. } | Message::Descriptors => {
                false
            }
        })
    }

    /// Has the supervisor do something.
    pub(super) async fn done(&self, request: Request) -> Result<(), Error> {
        match self.ask(request).await?.0 {
            Message::Done => Ok(()),
            message => Err(self.unexpected(message)),
        }
    }

    async fn ask(&self, request: Request) -> Result<(Message, Vec<OwnedFd>), Error> {
        let asked = self.call(request).await;
        asked.map_err(|source| Error::Supervisor { task: self.task().to_owned(), source })
    }

    async fn call(&self, request: Request) -> io::Result<(Message, Vec<OwnedFd>)> {
        let task_dir = self.task_dir.clone();
        blocking(move || task_dir.call(&request)).await
    }

    fn unexpected(&self, message: Message) -> Error {
        let reason = match message {
            Message::Refused { reason } => reason,
            Message::Report(_) | Message::Done | Message::Descriptors => {
                format!("its supervisor answered {message:?}")
            }
        };
        Error::Refused { task: self.task().to_owned(), reason }
    }
}
