//! The processes that outlive the daemon: supervisors, which own a task each, and the holder of
//! namespaces; and what a daemon needs to start them and to speak to them.
//!
//! The daemon starts its own program again as `skein supervise TASK_DIR`. That process has one
//! thread and no runtime. It makes the sandbox, waits to be told that the network is wired, runs
//! the command in its own namespaces and root, keeps its output, probes its health, stops it, and
//! keeps the end on record until it is told to let go. When it dies, the task dies with it.
//!
//! All `unsafe` code of a node is here, in `sys.rs`. Nothing here is asynchronous.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::prctl::set_name;
use nix::sys::stat::{Mode, umask};

mod cgroup;
pub mod client;
pub mod clock;
mod detach;
mod etc;
pub mod exec;
mod failure;
mod first;
mod forward;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod health;
pub mod hold;
mod init;
pub mod layout;
mod lifecycle;
pub mod logs;
mod lost;
mod netns;
mod notes;
mod privilege;
mod probe;
pub mod protocol;
mod remains;
mod root;
mod seccomp;
mod server;
mod shell;
pub mod spec;
mod status;
mod streams;
#[allow(unsafe_code, reason = "fork, capabilities, mount attributes and passed descriptors")]
mod sys;
mod task;
mod tree;
mod user;
mod wire;

pub use cgroup::limits_supported;
pub use health::PROBE_OUTPUT_BYTES_MAX;
pub use status::Launch;

use layout::{LAUNCH, PID};
use notes::give_up;

/// Runs what needs a process of one thread, if that is what the program was called for:
/// `supervise TASK_DIR`, `hold RUN_DIR`, `exec-task TASK_DIR` or `first DAEMON…`. To be called
/// first thing in `main` with all arguments after the program's name; `None` means that the program
/// was called by a user.
pub fn dispatch(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let (mode, argument) = (arguments.next()?, arguments.next()?);
    match mode.to_str()? {
        client::MODE => Some(supervise(Path::new(&argument))),
        hold::protocol::MODE => Some(hold::holder::run(Path::new(&argument))),
        exec::MODE => Some(exec::watch::run(Path::new(&argument))),
        first::MODE => Some(first::run(std::iter::once(argument).chain(arguments))),
        _ => None,
    }
}

/// Supervises the task whose launch spec is in `task_dir`. Returns when the task has been
/// released.
///
/// Standard input must be the locked lock file of the task and standard output a pipe to the
/// starter, as [`client::TaskDir::supervise`] arranges.
fn supervise(task_dir: &Path) -> ExitCode {
    let detached = match detach::begin() {
        Ok(detached) => detached,
        Err(error) => return give_up(&format!("detach from the daemon: {error}")),
    };
    // The name is for people who look at the process list.
    let _ = set_name(c"skein-task");
    umask(Mode::from_bits_truncate(0o022));
    let mut supervisor = match prepare(task_dir) {
        Ok(supervisor) => supervisor,
        Err(error) => {
            detached.refuse(&error.to_string());
            return give_up(&error.to_string());
        }
    };
    let _lease = match detached.ready() {
        Ok(lease) => lease,
        Err(error) => return give_up(&format!("tell the daemon: {error}")),
    };
    match supervisor.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => give_up(&format!("supervise: {error}")),
    }
}

fn prepare(task_dir: &Path) -> io::Result<shell::Supervisor> {
    let launch: Launch = status::read(task_dir, LAUNCH)?;
    std::fs::write(task_dir.join(PID), format!("{}\n", std::process::id()))?;
    shell::Supervisor::prepare(launch, task_dir)
}
