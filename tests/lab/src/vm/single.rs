//! One guest in the foreground, for a person or a container: it lives as long as this process, on
//! a TAP that somebody else has made and wired.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::cache::tell;
use super::disk::make_data_disk;
use super::guest::{Guest, Wire};
use super::host;
use super::images::Images;
use super::kernel::Kernel;
use super::monitor::{Monitor, OWN_NAMESPACE};

/// A guest to be run.
#[derive(Debug, Clone)]
pub struct Single {
    /// Its host name.
    pub name: String,
    pub kernel: Kernel,
    /// Its memory in MiB, where the usual does not do.
    pub memory_mib: Option<u32>,
    /// Where its disk and console lie. A disk that is there is used again.
    pub folder: PathBuf,
    /// Its wire, by a TAP of the caller's network namespace.
    pub wire: Wire,
    /// A program of the guest to run once it has booted; its end switches the guest off.
    pub words: Vec<String>,
}

impl Single {
    /// Runs it until it switches itself off, its program ends, or this process is told to end by
    /// SIGTERM or SIGINT; then it is shut down. Gives the program's exit status.
    ///
    /// # Errors
    /// When this machine lacks what it takes, or the guest does not boot.
    pub fn run(&self) -> Result<i32> {
        host::check_tap()?;
        check_device(&self.wire.tap)?;
        let images = Images::build(self.kernel)?;
        let memory_mib = self.memory_mib.unwrap_or_else(|| images.memory_mib());
        host::check_room(1, memory_mib, &self.folder)?;
        let folder = self.folder.display();
        fs::create_dir_all(&self.folder).with_context(|| format!("making {folder}"))?;
        let guest = Guest {
            name: self.name.clone(),
            folder: self.folder.clone(),
            boot: images.boot,
            accel: images.accel,
            root: images.root,
            programs: images.programs,
            memory_mib,
            wire: self.wire.clone(),
            init: None,
        };
        if !guest.data_disk().exists() {
            make_data_disk(&guest.data_disk(), None)?;
        }
        let monitor = Monitor::new(guest, OWN_NAMESPACE)?;
        ensure!(monitor.pid().is_none(), "{} runs already in {folder}", self.name);
        // Blocked here and in every thread, so that one place hears of them.
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD]);
        signals.thread_block().context("blocking signals")?;
        let mut child = self.start(&monitor)?;
        let status = Arc::new(Mutex::new(None));
        if !self.words.is_empty() {
            let (words, monitor, status) = (self.words.clone(), monitor.clone(), status.clone());
            std::thread::spawn(move || follow(&words, &monitor, &status));
        }
        let result = await_end(&mut child, &signals, &monitor);
        let ended = status.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.and_then(|()| ended.unwrap_or(Ok(0)))
    }

    /// Starts the monitor as a child; its console is shown where no program's output is.
    fn start(&self, monitor: &Monitor) -> Result<Child> {
        let line = monitor.guest.line();
        let console = monitor.guest.console();
        let output = if self.words.is_empty() {
            Stdio::inherit()
        } else {
            let file = File::create(&console);
            file.with_context(|| format!("making {}", console.display()))?.into()
        };
        let child = Command::new(&line[0])
            .args(&line[1..])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .spawn()
            .with_context(|| format!("starting {}", line[0]))?;
        monitor.keep_pid(child.id())?;
        Ok(child)
    }
}

/// Runs the guest's program and then notifies the process that waits for the guest.
fn follow(words: &[String], monitor: &Monitor, status: &Mutex<Option<Result<i32>>>) {
    let ended = monitor.wait_boot().and_then(|_| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let line = monitor.call_line(&words);
        let status = Command::new(&line[0]).args(&line[1..]).status().context("calling")?;
        Ok(status.code().unwrap_or(255))
    });
    *status.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
    // Cannot fail: this process runs, and may signal itself.
    let _ = kill(Pid::this(), Signal::SIGTERM);
}

fn await_end(child: &mut Child, signals: &SigSet, monitor: &Monitor) -> Result<()> {
    loop {
        let signal = signals.wait().context("awaiting a signal")?;
        if let Some(status) = child.try_wait().context("awaiting the guest")? {
            let tail = monitor.console_tail();
            ensure!(status.success(), "the guest's monitor ended with {status}\n{tail}");
            return Ok(());
        }
        if signal != Signal::SIGCHLD {
            tell("shutting the guest down");
            if let Err(error) = monitor.shut_down() {
                let _ = writeln!(std::io::stderr(), "skein-vm: {error:#}; it is switched off");
                monitor.kill()?;
            }
            child.wait().context("awaiting the guest")?;
            return Ok(());
        }
    }
}

/// The TAP must be there, and nobody may hold it.
fn check_device(tap: &str) -> Result<()> {
    if !host::has_device(None, tap)? {
        bail!(
            "there is no device {tap}: make it by `ip tuntap add dev {tap} mode tap`, put it on a \
             bridge and set it up"
        );
    }
    // A TAP has a carrier while a program holds it. One that is down cannot be asked.
    let carrier = Path::new("/sys/class/net").join(tap).join("carrier");
    let is_held = fs::read_to_string(carrier).is_ok_and(|text| text.trim() == "1");
    ensure!(!is_held, "{tap} is in use: end the program that holds it, or name another TAP");
    Ok(())
}

#[test]
fn a_tap_that_is_not_there_is_refused_with_the_remedy() {
    let error = check_device("skl-no-such").expect_err("no such device").to_string();
    assert!(error.contains("ip tuntap add dev skl-no-such mode tap"), "{error}");
}
