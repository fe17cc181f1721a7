//! What is known of one task, as its supervisor says it, or as it is found where that has died.

use std::io;
use std::time::Duration;

use supervise::Launch;
use supervise::client::{REQUEST_LIMIT, START_LIMIT, TaskDir, subscription, take_report};
use supervise::protocol::TaskReport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::clock;

/// How often a supervisor that is ending is asked.
const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// The reports of a launched task, from now on.
pub(super) async fn of(
    launch: &Launch,
    task_dir: &TaskDir,
) -> io::Result<watch::Receiver<TaskReport>> {
    let deadline = clock::monotonic() + START_LIMIT;
    loop {
        if let Some(_lock) = task_dir.lock()? {
            let report = conclude(launch, task_dir).await?;
            return Ok(watch::Sender::new(report).subscribe());
        }
        match attach(launch, task_dir).await {
            // It may be ending.
            Err(_) if clock::monotonic() < deadline => tokio::time::sleep(ASK_INTERVAL).await,
            attached => return attached,
        }
    }
}

async fn attach(launch: &Launch, task_dir: &TaskDir) -> io::Result<watch::Receiver<TaskReport>> {
    let connect = async {
        let mut subscription = Subscription::open(task_dir).await?;
        let first = subscription.next().await?;
        let first = first.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        Ok::<_, io::Error>((first, subscription))
    };
    let (first, subscription) = tokio::time::timeout(REQUEST_LIMIT, connect).await??;
    let (sender, reports) = watch::channel(first);
    // It ends with the supervisor or with the last receiver.
    tokio::spawn(follow(subscription, sender, launch.clone(), task_dir.clone()));
    Ok(reports)
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
