//! One launched task, as the daemon sees it.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::{Error, lost};
use crate::enter::Enter;
use crate::executor::{LaunchSpec, Phase, StartSpec, TaskReport};
use crate::supervise::detach;
use crate::supervise::protocol::{Message, Request, SOCKET};
use crate::supervise::remains;
use crate::supervise::status::{LOCK, Launch};
use crate::supervise::wire::{self, Connection, REQUEST_LIMIT};

/// A task that has been launched and not released. Clones are the same task. Dropping all of them
/// leaves the task alone.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    launch: Launch,
    task_dir: PathBuf,
    report: watch::Receiver<TaskReport>,
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

impl Handle {
    /// Connects to the living supervisor of a task.
    pub(super) async fn attach(launch: Launch, task_dir: PathBuf) -> io::Result<Self> {
        let connect = async {
            let mut stream = UnixStream::connect(task_dir.join(SOCKET)).await?;
            stream.write_all(&wire::encode(&Request::Subscribe)?).await?;
            let mut subscription = Subscription { stream, buffer: Vec::new() };
            let report = subscription.next().await?;
            Ok::<_, io::Error>((report, subscription))
        };
        let (report, subscription) = tokio::time::timeout(REQUEST_LIMIT, connect).await??;
        let first = report.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let (sender, receiver) = watch::channel(first);
        let following = follow(subscription, sender, launch.clone(), task_dir.clone());
        // It ends with the supervisor or with the last handle.
        tokio::spawn(following);
        Ok(Handle { shared: Arc::new(Shared { launch, task_dir, report: receiver }) })
    }

    /// A task whose supervisor is gone.
    pub(super) async fn of_lost(launch: Launch, task_dir: PathBuf) -> io::Result<Self> {
        let (_sender, report) = watch::channel(lost::conclude(&launch, &task_dir).await?);
        Ok(Handle { shared: Arc::new(Shared { launch, task_dir, report }) })
    }

    /// The task's id.
    pub fn task(&self) -> &str {
        &self.shared.launch.spec.task
    }

    /// What the task was launched with.
    pub fn spec(&self) -> &LaunchSpec {
        &self.shared.launch.spec
    }

    /// What is known now.
    pub fn report(&self) -> TaskReport {
        self.shared.report.borrow().clone()
    }

    /// Changes with every new report. Its sender goes away when nothing can change any more.
    pub fn watch(&self) -> watch::Receiver<TaskReport> {
        self.shared.report.clone()
    }

    /// What runs `argv` inside the task as its spec would: user, groups, environment, directory.
    ///
    /// # Errors
    /// [`Error::Refused`] when the task is not running.
    pub fn enter(&self, argv: Vec<String>) -> Result<Enter, Error> {
        let Phase::Running { pid, .. } = self.report().phase else {
            let (task, reason) = (self.task().to_owned(), "it is not running".to_owned());
            return Err(Error::Refused { task, reason });
        };
        Ok(Enter::of(self.spec().clone(), pid, argv))
    }

    /// Waits until the task has ended.
    pub async fn ended(&self) -> TaskReport {
        let mut watch = self.watch();
        loop {
            let report = watch.borrow_and_update().clone();
            let over = matches!(report.phase, Phase::Exited(_));
            if over || watch.changed().await.is_err() {
                return watch.borrow().clone();
            }
        }
    }

    /// Runs the command: the sandbox is wired.
    ///
    /// # Errors
    /// [`Error::Refused`] when it has been started or has ended.
    pub async fn start(&self, start: StartSpec) -> Result<(), Error> {
        self.done(Request::Start(start)).await
    }

    /// Sends `signal`, and SIGKILL after `grace`; `None` is what the launch spec says. Returns
    /// when the signal has been sent. A task that has ended is no error.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub async fn stop(&self, signal: Option<i32>, grace: Option<Duration>) -> Result<(), Error> {
        self.unless_ended(Request::Stop { signal, grace }).await
    }

    /// Sends SIGKILL to every process of the task. A task that has ended is no error.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub async fn kill(&self) -> Result<(), Error> {
        self.unless_ended(Request::Kill).await
    }

    /// The sandbox's namespace and DNS sockets.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub async fn fds(&self) -> Result<Fds, Error> {
        let (message, descriptors) = self.call(Request::Descriptors).await?;
        let three = <[OwnedFd; 3]>::try_from(descriptors);
        match (message, three) {
            (Message::Descriptors, Ok([netns, udp, tcp])) => {
                Ok(Fds { netns, dns_udp: udp.into(), dns_tcp: tcp.into() })
            }
            (message, _) => Err(self.unexpected(message)),
        }
    }

    /// Removes everything of an ended or never started task but its logs, and ends its supervisor.
    /// Doing it twice is no error.
    ///
    /// # Errors
    /// [`Error::Refused`] while the task runs; [`Error::Remove`] when something stays, after which
    /// it can be tried again.
    pub async fn release(&self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let removed = tokio::task::spawn_blocking(move || shared.remove_if_lost()).await;
        let removed = removed.map_err(io::Error::other).flatten();
        match removed {
            Ok(true) => Ok(()),
            Ok(false) => self.done(Request::Release).await,
            Err(source) => Err(Error::Remove { task: self.task().to_owned(), source }),
        }
    }

    async fn unless_ended(&self, request: Request) -> Result<(), Error> {
        match self.done(request).await {
            Err(Error::Supervisor { .. }) if matches!(self.report().phase, Phase::Exited(_)) => {
                Ok(())
            }
            result => result,
        }
    }

    async fn done(&self, request: Request) -> Result<(), Error> {
        match self.call(request).await?.0 {
            Message::Done => Ok(()),
            message => Err(self.unexpected(message)),
        }
    }

    async fn call(&self, request: Request) -> Result<(Message, Vec<OwnedFd>), Error> {
        let socket = self.shared.task_dir.join(SOCKET);
        let call = move || Connection::open(&socket)?.call(&request);
        let answer = tokio::task::spawn_blocking(call).await;
        answer
            .map_err(io::Error::other)
            .flatten()
            .map_err(|source| Error::Supervisor { task: self.task().to_owned(), source })
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

impl Shared {
    /// Whether nothing is left, because nothing was or because no supervisor lives to do it.
    fn remove_if_lost(&self) -> io::Result<bool> {
        if !self.launch.owns(&self.task_dir) {
            return Ok(true);
        }
        match detach::try_lock(&self.task_dir.join(LOCK))? {
            None => Ok(false),
            Some(_lock) => remains::remove(&self.launch, &self.task_dir).map(|()| true),
        }
    }
}

/// Lets go of a task that was launched but never got its handle.
pub(super) async fn abandon(task_dir: PathBuf) {
    let socket = task_dir.join(SOCKET);
    let call = move || Connection::open(&socket)?.call::<_, Message>(&Request::Release);
    let answer = tokio::task::spawn_blocking(call).await.map_err(io::Error::other).flatten();
    if !matches!(answer, Ok((Message::Done, _))) {
        let directory = task_dir.display();
        tracing::error!(%directory, ?answer, "a task that failed to launch is left behind");
    }
}

/// Ends a task, and its supervisor, of which nothing is known but its directory.
pub(super) async fn end(task_dir: &Path) -> io::Result<()> {
    let socket = task_dir.join(SOCKET);
    let end = async {
        let mut stream = UnixStream::connect(&socket).await?;
        stream.write_all(&wire::encode(&Request::Subscribe)?).await?;
        let mut subscription = Subscription { stream, buffer: Vec::new() };
        ask(&socket, Request::Kill).await?;
        while let Some(report) = subscription.next().await? {
            if matches!(report.phase, Phase::Exited(_)) {
                return ask(&socket, Request::Release).await;
            }
        }
        Ok(())
    };
    tokio::time::timeout(REQUEST_LIMIT, end).await?
}

async fn ask(socket: &Path, request: Request) -> io::Result<()> {
    let socket = socket.to_owned();
    let call = move || Connection::open(&socket)?.call::<_, Message>(&request);
    match tokio::task::spawn_blocking(call).await.map_err(io::Error::other).flatten()?.0 {
        Message::Done => Ok(()),
        message => Err(io::Error::other(format!("its supervisor answered {message:?}"))),
    }
}

struct Subscription {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Subscription {
    /// The next report; `None` when the supervisor has ended. May be dropped while it waits.
    async fn next(&mut self) -> io::Result<Option<TaskReport>> {
        loop {
            if let Some(line) = wire::take_line(&mut self.buffer)? {
                return match serde_json::from_slice(&line)? {
                    Message::Report(report) => Ok(Some(report)),
                    message @ (Message::Done | Message::Refused { .. } | Message::Descriptors) => {
                        Err(io::Error::other(format!("subscription got {message:?}")))
                    }
                };
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

async fn follow(
    mut subscription: Subscription,
    sender: watch::Sender<TaskReport>,
    launch: Launch,
    task_dir: PathBuf,
) {
    loop {
        let next = tokio::select! {
            biased;
            next = subscription.next() => next,
            () = sender.closed() => return,
        };
        match next {
            Ok(Some(report)) => drop(sender.send_replace(report)),
            Ok(None) | Err(_) => return conclude(&sender, &launch, &task_dir).await,
        }
    }
}

/// The connection has ended: the task has been released, or its supervisor has died.
async fn conclude(sender: &watch::Sender<TaskReport>, launch: &Launch, task_dir: &Path) {
    // A supervisor removes the directory before it ends; another launch may have made it again.
    if !launch.owns(task_dir) {
        return;
    }
    match lost::conclude(launch, task_dir).await {
        Ok(report) => drop(sender.send_replace(report)),
        Err(error) => {
            let task = &launch.spec.task;
            tracing::error!(task, %error, "the end of a lost task cannot be recorded");
        }
    }
}
