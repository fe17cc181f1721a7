//! A node that is a container: everything is asked through Docker's client.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::engine::Engine;
use crate::command::{Output, run};
use crate::topology::Machine;
use crate::wait::wait_for;

/// What the image holds of this build (deploy/container/tree.sh).
pub(super) const PROGRAMS: [&str; 4] =
    ["skein", "skein-demo-worker", "skein-demo-vote", "skein-lab-probe"];
/// The daemon's run directory, as by default.
const RUN_DIR: &str = "/run/skein";
/// The daemon's data directory, as by default; a named volume.
const DATA_DIR: &str = "/var/lib/skein";
/// Where pid 1 reads further words for the daemon (node/supervise/src/first.rs).
const FLAGS: &str = "/etc/skein/flags";
/// What pid 1 says of each start of the daemon (the same file).
const STARTED: &str = "skein first: the daemon is started as process";
/// How long pid 1 may take to start the daemon.
const START_MAX: Duration = Duration::from_secs(20);
/// Limit for a program that is asked about the container.
const ASK_SECONDS: u32 = 20;

/// Where in every container a program of this build lies.
pub(super) fn place_of(name: &str) -> Result<String> {
    ensure!(PROGRAMS.contains(&name), "{name} is not in the image, which has {PROGRAMS:?}");
    Ok(format!("/usr/bin/{name}"))
}

/// One container of the project.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) engine: Engine,
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    /// The container's id.
    pub(super) id: String,
    pub(super) socket: PathBuf,
    /// Where files on their way into the container lie.
    pub(super) folder: PathBuf,
}

impl Container {
    fn ask(&self, words: &[&str]) -> Result<Output> {
        run(ASK_SECONDS, &self.line(words))
    }

    fn is_on(&self) -> Result<bool> {
        let words = ["inspect", "--format", "{{.State.Running}}", &self.id];
        Ok(self.engine.docker(&words)?.ok()? == "true")
    }

    /// The daemon as the container counts processes: the child of pid 1 that is not adopted. For a
    /// moment after the fork it still carries pid 1's words.
    fn daemon(&self) -> Result<Option<String>> {
        let pattern = "^(skein daemon|/usr/bin/skein first)";
        let output = self.ask(&["pgrep", "-P", "1", "-f", pattern])?;
        match output.status {
            0 => Ok(output.stdout.split_whitespace().next().map(str::to_owned)),
            1 if output.stderr.is_empty() => Ok(None),
            _ if !self.is_on()? => Ok(None),
            _ => bail!("looking for the daemon of {}: {output}", self.name),
        }
    }

    fn starts(&self) -> usize {
        self.log().matches(STARTED).count()
    }
}

impl Machine for Container {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> Ipv4Addr {
        self.address
    }

    fn line(&self, words: &[&str]) -> Vec<String> {
        let mut line = self.engine.docker_line(&["exec", "-i", &self.id]);
        line.extend(words.iter().map(|word| (*word).to_owned()));
        line
    }

    fn program(&self, name: &str) -> Result<String> {
        place_of(name)
    }

    fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    fn run_dir(&self) -> PathBuf {
        RUN_DIR.into()
    }

    fn data_dir(&self) -> PathBuf {
        DATA_DIR.into()
    }

    fn set_flags(&mut self, flags: &[&str]) -> Result<()> {
        let file = self.folder.join(format!("{}.flags", self.name));
        fs::write(&file, flags.join("\n"))
            .with_context(|| format!("writing {}", file.display()))?;
        let to = format!("{}:{FLAGS}", self.id);
        self.engine.docker(&["cp", &file.to_string_lossy(), &to])?.ok()?;
        Ok(())
    }

    fn spawn(&mut self) -> Result<()> {
        let starts = self.starts();
        if !self.is_on()? {
            self.engine.docker(&["start", &self.id])?.ok()?;
        } else if self.daemon()?.is_none() {
            self.engine.docker(&["kill", "--signal", "HUP", &self.id])?.ok()?;
        } else {
            bail!("the daemon of {} runs already", self.name);
        }
        wait_for(START_MAX, &format!("pid 1 of {} to start the daemon", self.name), || {
            ensure!(self.starts() > starts, "{starts} starts so far");
            Ok(())
        })
    }

    fn is_running(&mut self) -> Result<bool> {
        Ok(self.daemon()?.is_some())
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        let Some(pid) = self.daemon()? else { bail!("no daemon runs on {}", self.name) };
        self.ask(&["kill", "-s", signal.as_str().trim_start_matches("SIG"), &pid])?.ok()?;
        Ok(())
    }

    fn power_off(&mut self) -> Result<()> {
        if self.is_on()? {
            self.engine.docker(&["kill", "--signal", "KILL", &self.id])?.ok()?;
        }
        let what = format!("container {} to end", self.name);
        wait_for(START_MAX, &what, || {
            ensure!(!self.is_on()?, "it runs");
            Ok(())
        })
    }

    fn log(&self) -> String {
        match self.engine.docker(&["logs", &self.id]) {
            Ok(output) => output.stdout + &output.stderr,
            Err(error) => format!("the log of {} cannot be read: {error:#}", self.name),
        }
    }
}
