//! Where things lie: the names of files and directories that daemons and supervisors share, and a
//! later version of either finds.

/// The directory of tasks below the run directory.
pub const TASKS: &str = "tasks";
/// The directory of namespace files below the run directory.
pub(crate) const NAMESPACES: &str = "netns";
/// What a sandbox's namespace file is called, before the task's id.
pub(crate) const SANDBOX_PREFIX: &str = "sandbox-";
/// The directory of all logs below the data directory.
pub const LOGS: &str = "logs";
/// The directory of work directories below the data directory.
pub(crate) const WORKS: &str = "work";
/// The directory of volumes below the data directory.
pub const VOLUMES: &str = "volumes";
/// The directory of layers below the data directory.
pub(crate) const LAYERS: &str = "layers";
/// What leads from a layer to the directory of its task.
pub(crate) const OWNER: &str = "task";
/// Where the new root is put together, below the task's directory.
pub(crate) const STAGE: &str = "root";
/// Where its image is meanwhile.
pub(crate) const IMAGE: &str = "image";
/// The files made for a task, below the task's directory.
pub(crate) const FILES: &str = "etc";

/// Whom the host asks for names (resolv.conf(5)).
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The socket of a supervisor, in a task's directory, as are those that follow.
pub(crate) const SOCKET: &str = "control.sock";
/// What a supervisor is there for: a sandbox, and from its launch on a task in it.
pub(crate) const LAUNCH: &str = "launch.json";
/// What is to be launched in the sandbox.
pub(crate) const SPEC: &str = "spec.json";
/// The last report.
pub(crate) const STATUS: &str = "status.json";
/// Held by the supervisor while it lives.
pub(crate) const LOCK: &str = "lock";
/// The supervisor's pid, for people.
pub(crate) const PID: &str = "pid";
/// The supervisor's own words.
pub(crate) const LOG: &str = "supervisor.log";

/// Where the task's private writable directory is, which is its working directory by default.
pub const WORK: &str = "/run/work";
