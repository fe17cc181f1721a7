//! A node for one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skein::executor::exec::Exec;
use skein::executor::process::ProcessExecutor;
use skein::executor::sandbox::Fds;
use skein::executor::{
    Error, Executor, Exit, LaunchSpec, Launched, Phase, Root, Sandbox, StartSpec, Supervisors,
    TaskReport,
};
use skein::logs;
use tempfile::TempDir;
use tokio::sync::watch;

use super::execs::spec;

/// How long anything may take before a test has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn exe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_skein"))
}

pub(crate) struct Node {
    pub(crate) directory: TempDir,
    pub(crate) executor: Tasks,
}

/// Sandboxes and what runs in them, as a daemon has them.
pub(crate) struct Tasks {
    pub(crate) supervisors: Supervisors,
    pub(crate) executor: ProcessExecutor,
    data_dir: PathBuf,
}

impl Tasks {
    /// Makes a sandbox and launches in it.
    pub(crate) async fn launch(&self, spec: LaunchSpec) -> Result<Handle, Error> {
        let sandbox = self.supervisors.make(&spec.task).await?;
        match self.executor.launch(spec, &sandbox).await {
            Ok(launched) => Ok(self.handle(launched)),
            Err(error) => {
                sandbox.release().await.unwrap();
                Err(error)
            }
        }
    }

    /// Finds the tasks that were launched and not released.
    pub(crate) async fn adopt_all(&self) -> std::io::Result<Vec<Handle>> {
        let mut handles = Vec::new();
        for sandbox in self.supervisors.adopt_all().await? {
            let launched = self.executor.adopt(&sandbox).await?;
            handles.extend(launched.map(|launched| self.handle(launched)));
        }
        Ok(handles)
    }

    /// Finds one.
    pub(crate) async fn adopt(&self, task: &str) -> std::io::Result<Option<Handle>> {
        let Some(sandbox) = self.supervisors.adopt(task).await? else { return Ok(None) };
        let launched = self.executor.adopt(&sandbox).await?;
        Ok(launched.map(|launched| self.handle(launched)))
    }

    fn handle(&self, launched: Launched) -> Handle {
        Handle { executor: self.executor.clone(), launched }
    }

    pub(crate) fn log_directory(&self, task: &str) -> PathBuf {
        supervise::logs::directory(&self.data_dir, task)
    }

    pub(crate) fn remove_logs(&self, task: &str) -> std::io::Result<()> {
        match fs::remove_dir_all(self.log_directory(task)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// A task, and what runs it.
#[derive(Debug)]
pub(crate) struct Handle {
    executor: ProcessExecutor,
    launched: Launched,
}

impl Handle {
    pub(crate) fn task(&self) -> &str {
        self.launched.sandbox.task()
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.launched.sandbox
    }

    pub(crate) fn report(&self) -> TaskReport {
        self.launched.report()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<TaskReport> {
        self.launched.reports.clone()
    }

    /// Runs a program in the task.
    pub(crate) async fn exec(&self, argv: &[&str]) -> Result<Exec, Error> {
        self.executor.exec(self.sandbox(), spec(argv)).await
    }

    pub(crate) async fn start(&self, start: StartSpec) -> Result<(), Error> {
        self.executor.start(self.sandbox(), start).await
    }

    pub(crate) async fn stop(
        &self,
        signal: Option<i32>,
        grace: Option<Duration>,
    ) -> Result<(), Error> {
        self.executor.stop(self.sandbox(), signal, grace).await
    }

    pub(crate) async fn kill(&self) -> Result<(), Error> {
        self.stop(Some(Signal::SIGKILL as i32), Some(Duration::ZERO)).await
    }

    pub(crate) async fn fds(&self) -> Result<Fds, Error> {
        self.sandbox().fds().await
    }

    /// Forgets the task and lets its sandbox go.
    pub(crate) async fn release(&self) -> Result<(), Error> {
        self.executor.forget(self.sandbox()).await?;
        self.sandbox().release().await
    }
}

impl Node {
    /// Below /var/tmp, because a task has a /tmp of its own, and tests are to see what is masked.
    pub(crate) fn new() -> Self {
        Self::at(tempfile::tempdir_in("/var/tmp").unwrap())
    }

    pub(crate) fn at(directory: TempDir) -> Self {
        let executor = Self::executor(&directory);
        Node { directory, executor }
    }

    fn executor(directory: &TempDir) -> Tasks {
        let path = directory.path();
        let data_dir = path.join("data");
        let supervisors = Supervisors::new(exe(), &path.join("run"), &data_dir).unwrap();
        let executor = ProcessExecutor::new(exe(), &data_dir).unwrap();
        Tasks { supervisors, executor, data_dir }
    }

    /// What a restarted daemon would have.
    pub(crate) fn another_executor(&self) -> Tasks {
        Self::executor(&self.directory)
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn task_dir(&self, task: &str) -> PathBuf {
        self.run_dir().join("tasks").join(task)
    }

    /// Launches and starts.
    pub(crate) async fn start(&self, spec: LaunchSpec) -> Handle {
        let handle = self.executor.launch(spec).await.unwrap();
        assert_eq!(handle.report().phase, Phase::Prepared);
        handle.start(StartSpec { addresses: vec!["10.0.0.3".parse().unwrap()] }).await.unwrap();
        handle
    }

    /// Runs to the end and returns how it ended, the logs as one text with `stdout ` or `stderr `
    /// before each line left out, and checks that a release leaves nothing behind.
    pub(crate) async fn run(&self, spec: LaunchSpec) -> (Exit, String) {
        let task = spec.task.clone();
        let handle = self.start(spec).await;
        let exit = exit(&handle).await;
        handle.release().await.unwrap();
        assert!(!self.task_dir(&task).exists());
        assert!(!self.run_dir().join(format!("netns/sandbox-{task}")).exists());
        (exit, self.log(&task).await.join("\n"))
    }

    /// The lines that the task has written so far.
    pub(crate) async fn log(&self, task: &str) -> Vec<String> {
        let lines = logs::read(self.executor.log_directory(task), logs::Query::all());
        lines.map(|line| String::from_utf8(line.unwrap().text).unwrap()).collect().await
    }

    pub(crate) fn supervisor(&self, task: &str) -> Pid {
        let text = fs::read_to_string(self.task_dir(task).join("pid")).unwrap();
        Pid::from_raw(text.trim().parse().unwrap())
    }
}

/// A test that failed half-way still ends what it has started.
impl Drop for Node {
    fn drop(&mut self) {
        let _ = supervise::hold::Client::new(&self.run_dir()).quit();
        let tasks = fs::read_dir(self.run_dir().join("tasks")).into_iter().flatten().flatten();
        for task in tasks {
            let name = task.file_name().to_string_lossy().into_owned();
            if task.path().join("pid").exists() {
                let _ = kill(self.supervisor(&name), Signal::SIGKILL);
            }
        }
        let names = fs::read_dir(self.run_dir().join("netns")).into_iter().flatten().flatten();
        for name in names {
            let _ = umount2(&name.path(), MntFlags::MNT_DETACH);
        }
    }
}

/// A task on the node's own file system that runs a line of shell.
pub(crate) fn shell(task: &str, line: &str) -> LaunchSpec {
    LaunchSpec::new(task, Root::Host, words(&["sh", "-c", line]))
}

pub(crate) fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// Waits until the report satisfies `wanted`.
pub(crate) async fn until(handle: &Handle, wanted: impl Fn(&TaskReport) -> bool) -> TaskReport {
    let mut watch = handle.watch();
    let waited = tokio::time::timeout(LIMIT, watch.wait_for(|report| wanted(report))).await;
    match waited {
        Ok(Ok(report)) => report.clone(),
        Ok(Err(_)) => panic!("the task can change no more: {:?}", handle.report()),
        Err(_) => panic!("not within {LIMIT:?}: {:?}", handle.report()),
    }
}

pub(crate) async fn pid(handle: &Handle) -> Pid {
    let report = until(handle, |report| matches!(report.phase, Phase::Running { .. })).await;
    match report.phase {
        Phase::Running { pid, .. } => Pid::from_raw(pid),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn exit(handle: &Handle) -> Exit {
    let report = until(handle, |report| matches!(report.phase, Phase::Exited(_))).await;
    match report.phase {
        Phase::Exited(exit) => exit,
        other => panic!("{other:?}"),
    }
}

/// Waits for a condition that gives no notice.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, wait).await.is_ok(), "never: {what}");
}
