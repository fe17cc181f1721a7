//! Runs a command inside a running task, for `skein exec`: in its namespaces and root, with a
//! task's capabilities, and with the caller's terminal.

use std::convert::Infallible;
use std::io::IsTerminal;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, chdir, gethostname};
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::failure::Failure;
use crate::layout::WORK;
use crate::spec::{LaunchSpec, Limits, Rights};
use crate::sys::{self, Ended, Forked};
use crate::task;
use crate::{privilege, user};

/// What to run, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enter {
    /// Pid 1 of the task as the node sees it, from its report.
    pub pid: i32,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// `KEY=VALUE`, over the defaults of a task.
    pub env: Vec<String>,
    /// As in a task's spec; `None` is root.
    pub user: Option<String>,
    /// Supplementary groups, as in a task's spec.
    pub groups: Vec<String>,
    /// As in a task's spec; `None` is the task's private writable directory.
    pub dir: Option<String>,
    /// As in a task's spec.
    pub rights: Rights,
    /// The task, whose limits hold for the command.
    pub task: String,
    /// As in a task's spec.
    pub limits: Limits,
}

impl Enter {
    /// A command in the surroundings of a task's own, whose pid 1 is `pid`.
    #[must_use]
    pub fn of(spec: LaunchSpec, pid: i32, argv: Vec<String>) -> Self {
        let LaunchSpec { task, env, user, groups, dir, rights, limits, .. } = spec;
        Enter { pid, argv, env, user, groups, dir, rights, task, limits }
    }

    /// `exe` called so that it runs this in a process of one thread: for a client that has a
    /// runtime. See [`crate::dispatch`].
    ///
    /// # Errors
    /// None for strings; the encoder has an error type.
    pub fn command(&self, exe: &Path) -> Result<Command, serde_json::Error> {
        let mut command = Command::new(exe);
        // Others of this machine may read a command line, but not another user's environment.
        command.arg(MODE).arg(self.pid.to_string()).env(VARIABLE, serde_json::to_string(self)?);
        Ok(command)
    }
}

/// Where it is told what to run; the command does not see it.
pub(crate) const VARIABLE: &str = "SKEIN_ENTER";
/// The mode of the program that [`Enter::command`] asks for.
pub(crate) const MODE: &str = "enter";

/// Why nothing could be run: text for the user, and the exit status that a shell would give.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct EnterError {
    text: String,
    /// 127 not found, 126 not executable, 128 anything else.
    pub code: i32,
}

impl From<Failure> for EnterError {
    fn from(failure: Failure) -> Self {
        EnterError { text: failure.error, code: failure.code }
    }
}

/// Runs the command and returns its exit code, 128 + signal where one ended it. The caller's
/// streams are the command's. The process must have one thread, and is inside the task's
/// namespaces afterwards, so nothing is left for it but to exit.
///
/// # Errors
/// When the task is not there or its namespaces cannot be entered. A command that cannot be
/// executed says so on standard error and returns 127 or 126, like a shell.
pub fn run(enter: &Enter) -> Result<i32, EnterError> {
    let failed = |error| Failure::setup(&format!("enter process {}", enter.pid), error);
    let watched = SigSet::from_iter(SIGNALS);
    let task = sys::pidfd_open(Pid::from_raw(enter.pid)).map_err(failed)?;
    cgroup::join(&enter.task, &enter.limits)
        .map_err(|error| Failure::setup("enter the control group", Failure::number(&error)))?;
    join(&task).map_err(failed)?;
    watched.thread_block().map_err(failed)?;
    match sys::fork().map_err(failed)? {
        Forked::Parent(child) => Ok(wait(child.as_raw(), &watched)),
        Forked::Child => {
            sys::reset_signals();
            let Err(failure) = execute(enter);
            let line = format!("{}\n", failure.error);
            // Without standard error the exit code still says it.
            let _ = nix::unistd::write(std::io::stderr(), line.as_bytes());
            sys::exit_now(failure.code)
        }
    }
}

/// What is passed on to the command.
const SIGNALS: [Signal; 7] = [
    Signal::SIGCHLD,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

fn join(task: &OwnedFd) -> nix::Result<()> {
    let spaces = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS;
    setns(task, spaces)
}

fn execute(enter: &Enter) -> Result<Infallible, Failure> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
    let identity = user::resolve(enter.user.as_deref(), &enter.groups, &passwd, &group)?;
    let directory = enter.dir.as_deref().unwrap_or(WORK);
    chdir(directory).map_err(|error| Failure::path("working directory", directory, error))?;
    let hostname = gethostname().unwrap_or_default().to_string_lossy().into_owned();
    privilege::restrict(&identity, &enter.rights)?;
    task::exec(&enter.argv, &task::environment(&enter.env, &hostname, &identity.home))
}

fn wait(child: i32, watched: &SigSet) -> i32 {
    let terminal = std::io::stdin().is_terminal();
    loop {
        match sys::reap(child, false) {
            Some((_, Ended::Code(code))) => return code,
            Some((_, Ended::Signal(signal))) => return 128 + signal,
            None => {}
        }
        match watched.wait() {
            Ok(Signal::SIGCHLD) | Err(Errno::EINTR) => {}
            // The terminal has sent it to the command already.
            Ok(Signal::SIGINT | Signal::SIGQUIT) if terminal => {}
            // A command that has just ended is found in the next round.
            Ok(signal) => drop(sys::kill(child, signal as i32)),
            Err(_) => return 128,
        }
    }
}
