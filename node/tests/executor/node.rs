//! A node for one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skein::executor::process::{Handle, ProcessExecutor};
use skein::executor::{Exit, LaunchSpec, Phase, Root, StartSpec, TaskReport};
use skein::logs;
use tempfile::TempDir;

/// How long anything may take before a test has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn exe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_skein"))
}

pub(crate) struct Node {
    pub(crate) directory: TempDir,
    pub(crate) executor: ProcessExecutor,
}

impl Node {
    /// Below /var/tmp, because a task has a /tmp of its own, and tests are to see what is masked.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let executor = Self::executor(&directory);
        Node { directory, executor }
    }

    fn executor(directory: &TempDir) -> ProcessExecutor {
        let path = directory.path();
        ProcessExecutor::new(exe(), &path.join("run"), &path.join("data")).unwrap()
    }

    /// What a restarted daemon would have.
    pub(crate) fn another_executor(&self) -> ProcessExecutor {
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
