//! One launched task, as the daemon sees it.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use supervise::Launch;
use supervise::client::{REQUEST_LIMIT, TaskDir, subscription, take_report};
use supervise::enter::Enter;
use supervise::protocol::{Message, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::Error;
use crate::executor::{LaunchSpec, Phase, StartSpec, TaskReport};

/// A task that has been launched and not released. Clones are the same task. Dropping all of them
/// leaves the task alone.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    launch: Launch,
    task_dir: TaskDir,
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
    pub(super) async fn attach(launch: Launch, task_dir: TaskDir) -> io::Result<Self> {
        let connect = async {
            let mut subscription = Subscription::open(&task_dir).await?;
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
    pub(super) async fn of_lost(launch: Launch, task_dir: TaskDir) -> io::Result<Self> {
        let (_sender, report) = watch::channel(conclude(&launch, &task_dir).await?);
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
        let task_dir = self.shared.task_dir.clone();
        let call = move || task_dir.call(&request);
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
        if !self.task_dir.is_of(&self.launch) {
            return Ok(true);
        }
        match self.task_dir.lock()? {
            None => Ok(false),
            Some(_lock) => self.task_dir.remove(&self.launch).map(|()| true),
        }
    }
}

/// Lets go of a task that was launched but never got its handle.
pub(super) async fn abandon(task_dir: TaskDir) {
    let directory = task_dir.path().to_owned();
    let call = move || task_dir.call(&Request::Release);
    let answer = tokio::task::spawn_blocking(call).await.map_err(io::Error::other).flatten();
    if !matches!(answer, Ok((Message::Done, _))) {
        let directory = directory.display();
        tracing::error!(%directory, ?answer, "a task that failed to launch is left behind");
    }
}

/// Ends a task, and its supervisor, of which nothing is known but its directory.
pub(super) async fn end(task_dir: &TaskDir) -> io::Result<()> {
    let end = async {
        let mut subscription = Subscription::open(task_dir).await?;
        ask(task_dir, Request::Kill).await?;
        while let Some(report) = subscription.next().await? {
            if matches!(report.phase, Phase::Exited(_)) {
                return ask(task_dir, Request::Release).await;
            }
        }
        Ok(())
    };
    tokio::time::timeout(REQUEST_LIMIT, end).await?
}

async fn ask(task_dir: &TaskDir, request: Request) -> io::Result<()> {
    let task_dir = task_dir.clone();
    let call = move || task_dir.call(&request);
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
    async fn open(task_dir: &TaskDir) -> io::Result<Self> {
        let mut stream = UnixStream::connect(task_dir.socket()).await?;
        stream.write_all(&subscription()?).await?;
        Ok(Subscription { stream, buffer: Vec::new() })
    }

    /// The next report; `None` when the supervisor has ended. May be dropped while it waits.
    async fn next(&mut self) -> io::Result<Option<TaskReport>> {
        loop {
            if let Some(report) = take_report(&mut self.buffer)? {
                return Ok(Some(report));
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
    task_dir: TaskDir,
) {
    loop {
        let next = tokio::select! {
            biased;
            next = subscription.next() => next,
            () = sender.closed() => return,
        };
        match next {
            Ok(Some(report)) => drop(sender.send_replace(report)),
            Ok(None) | Err(_) => return tell_end(&sender, &launch, &task_dir).await,
        }
    }
}

/// The connection has ended: the task has been released, or its supervisor has died.
async fn tell_end(sender: &watch::Sender<TaskReport>, launch: &Launch, task_dir: &TaskDir) {
    // A supervisor removes the directory before it ends; another launch may have made it again.
    if !task_dir.is_of(launch) {
        return;
    }
    match conclude(launch, task_dir).await {
        Ok(report) => drop(sender.send_replace(report)),
        Err(error) => {
            let task = &launch.spec.task;
            tracing::error!(task, %error, "the end of a lost task cannot be recorded");
        }
    }
}

async fn conclude(launch: &Launch, task_dir: &TaskDir) -> io::Result<TaskReport> {
    let (launch, task_dir) = (launch.clone(), task_dir.clone());
    let conclude = move || task_dir.conclude(&launch);
    tokio::task::spawn_blocking(conclude).await.map_err(io::Error::other)?
}
