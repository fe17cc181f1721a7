//! One guest as a machine of a lab: its daemon, its API's socket on this machine, its power.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::disk::make_data_disk;
use super::guest::Guest;
use super::monitor::Monitor;
use super::root::{PROGRAMS, PROGRAMS_FOLDER};
use crate::command::run;
use crate::program;
use crate::topology::Machine;
use crate::wait::wait_for;

/// How long a daemon may take until it answers: emulated, on a machine with other work.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long the forwarder of a socket may take to listen.
const FORWARD_MAX: Duration = Duration::from_secs(10);
/// Limit for a short question to a guest.
const ASK_SECONDS: u32 = 30;
const RUN_DIR: &str = "/run/skein";
const DATA_DIR: &str = "/var/lib/skein/data";
/// The daemon's output, on the guest's disk.
const LOG: &str = "/var/lib/skein/daemon.log";
/// The number of the daemon's process. It does not outlive a boot.
const PID_FILE: &str = "/run/skein-daemon.pid";
/// Starts a daemon, which is its argument, and keeps its number.
const START: &str = "mkdir -p \"$0\"; setsid \"$@\" >>/var/lib/skein/daemon.log 2>&1 </dev/null & \
    echo $! >/run/skein-daemon.pid";
/// Tells the number of the daemon's process where it runs.
const FIND: &str = "pid=$(cat \"$0\" 2>/dev/null) && grep -qz '^daemon$' /proc/$pid/cmdline && \
    echo $pid";

/// A guest of a lab.
#[derive(Debug)]
pub struct VirtualMachine {
    /// The guest and the process that it is.
    pub monitor: Monitor,
    agent: PathBuf,
}

impl VirtualMachine {
    pub(super) fn new(guest: Guest, namespace: &str) -> Result<Self> {
        let agent = program("skein-lab-agent")?;
        Ok(Self { monitor: Monitor::new(guest, namespace)?, agent })
    }

    fn folder(&self) -> &Path {
        &self.monitor.guest.folder
    }

    /// Makes its folder and disk, and serves its daemon's socket on this machine.
    pub(super) fn install(&self) -> Result<()> {
        let folder = self.folder();
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        make_data_disk(&self.monitor.guest.data_disk(), None)?;
        let (agent, socket) = (self.agent.to_string_lossy(), self.socket());
        let (to, log) = (self.monitor.agent_address().to_string(), folder.join("forward.log"));
        let inner = self.inner_socket();
        let script = "log=$1 && shift && exec \"$0\" forward \"$@\" >\"$log\" 2>&1 </dev/null";
        let line = [
            "setsid",
            "-f",
            "sh",
            "-c",
            script,
            &agent,
            &log.to_string_lossy(),
            &self.monitor.namespace,
            &to,
            &socket.to_string_lossy(),
            &inner.to_string_lossy(),
        ];
        run(ASK_SECONDS, &line)?.ok().context("starting a forwarder")?;
        wait_for(FORWARD_MAX, "a socket to be served", || {
            let shown = socket.display();
            fs::metadata(&socket).with_context(|| format!("looking at {shown}"))
        })?;
        Ok(())
    }

    /// Asks the guest a short question.
    ///
    /// # Errors
    /// When it does not answer, or with another status than 0.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        self.monitor.run(ASK_SECONDS, words)?.ok()
    }

    /// Sets the guest's clock so many seconds forth or back.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn move_clock(&self, seconds: i64) -> Result<()> {
        let script = format!("date -s @$(($(date +%s) + {seconds}))");
        self.ask(&["sh", "-c", &script]).map(|_| ())
    }

    fn daemon_pid(&self) -> Result<Option<String>> {
        if self.monitor.pid().is_none() {
            return Ok(None);
        }
        let output = self.monitor.run(ASK_SECONDS, &["sh", "-c", FIND, PID_FILE])?;
        match output.status {
            0 => Ok(Some(output.stdout.trim().to_owned())),
            1 | 2 => Ok(None),
            _ => bail!("asking {} for its daemon: {output}", self.name()),
        }
    }

    fn flags_file(&self) -> PathBuf {
        self.folder().join("flags.json")
    }

    fn flags(&self) -> Result<Vec<String>> {
        match fs::read_to_string(self.flags_file()) {
            Ok(text) => serde_json::from_str(&text).context("reading the daemon's flags"),
            Err(_none_were_set) => Ok(Vec::new()),
        }
    }
}

impl Machine for VirtualMachine {
    fn name(&self) -> &str {
        &self.monitor.guest.name
    }

    fn address(&self) -> Ipv4Addr {
        self.monitor.guest.wire.address
    }

    fn line(&self, words: &[&str]) -> Vec<String> {
        self.monitor.call_line(words)
    }

    fn program(&self, name: &str) -> Result<String> {
        ensure!(PROGRAMS.contains(&name), "{name} is not in a guest: it has {PROGRAMS:?}");
        Ok(format!("{PROGRAMS_FOLDER}/{name}"))
    }

    fn socket(&self) -> PathBuf {
        self.folder().join("skein.sock")
    }

    fn run_dir(&self) -> PathBuf {
        RUN_DIR.into()
    }

    fn data_dir(&self) -> PathBuf {
        DATA_DIR.into()
    }

    fn ready_max(&self) -> Duration {
        READY_MAX
    }

    fn set_flags(&mut self, flags: &[&str]) -> Result<()> {
        let text = serde_json::to_string(flags).context("writing flags as JSON")?;
        fs::write(self.flags_file(), text).context("keeping the daemon's flags")
    }

    fn spawn(&mut self) -> Result<()> {
        if self.monitor.pid().is_none() {
            self.monitor.start()?;
            self.monitor.wait_boot()?;
        }
        ensure!(self.daemon_pid()?.is_none(), "the daemon of {} runs already", self.name());
        let (skein, address) = (self.program("skein")?, self.address().to_string());
        let mut words = vec!["sh", "-c", START, DATA_DIR, &skein, "daemon"];
        words.extend(["--data-dir", DATA_DIR, "--run-dir", RUN_DIR, "--advertise-addr", &address]);
        let flags = self.flags()?;
        words.extend(flags.iter().map(String::as_str));
        self.ask(&words).map(|_| ())
    }

    fn is_running(&mut self) -> Result<bool> {
        Ok(self.daemon_pid()?.is_some())
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        let pid = self.daemon_pid()?;
        let pid = pid.with_context(|| format!("no daemon runs on {}", self.name()))?;
        let number = (signal as i32).to_string();
        self.ask(&["kill", "-s", &number, &pid]).map(|_| ())
    }

    fn power_off(&mut self) -> Result<()> {
        self.monitor.kill()
    }

    /// The log of a guest that is off is read from its disk.
    fn log(&self) -> String {
        let read = if self.monitor.pid().is_some() {
            self.ask(&["cat", LOG])
        } else {
            let disk = self.monitor.guest.data_disk();
            let line = ["debugfs", "-R", "cat daemon.log", &disk.to_string_lossy()];
            run(ASK_SECONDS, &line).and_then(|output| output.ok())
        };
        read.unwrap_or_else(|error| format!("{error:#}\n{}", self.monitor.console_tail()))
    }
}
