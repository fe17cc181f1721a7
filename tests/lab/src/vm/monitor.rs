//! Starting, finding and ending the process that is a guest.
//!
//! It is a session of its own, adopted by init, so that the guest keeps running when the program
//! that started it ends. Its pid is kept in the guest's folder and is believed only while the
//! process of that number carries the folder in its command line.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::agent::PORT;
use super::guest::Guest;
use crate::command::{Output, run};
use crate::process::names;
use crate::program;
use crate::wait::wait_for;

/// How long a guest may take until its agent answers: emulated, on a machine with other work.
const BOOT_MAX: Duration = Duration::from_secs(120);
/// How long a guest may take to end itself.
const STOP_MAX: Duration = Duration::from_secs(60);
/// How long a killed process may take to be gone.
const KILL_MAX: Duration = Duration::from_secs(10);
const START_MAX: Duration = Duration::from_secs(10);
/// Limit for a short question to a guest.
const ASK_SECONDS: u32 = 20;
/// Lines of a console that a failure shows.
const CONSOLE_LINES: usize = 25;

/// The name of the namespace that is the caller's own.
pub const OWN_NAMESPACE: &str = "-";

/// A guest and where it runs.
#[derive(Debug, Clone)]
pub struct Monitor {
    pub guest: Guest,
    /// The namespace that holds its TAP.
    pub namespace: String,
    agent: PathBuf,
}

impl Monitor {
    /// A guest that may be on or off.
    ///
    /// # Errors
    /// When the agent's program was not built.
    pub fn new(guest: Guest, namespace: &str) -> Result<Self> {
        let agent = program("skein-lab-agent")?;
        Ok(Self { guest, namespace: namespace.to_owned(), agent })
    }

    fn pid_file(&self) -> PathBuf {
        self.guest.folder.join("monitor.pid")
    }

    /// Keeps the number of the process that is the guest, which the caller has started.
    ///
    /// # Errors
    /// When the guest's folder cannot be written to.
    pub fn keep_pid(&self, pid: u32) -> Result<()> {
        fs::write(self.pid_file(), format!("{pid}\n")).context("keeping the monitor's pid")
    }

    /// The process that is the guest, while it is on.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        let text = fs::read_to_string(self.pid_file()).ok()?;
        let pid = text.trim().parse::<i32>().ok()?;
        names(pid, &self.guest.folder).then_some(pid)
    }

    /// Switches the guest on, without waiting for it.
    ///
    /// # Errors
    /// When it is on already, or the process cannot be started.
    pub fn start(&self) -> Result<()> {
        let (name, folder) = (&self.guest.name, &self.guest.folder);
        ensure!(self.pid().is_none(), "{name} is on already");
        let (pid_file, console) = (self.pid_file(), self.guest.console());
        if pid_file.exists() {
            fs::remove_file(&pid_file).context("removing an old pid")?;
        }
        let script = "echo $$ >\"$0.new\" && mv \"$0.new\" \"$0\" && console=$1 && shift && \
            exec ip netns exec \"$@\" >>\"$console\" 2>&1 </dev/null";
        let words = [pid_file.to_string_lossy(), console.to_string_lossy()];
        let mut line = vec!["setsid", "-f", "sh", "-c", script, &words[0], &words[1]];
        let guest = self.guest.line();
        line.push(&self.namespace);
        line.extend(guest.iter().map(String::as_str));
        run(ASK_SECONDS, &line)?.ok().with_context(|| format!("starting {name}"))?;
        wait_for(START_MAX, &format!("the pid of {name}"), || {
            fs::metadata(&pid_file).with_context(|| format!("looking in {}", folder.display()))
        })?;
        Ok(())
    }

    /// Waits until the guest's agent answers; gives the number of this boot.
    ///
    /// # Errors
    /// When it does not: the error shows the end of its console.
    pub fn wait_boot(&self) -> Result<String> {
        let name = &self.guest.name;
        let mut is_off = false;
        let result = wait_for(BOOT_MAX, &format!("{name} to boot"), || {
            if self.pid().is_none() {
                is_off = true;
                return Ok(String::new());
            }
            self.boot_id()
        });
        ensure!(!is_off, "{name} ended while it booted\n{}", self.console_tail());
        result.with_context(|| self.console_tail())
    }

    /// The number that the kernel gave this boot.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn boot_id(&self) -> Result<String> {
        self.run(ASK_SECONDS, &["cat", "/proc/sys/kernel/random/boot_id"])?.ok()
    }

    /// The command line that runs `words` in the guest.
    #[must_use]
    pub fn call_line(&self, words: &[&str]) -> Vec<String> {
        let to = self.agent_address().to_string();
        let mut line = vec![self.agent.to_string_lossy().into_owned()];
        line.extend(["call", &self.namespace, &to, "--"].map(str::to_owned));
        line.extend(words.iter().map(|word| (*word).to_owned()));
        line
    }

    /// Where its agent listens.
    #[must_use]
    pub fn agent_address(&self) -> SocketAddr {
        SocketAddr::from((self.guest.wire.address, PORT))
    }

    /// Runs a program in the guest, for at most `seconds`.
    ///
    /// # Errors
    /// When it cannot be asked for; a program that fails is an [`Output`].
    pub fn run(&self, seconds: u32, words: &[&str]) -> Result<Output> {
        run(seconds, &self.call_line(words))
    }

    /// Reboots the guest's kernel without ado; gives the number of the new boot.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn reboot(&self) -> Result<String> {
        let old = self.boot_id()?;
        // It may go down before the program's end can be told.
        let _ = self.run(ASK_SECONDS, &["reboot", "-f"])?;
        let name = &self.guest.name;
        wait_for(BOOT_MAX, &format!("{name} to leave its boot"), || {
            let is_old = self.pid().is_some() && self.boot_id()? == old;
            ensure!(!is_old, "it is in boot {old} still");
            Ok(())
        })
        .with_context(|| self.console_tail())?;
        // QEMU goes on; user-mode Linux is a program that has ended.
        if self.pid().is_none() {
            self.start()?;
        }
        self.wait_boot()
    }

    /// Lets the guest end itself: what it holds is written to its disk.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn shut_down(&self) -> Result<()> {
        if self.pid().is_none() {
            return Ok(());
        }
        let _ = self.run(ASK_SECONDS, &["poweroff"])?;
        let name = &self.guest.name;
        wait_for(STOP_MAX, &format!("{name} to switch off"), || match self.pid() {
            None => Ok(()),
            Some(pid) => bail!("process {pid} still runs"),
        })
        .with_context(|| self.console_tail())
    }

    /// The loss of power: the process ends at once.
    ///
    /// # Errors
    /// When it does not.
    pub fn kill(&self) -> Result<()> {
        let name = &self.guest.name;
        wait_for(KILL_MAX, &format!("the monitor of {name} to end"), || {
            let Some(pid) = self.pid() else { return Ok(()) };
            // The whole group: user-mode Linux has a process for each address space of its guest.
            // One that ended meanwhile is what we want.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            bail!("process {pid} still runs")
        })
    }

    /// The memory of this machine that the guest's process takes now, in MiB. That of user-mode
    /// Linux is its guest's whole memory as far as it was touched.
    ///
    /// # Errors
    /// When it is off.
    pub fn resident_mib(&self) -> Result<u64> {
        let pid = self.pid().with_context(|| format!("{} is off", self.guest.name))?;
        let text = fs::read_to_string(format!("/proc/{pid}/status")).context("reading /proc")?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        Ok(kib.parse::<u64>().context("reading VmRSS")? >> 10)
    }

    /// The last lines of its console, under a line that names it.
    #[must_use]
    pub fn console_tail(&self) -> String {
        let bytes = fs::read(self.guest.console()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(CONSOLE_LINES);
        format!("--- console of {}:\n{}\n", self.guest.name, lines[from..].join("\n"))
    }
}
