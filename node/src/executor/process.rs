//! Runs tasks as processes of this node, each below the supervisor that holds its sandbox.
//!
//! Nothing is held here that cannot be found again: what a task runs is in its sandbox's directory,
//! how it stands its supervisor says, and where that has died, the same directory.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use cluster::exec::ExecSpec;
use futures_util::stream::{BoxStream, StreamExt as _};
use supervise::Launch;
use supervise::client::{self, Unread};
use supervise::logs::{self, LogLine};
use supervise::protocol::{Message, Request};

use super::exec::{EXECS_MAX, EXECS_PER_TASK_MAX, Exec};
use super::{Error, Executor, LaunchSpec, Launched, Phase, Sandbox, StartSpec};
use crate::logs::{Query, read};
use crate::places::Places;

mod exec;
mod reports;

/// The executor of one node.
#[derive(Debug, Clone)]
pub struct ProcessExecutor {
    exe: PathBuf,
    data_dir: PathBuf,
    execs: Places<String>,
}

impl ProcessExecutor {
    /// An executor whose tasks write below `data_dir`, and which runs further programs in them by
    /// calling the program `exe`.
    ///
    /// # Errors
    /// When the directory cannot be found.
    pub fn new(exe: &Path, data_dir: &Path) -> io::Result<Self> {
        let (exe, data_dir) = (exe.to_owned(), data_dir.canonicalize()?);
        Ok(ProcessExecutor { exe, data_dir, execs: Places::new(EXECS_PER_TASK_MAX, EXECS_MAX) })
    }
}

#[async_trait]
impl Executor for ProcessExecutor {
    async fn adopt(&self, sandbox: &Sandbox) -> io::Result<Option<Launched>> {
        match sandbox.task_dir().launch() {
            // Another sandbox, made after this one was released.
            Ok(launch) if launch.launched_at != sandbox.launch().launched_at => Ok(None),
            Ok(launch) if launch.has_task() => {
                let reports = reports::of(&launch, sandbox.task_dir()).await?;
                Ok(Some(Launched { sandbox: sandbox.clone(), spec: launch.spec, reports }))
            }
            Ok(_) => Ok(None),
            Err(Unread::Missing(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(Unread::Missing(error)) | Err(Unread::Damaged(error)) => Err(error),
        }
    }

    async fn launch(&self, spec: LaunchSpec, sandbox: &Sandbox) -> Result<Launched, Error> {
        let task = sandbox.task().to_owned();
        let failed = |source| Error::Launch { task: task.clone(), source };
        let launch = Launch { spec, ..sandbox.launch().clone() };
        let task_dir = sandbox.task_dir().clone();
        let hand_over = move || {
            if let Some(reason) = client::refusal(&launch) {
                return Ok(Err(Error::Rejected { reason }));
            }
            if matches!(task_dir.launch(), Ok(found) if found.has_task()) {
                return Ok(Err(Error::AlreadyLaunched { task: launch.spec.task }));
            }
            match task_dir.hand_over(&launch.spec)? {
                Message::Done => Ok(Ok(launch)),
                Message::Refused { reason } => Err(io::Error::other(reason)),
                message @ (Message::Report(_) | Message::Descriptors) => {
                    Err(io::Error::other(format!("its supervisor answered {message:?}")))
                }
            }
        };
        let handed = tokio::task::spawn_blocking(hand_over).await;
        let launch = handed.map_err(io::Error::other).flatten().map_err(failed)??;
        let reports = reports::of(&launch, sandbox.task_dir()).await.map_err(failed)?;
        Ok(Launched { sandbox: sandbox.clone(), spec: launch.spec, reports })
    }

    async fn start(&self, sandbox: &Sandbox, start: StartSpec) -> Result<(), Error> {
        sandbox.done(Request::Start(start)).await
    }

    async fn stop(
        &self,
        sandbox: &Sandbox,
        signal: Option<i32>,
        grace: Option<Duration>,
    ) -> Result<(), Error> {
        match sandbox.done(Request::Stop { signal, grace }).await {
            Err(error @ Error::Supervisor { .. }) => match self.adopt(sandbox).await {
                Ok(Some(launched)) if !matches!(launched.report().phase, Phase::Exited(_)) => {
                    Err(error)
                }
                // Its supervisor has died, and the task with it; or it has been released.
                Ok(_) => Ok(()),
                Err(_) => Err(error),
            },
            stopped => stopped,
        }
    }

    async fn exec(&self, sandbox: &Sandbox, spec: ExecSpec) -> Result<Exec, Error> {
        if spec.argv.first().is_none_or(String::is_empty) {
            return Err(Error::Rejected { reason: "no program is given to run".to_owned() });
        }
        let task = sandbox.task().to_owned();
        let Some(place) = self.execs.take(task.clone()) else {
            let reason = format!(
                "{EXECS_PER_TASK_MAX} programs are run in it already, or {EXECS_MAX} on its node: \
                 wait until one has ended"
            );
            return Err(Error::Refused { task, reason });
        };
        exec::begin(&self.exe, sandbox.task_dir(), spec, place).await
    }

    fn logs(&self, task: &str, query: Query) -> BoxStream<'static, io::Result<LogLine>> {
        read(logs::directory(&self.data_dir, task), query).boxed()
    }

    async fn forget(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let task = sandbox.task().to_owned();
        if matches!(sandbox.task_dir().launch(), Err(Unread::Damaged(_))) {
            // What it has left goes with its sandbox, which is refused while it runs.
            return Ok(());
        }
        let failed = |source| Error::Supervisor { task: task.clone(), source };
        let Some(launched) = self.adopt(sandbox).await.map_err(failed)? else { return Ok(()) };
        match launched.report().phase {
            // So that it cannot be started any more.
            Phase::Prepared => sandbox.done(Request::Kill).await?,
            Phase::Exited(_) => {}
            Phase::Starting | Phase::Running { .. } => {
                let reason = "task is running: stop it first".to_owned();
                return Err(Error::Refused { task, reason });
            }
        }
        let launch = Launch { spec: launched.spec, ..sandbox.launch().clone() };
        let task_dir = sandbox.task_dir().clone();
        let removed = tokio::task::spawn_blocking(move || task_dir.forget(&launch)).await;
        let removed = removed.map_err(io::Error::other).flatten();
        removed.map_err(|source| Error::Remove { task, source })
    }
}
