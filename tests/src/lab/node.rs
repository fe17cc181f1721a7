//! One node of a lab: its host namespace, its folder, and the real daemon that runs there.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::command::{Output, run_with_input};
use super::http::{self, Answer};
use super::net::Host;
use super::process;
use super::wait::wait_for;

/// How long a daemon may take until it answers on its socket.
const READY_MAX: Duration = Duration::from_secs(15);
/// How long a daemon may take to stop on SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(15);
/// Limit for one command of a client.
const COMMAND_SECONDS: u32 = 60;
/// Lines of a daemon's log that a failure shows.
const LOG_TAIL_LINES: usize = 12;

/// A node. Its daemon may be running or not; tasks may outlive it.
#[derive(Debug)]
pub struct Node {
    /// Its host name in the cluster: `node1` for the first.
    pub name: String,
    /// Its network namespace and address.
    pub host: Host,
    folder: PathBuf,
    binary: PathBuf,
    extra: Vec<String>,
    daemon: Option<Child>,
}

impl Node {
    pub(crate) fn new(name: String, host: Host, folder: PathBuf, binary: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self { name, host, folder, binary, extra: Vec::new(), daemon: None })
    }

    /// Further words for the daemon's command line, from its next start on.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.extra = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// The node's folder: everything of it lies here, and it is its alone.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The daemon's data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The daemon's run directory.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// The socket of the daemon's API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("skein.sock")
    }

    /// The socket as clients' `-H` takes it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The daemon's process, while the lab runs one.
    #[must_use]
    pub fn daemon_pid(&self) -> Option<i32> {
        self.daemon.as_ref().and_then(|child| i32::try_from(child.id()).ok())
    }

    /// The command line of this node's daemon, without the way into its namespace.
    #[must_use]
    pub fn daemon_words(&self) -> Vec<String> {
        let folder = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut words = vec![
            folder(self.binary.clone()),
            "daemon".to_owned(),
            "--data-dir".to_owned(),
            folder(self.data_dir()),
            "--run-dir".to_owned(),
            folder(self.run_dir()),
            "-H".to_owned(),
            self.url(),
            "--advertise-addr".to_owned(),
            self.host.address.to_string(),
        ];
        words.extend(self.extra.iter().cloned());
        words
    }

    /// Starts the daemon without waiting for it.
    ///
    /// # Errors
    /// When one runs already or the process cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        if self.daemon.is_some() {
            bail!("the daemon of {} runs already", self.name);
        }
        let log = self.open_log()?;
        let child = self
            .daemon_command()
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing the log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting the daemon of {}", self.name))?;
        self.daemon = Some(child);
        Ok(())
    }

    /// The daemon's command in its network namespace and with a host name of its own, as on a
    /// machine of its own. Each step is an exec, so the child's pid is the daemon's.
    fn daemon_command(&self) -> Command {
        let set_name = "echo \"$0\" >/proc/sys/kernel/hostname && exec \"$@\"";
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.host.namespace, "unshare", "--uts", "--"])
            .args(["sh", "-c", set_name, &self.name])
            .args(self.daemon_words());
        command
    }

    /// Runs a daemon that is expected to refuse to start, with these words instead of its own.
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub fn run_daemon(&self, words: &[&str]) -> Result<Output> {
        let binary = self.binary.to_string_lossy();
        let mut line = vec![binary.as_ref(), "daemon"];
        line.extend(words);
        self.host.run(20, &line)
    }

    fn open_log(&self) -> Result<File> {
        let path = self.log_path();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.with_context(|| format!("opening {}", path.display()))
    }

    /// Where the daemon's output goes, of all its starts.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }

    /// Starts the daemon and waits until its API answers.
    ///
    /// # Errors
    /// When it ends or does not answer in time; the error shows the end of its log.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Waits until the daemon's API answers.
    ///
    /// # Errors
    /// When it does not, or the daemon has ended.
    pub fn wait_ready(&mut self) -> Result<()> {
        let what = format!("the daemon of {} to answer", self.name);
        let mut ended = None;
        let result = wait_for(READY_MAX, &what, || {
            if let Some(child) = self.daemon.as_mut() {
                ended = child.try_wait().context("asking for the daemon's state")?;
            }
            match ended {
                Some(_) => Ok(()),
                None => self.get("/_ping").map(|_| ()),
            }
        });
        if let Some(status) = ended {
            self.daemon = None;
            bail!("the daemon of {} ended with {status}\n{}", self.name, self.log_tail());
        }
        result.with_context(|| self.log_tail())
    }

    /// Stops the daemon as an administrator does, by SIGTERM. Its tasks keep running.
    ///
    /// # Errors
    /// When none runs, or it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let Some(mut child) = self.daemon.take() else { bail!("no daemon runs") };
        let what = format!("the daemon of {} to stop on SIGTERM", self.name);
        let ended = wait_for(STOP_MAX, &what, || match child.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => bail!("it still runs"),
            Err(error) => Err(error.into()),
        });
        if ended.is_err() {
            self.daemon = Some(child);
        }
        ended.with_context(|| self.log_tail())
    }

    /// Kills the daemon, and nothing else, by SIGKILL.
    ///
    /// # Errors
    /// When none runs.
    pub fn kill_daemon(&mut self) -> Result<()> {
        let Some(mut child) = self.daemon.take() else { bail!("no daemon runs") };
        child.kill().context("killing the daemon")?;
        child.wait().context("awaiting the daemon")?;
        Ok(())
    }

    /// Stops the daemon's time (SIGSTOP), or lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When none runs.
    pub fn pause(&self, paused: bool) -> Result<()> {
        self.signal(if paused { Signal::SIGSTOP } else { Signal::SIGCONT })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.daemon_pid() else { bail!("no daemon runs on {}", self.name) };
        kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to {pid}"))
    }

    /// The loss of the whole machine: its wire is unplugged and then its daemon, holder,
    /// supervisors and tasks end at once, so that none of them can say good-bye.
    ///
    /// # Errors
    /// When a process of the node does not end.
    pub fn kill_machine(&mut self) -> Result<()> {
        self.host.set_wire(false)?;
        self.kill_processes()
    }

    /// Ends every process of the node, the daemon included.
    ///
    /// # Errors
    /// When one does not end.
    pub fn kill_processes(&mut self) -> Result<()> {
        if let Some(mut child) = self.daemon.take() {
            child.kill().context("killing the daemon")?;
            child.wait().context("awaiting the daemon")?;
        }
        process::kill_all(&self.folder)
    }

    /// Leaves the daemon running when the lab is dropped: the demo stays up.
    pub(crate) fn forget(&mut self) {
        self.daemon = None;
    }

    /// The processes of the node that run now.
    #[must_use]
    pub fn processes(&self) -> usize {
        process::of_folder(&self.folder).len()
    }

    /// `docker -H <this node>` with these words.
    ///
    /// # Errors
    /// When docker cannot be started.
    pub fn docker(&self, words: &[&str]) -> Result<Output> {
        self.client_command("docker", words)
    }

    /// `skein -H <this node>` with these words.
    ///
    /// # Errors
    /// When the binary cannot be started.
    pub fn skein(&self, words: &[&str]) -> Result<Output> {
        self.client_command(&self.binary.to_string_lossy(), words)
    }

    fn client_command(&self, program: &str, words: &[&str]) -> Result<Output> {
        let url = self.url();
        let mut line = vec!["ip", "netns", "exec", &self.host.namespace, program, "-H", &url];
        line.extend(words);
        run_with_input(COMMAND_SECONDS, &line, "")
    }

    /// Runs a program in the sandbox of a task of this node.
    ///
    /// # Errors
    /// When `skein exec` cannot be started.
    pub fn exec(&self, task: &str, words: &[&str]) -> Result<Output> {
        let mut line = vec!["exec", task, "--"];
        line.extend(words);
        self.skein(&line)
    }

    /// One request to the node's API.
    ///
    /// # Errors
    /// When the daemon does not answer; an answer of any status is not an error.
    pub fn request(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        http::over_unix(&self.socket(), method, path, body)
    }

    /// A GET that must succeed, as JSON or, where the body is none, as a JSON string.
    ///
    /// # Errors
    /// When the daemon does not answer with 2xx.
    pub fn get(&self, path: &str) -> Result<Value> {
        let answer = self.request("GET", path, &Value::Null)?;
        match answer.json() {
            Err(_) if (200..300).contains(&answer.status) => Ok(Value::String(answer.text())),
            other => other.with_context(|| format!("GET {path} of {}", self.name)),
        }
    }

    /// A POST that must succeed.
    ///
    /// # Errors
    /// When the daemon does not answer with 2xx.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let answer = self.request("POST", path, body)?;
        answer.json().with_context(|| format!("POST {path} to {}", self.name))
    }

    /// The last lines of the daemon's log, under a line that names the node.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_TAIL_LINES);
        format!("--- log of {}:\n{}\n", self.name, lines[from..].join("\n"))
    }
}
