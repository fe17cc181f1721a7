//! Machines made of network namespaces of this kernel, joined by an underlay bridge in a namespace
//! of its own. Namespaces are `<lab>-n1` …, `<lab>-cl` and `<lab>-ul`; the files of a
//! machine are in `n1` … of the lab's folder; its processes have that folder in their command line.
//!
//! Only processes that the lab started, and their descendants, are ever signalled.

use std::fs::{self, File, OpenOptions};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::cleanup::Failures;
use crate::faults::{End, Underlay};
use crate::net::{self, Host, Wires};
use crate::process;
use crate::programs::installed;
use crate::topology::{Fault, Kind, Machine, Point, Topology};

mod cgroups;

/// The underlay's first three bytes.
const SUBNET: [u8; 3] = [192, 168, 50];
/// The faults that this topology offers, for people.
pub const OFFERS: &str = "cut, loss, delay and reorder between any two ends, one way or both; \
    kill and pause of a daemon, loss of a machine with all its processes (kernel and clock are \
    shared by all, and what a node has programmed outlives its loss)";

/// The machines of one lab.
#[derive(Debug)]
pub struct Namespaces {
    name: String,
    folder: PathBuf,
    wires: Wires,
    underlay: Underlay,
}

impl Namespaces {
    /// Makes them in an existing folder.
    ///
    /// # Errors
    /// Without root, without a fresh `skein` binary, when namespaces of this name exist, or when
    /// the kernel refuses: what was made is removed then.
    pub fn make(name: &str, folder: &Path, nodes: usize) -> Result<Self> {
        ensure!(
            Uid::effective().is_root(),
            "the lab makes network namespaces, which needs root: run it as root"
        );
        // Before anything is made: what a daemon needs is there.
        installed(folder, "skein")?;
        let there = net::namespaces_of(name);
        ensure!(there.is_empty(), "a lab named {name} exists already, stop it first: {there:?}");
        match net::make(name, nodes, SUBNET) {
            Ok(wires) => Ok(Self::laid_out(name, folder, wires)),
            Err(error) => {
                let swept = sweep(name, folder);
                Err(error.context(format!("making namespaces, swept: {swept:?}")))
            }
        }
    }

    /// Finds those that another process made.
    ///
    /// # Errors
    /// When they are not there.
    pub fn attach(name: &str, folder: &Path, nodes: usize) -> Result<Self> {
        let wires = net::describe(name, nodes, SUBNET)?;
        let there = net::namespaces_of(name);
        for host in wires.nodes.iter().chain([&wires.client]) {
            let namespace = &host.namespace;
            ensure!(
                there.contains(namespace),
                "{namespace} is gone: stop lab {name} and create it again"
            );
        }
        Ok(Self::laid_out(name, folder, wires))
    }

    fn laid_out(name: &str, folder: &Path, wires: Wires) -> Self {
        let end =
            |point, host: &Host| End { point, wire: host.wire.clone(), address: host.address };
        let nodes = wires.nodes.iter().enumerate();
        let ends = nodes.map(|(index, host)| end(Point::Node(index), host));
        let ends = ends.chain([end(Point::Client, &wires.client)]).collect();
        let underlay = Underlay::new(&wires.client.underlay, folder, ends);
        Self { name: name.to_owned(), folder: folder.to_owned(), wires, underlay }
    }
}

impl Topology for Namespaces {
    fn kind(&self) -> Kind {
        Kind::Namespaces
    }

    fn machines(&self) -> Result<Vec<Box<dyn Machine>>> {
        let hosts = self.wires.nodes.iter().enumerate();
        let machine = |(index, host): (usize, &Host)| {
            let folder = self.folder.join(format!("n{}", index + 1));
            fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            let name = format!("node{}", index + 1);
            let lab = self.folder.clone();
            let machine = HostMachine { name, host: host.clone(), lab, folder, child: None };
            Ok(Box::new(machine) as Box<dyn Machine>)
        };
        hosts.map(machine).collect()
    }

    fn client_address(&self) -> Ipv4Addr {
        self.wires.client.address
    }

    fn client_line(&self, words: &[&str]) -> Vec<String> {
        self.wires.client.line(words)
    }

    fn client_program(&self, name: &str) -> Result<String> {
        Ok(installed(&self.folder, name)?.to_string_lossy().into_owned())
    }

    fn disturb(&mut self, from: Point, to: Point, fault: Fault) -> Result<()> {
        self.underlay.disturb(from, to, fault)
    }

    fn heal(&mut self, one: Point, other: Point) -> Result<()> {
        self.underlay.heal(one, other)
    }

    fn faults(&self) -> Result<Vec<(Point, Point, Fault)>> {
        self.underlay.faults()
    }

    fn tear_down(&mut self) -> Result<()> {
        sweep(&self.name, &self.folder)
    }
}

/// Ends the processes of a lab and removes its namespaces. Where nothing of it is left, nothing is
/// done.
///
/// # Errors
/// When something of it stays.
pub fn sweep(name: &str, folder: &Path) -> Result<()> {
    let mut failures = Failures::default();
    failures.note(process::kill_all(folder));
    failures.note(net::remove(name));
    failures.result()
}

/// One machine: a host namespace, a folder, and the processes that name it.
#[derive(Debug)]
struct HostMachine {
    name: String,
    host: Host,
    /// The lab's folder, which holds the programs.
    lab: PathBuf,
    folder: PathBuf,
    /// The daemon, where this process is its parent and has to await its end.
    child: Option<Child>,
}

impl HostMachine {
    /// Where the newest daemon's process id is kept for other processes.
    fn pid_file(&self) -> PathBuf {
        daemon_pid_file(&self.folder)
    }

    fn flags_file(&self) -> PathBuf {
        self.folder.join("flags.json")
    }

    /// Days by which the daemon's clock is ahead; absent where it is not.
    fn clock_file(&self) -> PathBuf {
        self.folder.join("days-ahead")
    }

    /// Names another daemon than this build's; absent where it is that one.
    fn daemon_file(&self) -> PathBuf {
        self.folder.join("daemon-program")
    }

    fn daemon_program(&self) -> Result<String> {
        match fs::read_to_string(self.daemon_file()) {
            Ok(other) => Ok(other),
            Err(_none_was_set) => self.program("skein"),
        }
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }

    fn flags(&self) -> Result<Vec<String>> {
        match fs::read_to_string(self.flags_file()) {
            Ok(text) => serde_json::from_str(&text).context("reading the daemon's flags"),
            Err(_none_were_set) => Ok(Vec::new()),
        }
    }

    /// The daemon's command in its network namespace and with a host name of its own, as on a
    /// machine of its own. Each step is an exec, so the child's pid is the daemon's.
    fn daemon_command(&self) -> Result<Command> {
        let set_name = "echo \"$0\" >/proc/sys/kernel/hostname && exec \"$@\"";
        let prepare = cgroups::mounting() + set_name;
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.host.namespace, "unshare", "--uts", "--"])
            .args(["sh", "-c", &prepare, &self.name])
            .args([&self.daemon_program()?, "daemon"])
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--run-dir")
            .arg(self.run_dir())
            .args(["--advertise-addr", &self.host.address.to_string()])
            .args(self.flags()?);
        if let Ok(days) = fs::read_to_string(self.clock_file()) {
            command
                .env("LD_PRELOAD", faketime()?)
                .env("FAKETIME", format!("+{days}d"))
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        Ok(command)
    }
}

/// The library of Debian's faketime for programs with threads.
fn faketime() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib").context("reading /usr/lib")?.flatten();
    let mut files = folders.map(|found| found.path().join("faketime/libfaketimeMT.so.1"));
    let found = files.find(|file| file.exists());
    found.context("no daemon's clock can be set: install Debian's package faketime")
}

/// The file in a machine's folder that holds its newest daemon's process id.
fn daemon_pid_file(folder: &Path) -> PathBuf {
    folder.join("daemon.pid")
}

/// The process of the daemon that runs in a machine's folder.
///
/// # Errors
/// When none does.
pub fn daemon_pid(folder: &Path) -> Result<i32> {
    let text = fs::read_to_string(daemon_pid_file(folder)).unwrap_or_default();
    let pid = text.trim().parse().ok().filter(|pid| process::names(*pid, folder));
    pid.with_context(|| format!("no daemon runs in {}", folder.display()))
}

impl Machine for HostMachine {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> Ipv4Addr {
        self.host.address
    }

    fn line(&self, words: &[&str]) -> Vec<String> {
        self.host.line(words)
    }

    fn program(&self, name: &str) -> Result<String> {
        Ok(installed(&self.lab, name)?.to_string_lossy().into_owned())
    }

    fn socket(&self) -> PathBuf {
        self.inner_socket()
    }

    fn run_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.folder)
    }

    fn set_flags(&mut self, flags: &[&str]) -> Result<()> {
        let text = serde_json::to_string(flags).context("writing flags as JSON")?;
        fs::write(self.flags_file(), text).context("keeping the daemon's flags")
    }

    fn set_daemon(&mut self, program: Option<&Path>) -> Result<()> {
        match program {
            Some(program) => fs::write(self.daemon_file(), program.to_string_lossy().as_bytes()),
            None if self.daemon_file().exists() => fs::remove_file(self.daemon_file()),
            None => Ok(()),
        }
        .context("keeping the daemon's program")
    }

    fn set_days_ahead(&mut self, days: u32) -> Result<()> {
        faketime()?;
        fs::write(self.clock_file(), days.to_string()).context("keeping the daemon's clock")
    }

    fn spawn(&mut self) -> Result<()> {
        if self.is_running()? {
            bail!("the daemon of {} runs already", self.name);
        }
        self.host.set_wire(true)?;
        let log = OpenOptions::new().create(true).append(true).open(self.log_file());
        let log: File = log.with_context(|| format!("opening {}", self.log_file().display()))?;
        let child = self
            .daemon_command()?
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing the log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting the daemon of {}", self.name))?;
        let written = fs::write(self.pid_file(), child.id().to_string());
        self.child = Some(child);
        written.context("keeping the daemon's process id")
    }

    fn is_running(&mut self) -> Result<bool> {
        if let Some(child) = self.child.as_mut() {
            let ended = child.try_wait().context("asking for the daemon's state")?.is_some();
            if !ended {
                return Ok(true);
            }
            self.child = None;
        }
        Ok(daemon_pid(&self.folder).is_ok())
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.is_running()?, "no daemon runs on {}", self.name);
        let pid = daemon_pid(&self.folder)?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to {pid}"))
    }

    /// The wire is unplugged first: nothing that ends is heard by the others.
    fn power_off(&mut self) -> Result<()> {
        self.host.set_wire(false)?;
        process::kill_all(&self.folder)?;
        if let Some(mut child) = self.child.take() {
            child.wait().context("awaiting the daemon")?;
        }
        Ok(())
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
