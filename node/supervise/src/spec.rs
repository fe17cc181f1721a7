//! What a task is to run: plain data, fully resolved, free of Docker's optional fields.
//!
//! The worker maps an assignment's container spec to a [`LaunchSpec`]; the executor writes it to
//! the task's directory, and the supervisor reads it there and nowhere else. A later daemon reads
//! it too, so a new field needs a serde default.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cluster::log_driver::Syslog;
use cluster::rights::{Capabilities, check_sysctl, check_ulimit};
use cluster::spec::Ulimit;
use serde::{Deserialize, Serialize};

/// The longest task id, which is also a file name.
pub const TASK_ID_BYTES_MAX: usize = 64;
/// Swarm's default grace between the stop signal and SIGKILL.
pub const STOP_GRACE_DEFAULT: Duration = Duration::from_secs(10);
/// `SIGTERM`, Docker's default stop signal.
pub const STOP_SIGNAL_DEFAULT: i32 = 15;
/// Characters of the task id that make the default hostname, as Docker does with container ids.
pub const HOSTNAME_CHARACTERS: usize = 12;

/// Everything the supervisor needs to know before the sandbox has its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// The task's id: lower-case letters, digits and `-`, at most [`TASK_ID_BYTES_MAX`].
    pub task: String,
    /// The file system that the task sees.
    pub root: Root,
    /// Program and arguments: `Command` followed by `Args`. Must not be empty.
    pub argv: Vec<String>,
    /// `KEY=VALUE`; a later entry replaces an earlier one and the defaults.
    pub env: Vec<String>,
    /// Working directory; `None` is the task's private writable directory.
    pub dir: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`, looked up in the task's root; `None` is root.
    pub user: Option<String>,
    /// Supplementary groups by name or id, added to those of the user.
    pub groups: Vec<String>,
    /// `None` is the first [`HOSTNAME_CHARACTERS`] characters of the task id.
    pub hostname: Option<String>,
    /// Mounted in order of depth of their targets.
    pub mounts: Vec<Mount>,
    /// How the task is asked to stop when the request does not say.
    pub stop: StopPolicy,
    /// `None` is a task without a health check.
    pub health: Option<HealthCheck>,
    /// Whether pid 1 is a reaper, with the command as its child.
    pub init: bool,
    /// Whether /tmp, /run and the working directory are read-only as well.
    pub read_only: bool,
    /// More lines for /etc/hosts.
    pub hosts: Vec<HostEntry>,
    /// The resolver's settings inside the task.
    pub dns: DnsConfig,
    /// Limits of the task as a whole.
    pub limits: Limits,
    /// When a log file is full and how many are kept.
    pub log: LogLimits,
    /// What becomes of what it prints.
    #[serde(default)]
    pub output: Output,
    /// Where else it goes.
    #[serde(default)]
    pub sink: Option<LogSink>,
    /// Kernel parameters of the task's namespaces, by dotted names.
    pub sysctls: BTreeMap<String, String>,
    /// What its processes may do.
    #[serde(default)]
    pub rights: Rights,
    /// Whether standard input is a pipe to which nobody writes; else it is /dev/null.
    #[serde(default)]
    pub open_stdin: bool,
}

impl LaunchSpec {
    /// A spec with Docker's defaults for everything but the command.
    pub fn new(task: impl Into<String>, root: Root, argv: Vec<String>) -> Self {
        LaunchSpec {
            task: task.into(),
            root,
            argv,
            env: Vec::new(),
            dir: None,
            user: None,
            groups: Vec::new(),
            hostname: None,
            mounts: Vec::new(),
            stop: StopPolicy { signal: STOP_SIGNAL_DEFAULT, grace: STOP_GRACE_DEFAULT },
            health: None,
            init: false,
            read_only: false,
            hosts: Vec::new(),
            dns: DnsConfig::default(),
            limits: Limits::default(),
            log: LogLimits::default(),
            output: Output::Kept,
            sink: None,
            sysctls: BTreeMap::new(),
            rights: Rights::default(),
            open_stdin: false,
        }
    }

    /// The hostname inside the task.
    pub fn hostname(&self) -> String {
        match &self.hostname {
            Some(name) => name.clone(),
            None => self.task.chars().take(HOSTNAME_CHARACTERS).collect(),
        }
    }

    /// Why this spec cannot be launched on any node, in words for the user.
    pub fn refusal(&self) -> Option<String> {
        if !is_file_name(&self.task, TASK_ID_BYTES_MAX) {
            return Some(format!("task id {:?} is not a plain name", self.task));
        }
        if self.argv.first().is_none_or(String::is_empty) {
            return Some(format!("image {} has no default command: set one", self.root));
        }
        let strings = self.argv.iter().chain(&self.env).chain(&self.dir).chain(&self.user);
        if let Some(text) = strings.clone().find(|text| text.contains('\0')) {
            return Some(format!("{text:?} contains a zero byte"));
        }
        let sysctls = self.sysctls.keys().find_map(|name| check_sysctl(name).err());
        let ulimits = self.rights.ulimits.iter().find_map(|ulimit| check_ulimit(ulimit).err());
        let mut targets = BTreeSet::new();
        let twice = self.mounts.iter().find(|mount| !targets.insert(mount.target.as_str()));
        let twice = twice.map(|mount| format!("two mounts have the target {}", mount.target));
        sysctls.or(ulimits).or(twice).or_else(|| self.mounts.iter().find_map(Mount::refusal))
    }
}

/// Whether `name` can be a single path component that needs no quoting anywhere.
pub fn is_file_name(name: &str, bytes_max: usize) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= bytes_max && !name.starts_with('.') && name.chars().all(plain)
}

/// The file system a task sees as `/`, under a layer of its own; itself it stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// The node's own file system (image `host`).
    Host,
    /// A directory of the node (image `dir:/path`).
    Directory(PathBuf),
}

impl std::fmt::Display for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Root::Host => f.write_str("host"),
            Root::Directory(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

/// What the processes of a task may do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rights {
    /// Of root; any other user can only gain what is among them.
    pub capabilities: Capabilities,
    /// Which system calls they may make.
    pub seccomp: Seccomp,
    /// Limits of each process, over those of a task.
    pub ulimits: Vec<Ulimit>,
}

/// Which system calls a task may make, in Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// Those of Docker's default profile.
    #[default]
    Default,
    /// All that its capabilities let it.
    Unconfined,
}

/// One mount of the task's spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the task's root.
    pub target: String,
    /// What appears there.
    pub source: MountSource,
    /// Read-only, recursively.
    pub read_only: bool,
}

impl Mount {
    fn refusal(&self) -> Option<String> {
        let target = &self.target;
        if !target.starts_with('/') || target.contains('\0') || target.trim_matches('/').is_empty()
        {
            return Some(format!("mount target {target:?} is not an absolute path below /"));
        }
        match &self.source {
            MountSource::Volume { name, .. } if !is_file_name(name, 255) => {
                Some(format!("volume name {name:?} is not a plain name"))
            }
            MountSource::Bind { path, .. } if !path.is_absolute() => {
                Some(format!("mount source {path:?} is not an absolute path"))
            }
            MountSource::Volume { .. } | MountSource::Bind { .. } | MountSource::Tmpfs { .. } => {
                None
            }
        }
    }
}

/// Where a mount's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the node.
    Bind {
        /// Absolute path on the node.
        path: PathBuf,
        /// Whether a missing source is made as a directory; else it is an error.
        create: bool,
        /// Whether what is mounted below it does not come along.
        #[serde(default)]
        alone: bool,
        /// What becomes of mounts that are made below it later.
        #[serde(default)]
        propagation: Propagation,
    },
    /// A directory that the node keeps by name, made when missing.
    Volume {
        /// The volume's name.
        name: String,
        /// A path in it, which no link leads out of; empty: the volume itself.
        #[serde(default)]
        subpath: String,
    },
    /// Memory.
    Tmpfs {
        /// `None` is the kernel's default, half of the memory.
        size_bytes: Option<u64>,
        /// Permission bits; `None` is 1777.
        mode: Option<u32>,
    },
}

/// Who sees mounts that are made below a bind mount later (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Who has made them.
    #[default]
    Private,
    /// The node's, the task too.
    Slave,
    /// Both sides see each other's.
    Shared,
}

/// How a task is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopPolicy {
    /// The signal's number.
    pub signal: i32,
    /// From the signal to SIGKILL.
    pub grace: Duration,
}

/// Docker's health check with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is run: exit status 0 is healthy.
    pub probe: Probe,
    /// From the end of one probe to the start of the next.
    pub interval: Duration,
    /// A probe that takes longer has failed, and is killed.
    pub timeout: Duration,
    /// Consecutive failures that make the task unhealthy.
    pub retries: u32,
    /// Failures before this time since the start do not count.
    pub start_period: Duration,
    /// The interval while in the start period and not yet healthy.
    pub start_interval: Duration,
}

/// Docker's defaults (moby `daemon/health.go`).
impl HealthCheck {
    /// `Interval` where none is given.
    pub const INTERVAL: Duration = Duration::from_secs(30);
    /// `Timeout` where none is given.
    pub const TIMEOUT: Duration = Duration::from_secs(30);
    /// `Retries` where none are given.
    pub const RETRIES: u32 = 3;
    /// `StartInterval` where none is given.
    pub const START_INTERVAL: Duration = Duration::from_secs(5);

    /// A check by `probe` with Docker's defaults.
    pub fn new(probe: Probe) -> Self {
        HealthCheck {
            probe,
            interval: Self::INTERVAL,
            timeout: Self::TIMEOUT,
            retries: Self::RETRIES,
            start_period: Duration::ZERO,
            start_interval: Self::START_INTERVAL,
        }
    }
}

/// The command of a health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// `CMD`: program and arguments.
    Command(Vec<String>),
    /// `CMD-SHELL`: a line for `/bin/sh -c`.
    Shell(String),
}

impl Probe {
    /// Docker's `Test` list. `None` for `NONE` and for the empty list.
    ///
    /// # Errors
    /// Text for the user when the list starts with anything else or has no command.
    pub fn parse(test: &[String]) -> Result<Option<Probe>, String> {
        let words: Vec<&str> = test.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] | ["NONE"] => Ok(None),
            ["CMD", program, ..] if !program.is_empty() => {
                Ok(Some(Probe::Command(test[1..].to_vec())))
            }
            ["CMD-SHELL", line] if !line.is_empty() => Ok(Some(Probe::Shell((*line).to_owned()))),
            _ => Err(format!(
                "health check {test:?} is none of [\"NONE\"], [\"CMD\", program, …] and \
                 [\"CMD-SHELL\", line]"
            )),
        }
    }

    /// What is executed.
    pub fn argv(&self) -> Vec<String> {
        match self {
            Probe::Command(argv) => argv.clone(),
            Probe::Shell(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
        }
    }
}

/// One address and its names in /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// The address.
    pub address: IpAddr,
    /// At least one name.
    pub names: Vec<String>,
}

/// The task's resolv.conf. The name server is always 127.0.0.11.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Who is asked for names that are not the cluster's, from the sandbox; none: the host's
    /// resolvers, from the host.
    #[serde(default)]
    pub nameservers: Vec<IpAddr>,
    /// `search` domains; none: the host's.
    pub search: Vec<String>,
    /// `options`; none: the host's. `ndots:0` is added where no `ndots` is given, as Docker does.
    pub options: Vec<String>,
}

/// Limits on the task as a whole. Each needs its controller, of cgroup v1 or v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Memory, and as much swap.
    pub memory_bytes: Option<u64>,
    /// Billionths of a CPU, as Docker's `NanoCPUs`.
    pub nano_cpus: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }
}

/// Limits of the task's logs on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// A file that has reached this size is closed and the next one begun.
    pub file_bytes_max: u64,
    /// Files kept, the one being written included. At least 2, so that rotation keeps something.
    pub files_max: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        LogLimits { file_bytes_max: 10 << 20, files_max: 3 }
    }
}

/// What becomes of what a task prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Output {
    /// It is kept in files.
    #[default]
    Kept,
    /// It is read and dropped.
    Dropped,
}

/// Where the lines of a task go besides its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogSink {
    /// To a syslog server.
    Syslog(Syslog),
    /// To the node's journal.
    Journald {
        /// The journal's own socket.
        socket: PathBuf,
        /// What stands in each entry.
        fields: Vec<(String, String)>,
    },
}

/// What is known only when the sandbox is wired.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StartSpec {
    /// The task's own addresses, for /etc/hosts, in the order of its interfaces.
    pub addresses: Vec<IpAddr>,
}

/// The number of a signal from Docker's spelling: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
pub fn parse_signal(text: &str) -> Option<i32> {
    const NUMBER_MAX: i32 = 64;
    // glibc keeps the first two real-time signals for itself.
    const RTMIN: i32 = 34;
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=NUMBER_MAX).contains(&number).then_some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |base: i32, offset: Option<i32>| {
        Some(base + offset?).filter(|number| (RTMIN..=NUMBER_MAX).contains(number))
    };
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset = if offset.is_empty() { "0" } else { offset.strip_prefix('+')? };
        return real_time(RTMIN, offset.parse().ok());
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        let offset = if offset.is_empty() { "0" } else { offset.strip_prefix('-')? };
        return real_time(NUMBER_MAX, offset.parse::<i32>().ok().map(|offset| -offset));
    }
    let full = format!("SIG{name}");
    nix::sys::signal::Signal::iterator()
        .find(|signal| signal.as_str() == full)
        .map(|signal| signal as i32)
}

#[cfg(test)]
mod tests;
