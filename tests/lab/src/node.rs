//! One node of a lab as scenarios see it: a machine, its daemon, and clients of the daemon.
//! [`Machine`] hides the kind of machine; everything here is the same for all kinds.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::command::{Output, run};
use crate::http::{self, Answer};
use crate::program;
use crate::topology::Machine;
use crate::wait::wait_for;

/// How long a daemon may take to stop on SIGTERM, or to be gone after SIGKILL.
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
    /// Its address on the underlay.
    pub address: Ipv4Addr,
    machine: Box<dyn Machine>,
}

impl Node {
    pub(crate) fn new(machine: Box<dyn Machine>) -> Self {
        Self { name: machine.name().to_owned(), address: machine.address(), machine }
    }

    /// Further words for the daemon's command line, from its next start on.
    ///
    /// # Errors
    /// When they cannot be kept.
    pub fn set_flags(&mut self, flags: &[&str]) -> Result<()> {
        self.machine.set_flags(flags)
    }

    /// Another program than this build's as the daemon, from its next start on; none: this build's.
    ///
    /// # Errors
    /// Where the lab's kind of machine does not offer that.
    pub fn set_daemon(&mut self, program: Option<&Path>) -> Result<()> {
        self.machine.set_daemon(program)
    }

    /// Sets the daemon's wall clock ahead of the machine's, from its next start on.
    ///
    /// # Errors
    /// Where the lab's kind of machine does not offer that.
    pub fn set_days_ahead(&mut self, days: u32) -> Result<()> {
        self.machine.set_days_ahead(days)
    }

    /// The daemon's data directory, on the node.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.machine.data_dir()
    }

    /// The daemon's run directory, on the node.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.machine.run_dir()
    }

    /// The node's folder on this machine, with all its files and processes.
    ///
    /// # Errors
    /// When this machine does not see those of the node.
    pub fn folder(&self) -> Result<&Path> {
        self.machine.folder().with_context(|| format!("{} is another machine", self.name))
    }

    /// The daemon's socket on this machine as clients' `-H` takes it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("unix://{}", self.machine.socket().display())
    }

    /// Where on the node a program of this build lies.
    ///
    /// # Errors
    /// When it was not built, or is not there.
    pub fn program(&self, name: &str) -> Result<String> {
        self.machine.program(name)
    }

    /// The command line that runs `words` on the node.
    #[must_use]
    pub fn line(&self, words: &[&str]) -> Vec<String> {
        self.machine.line(words)
    }

    /// Runs a program on the node, for at most `seconds`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, seconds: u32, words: &[&str]) -> Result<Output> {
        run(seconds, &self.line(words))
    }

    /// Whether the daemon runs.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn is_running(&mut self) -> Result<bool> {
        self.machine.is_running()
    }

    /// Switches the machine on, if it is off, and starts the daemon without waiting for it.
    ///
    /// # Errors
    /// When one runs already or the machine does not start.
    pub fn spawn(&mut self) -> Result<()> {
        self.machine.spawn().with_context(|| format!("starting {}", self.name))
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
        let (mut was_running, mut ended) = (false, false);
        let result = wait_for(self.machine.ready_max(), &what, || {
            let runs = self.machine.is_running()?;
            // A machine that is switched on takes a while until its daemon runs at all.
            // One that just executes its program has no command line, and may be overlooked once.
            ended = was_running && !runs && !self.machine.is_running()?;
            was_running |= runs;
            if ended { Ok(()) } else { self.get("/_ping").map(|_| ()) }
        });
        ensure!(!ended, "the daemon of {} ended\n{}", self.name, self.log_tail());
        result.with_context(|| self.log_tail())
    }

    /// Stops the daemon as an administrator does, by SIGTERM. Its tasks keep running.
    ///
    /// # Errors
    /// When none runs, or it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    /// Kills the daemon, and nothing else, by SIGKILL.
    ///
    /// # Errors
    /// When none runs.
    pub fn kill_daemon(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        self.machine.signal(signal)?;
        let what = format!("the daemon of {} to end by {signal}", self.name);
        let ended = wait_for(STOP_MAX, &what, || match self.machine.is_running()? {
            false => Ok(()),
            true => bail!("it still runs"),
        });
        ended.with_context(|| self.log_tail())
    }

    /// Sends a signal to the daemon without waiting for its effect.
    ///
    /// # Errors
    /// When none runs.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.machine.signal(signal)
    }

    /// Suspends the daemon (SIGSTOP), or resumes it (SIGCONT).
    ///
    /// # Errors
    /// When none runs.
    pub fn pause(&mut self, paused: bool) -> Result<()> {
        self.machine.signal(if paused { Signal::SIGSTOP } else { Signal::SIGCONT })
    }

    /// The loss of the whole machine: daemon, holder, supervisors and tasks end at once, so that
    /// none of them can say good-bye. [`Node::spawn`] brings it back.
    ///
    /// # Errors
    /// When a part of it keeps running.
    pub fn kill_machine(&mut self) -> Result<()> {
        self.machine.power_off().with_context(|| format!("switching {} off", self.name))
    }

    /// `docker -H <this node>` with these words, on this machine.
    ///
    /// # Errors
    /// When docker cannot be started.
    pub fn docker(&self, words: &[&str]) -> Result<Output> {
        let url = self.url();
        run(COMMAND_SECONDS, &[["docker", "-H", &url].as_slice(), words].concat())
    }

    /// `skein -H <this node>` with these words, on this machine.
    ///
    /// # Errors
    /// When the binary was not built or cannot be started.
    pub fn skein(&self, words: &[&str]) -> Result<Output> {
        let (own, url) = (program("skein")?, self.url());
        let own = own.to_string_lossy();
        run(COMMAND_SECONDS, &[[own.as_ref(), "-H", &url].as_slice(), words].concat())
    }

    /// Runs a program in a task: of this node, or where it is a manager of any.
    ///
    /// # Errors
    /// When `skein task exec` cannot be started.
    pub fn exec(&self, task: &str, words: &[&str]) -> Result<Output> {
        let (own, socket) = (self.program("skein")?, self.machine.inner_socket());
        let url = format!("unix://{}", socket.display());
        let line = [&own, "-H", &url, "task", "exec", task, "--"];
        self.run(COMMAND_SECONDS, &[line.as_slice(), words].concat())
    }

    /// One request to the node's API.
    ///
    /// # Errors
    /// When the daemon does not answer; an answer of any status is not an error.
    pub fn request(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        http::over_unix(&self.machine.socket(), method, path, body)
    }

    /// As [`Node::request`], with a limit of the caller's for each step.
    ///
    /// # Errors
    /// As [`Node::request`].
    pub fn request_within(
        &self,
        limit: Duration,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<Answer> {
        http::over_unix_within(limit, &self.machine.socket(), method, path, body)
    }

    /// A GET that must succeed, as JSON or, if the body is not JSON, as a JSON string.
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

    /// The daemon's output, of all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        self.machine.log()
    }

    /// The last lines of the daemon's log, under a line that names the node.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_TAIL_LINES);
        format!("--- log of {}:\n{}\n", self.name, lines[from..].join("\n"))
    }
}
