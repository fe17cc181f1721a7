//! From `start` to the fork of the task's first process.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::pipe2;

use crate::failure::Failure;
use crate::layout::{FILES, IMAGE, OWNER, RESOLV_CONF, STAGE};
use crate::netns::Sandbox;
use crate::spec::StartSpec;
use crate::status::Launch;
use crate::streams::Streams;
use crate::sys::{self, Forked};
use crate::task::{Setting, become_first};
use crate::{cgroup, etc, remains};

/// The task's first process, and what its supervisor keeps of it.
pub(super) struct First {
    pub(super) pid: i32,
    /// Ends, or says why not, when pid 1 has executed the command.
    pub(super) failure: OwnedFd,
    /// Held so that the task's first process can see that its supervisor lives.
    pub(super) lifeline: OwnedFd,
    /// Held so that what the task reads from its standard input does not end.
    pub(super) input: Option<OwnedFd>,
}

/// Forks pid 1. What goes wrong afterwards is said through the failure pipe.
pub(super) fn fork(
    launch: &Launch,
    task_dir: &Path,
    sandbox: &Sandbox,
    streams: &mut Streams,
    start: &StartSpec,
) -> Result<First, Failure> {
    make_files(launch, task_dir, start)
        .map_err(|error| Failure::setup("make the task's files", Failure::number(&error)))?;
    let spec = &launch.spec;
    cgroup::create(&spec.task, &spec.limits)
        .map_err(|error| Failure::setup("make the control group", Failure::number(&error)))?;
    let failed = |error| Failure::setup("fork the task", error);
    let output = streams.connect().map_err(failed)?;
    let input = spec.open_stdin.then(|| pipe2(OFlag::O_CLOEXEC)).transpose().map_err(failed)?;
    let (input, hold_input) = input.unzip();
    let (failure, say_failure) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let (lifeline, hold_lifeline) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    // All later children, health checks among them, are born in the task's pid namespace.
    unshare(CloneFlags::CLONE_NEWPID).map_err(failed)?;
    match sys::fork().map_err(failed)? {
        Forked::Child => {
            drop((hold_lifeline, hold_input));
            become_first(&Setting {
                launch,
                task_dir,
                sandbox: sandbox.namespace.as_fd(),
                input: input.as_ref().map(AsFd::as_fd),
                output: [output[0].as_fd(), output[1].as_fd()],
                failure: say_failure,
                lifeline,
            })
        }
        Forked::Parent(pid) => {
            Ok(First { pid: pid.as_raw(), failure, lifeline: hold_lifeline, input: hold_input })
        }
    }
}

fn make_files(launch: &Launch, task_dir: &Path, start: &StartSpec) -> io::Result<()> {
    let spec = &launch.spec;
    let files = task_dir.join(FILES);
    fs::create_dir_all(&files)?;
    for name in [STAGE, IMAGE] {
        fs::create_dir_all(task_dir.join(name))?;
    }
    fs::create_dir_all(launch.work_directory())?;
    let layer = launch.layer_directory();
    // Of a start that the machine did not outlive.
    remains::remove_tree(&layer)?;
    fs::create_dir_all(&layer)?;
    symlink(task_dir, layer.join(OWNER))?;
    let hostname = spec.hostname();
    fs::write(files.join("hosts"), etc::hosts(&hostname, &spec.hosts, &start.addresses))?;
    fs::write(files.join("hostname"), format!("{hostname}\n"))?;
    // Without such a file there is nothing to take over.
    let of_host = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    fs::write(files.join("resolv.conf"), etc::resolv_conf(&spec.dns, &of_host))
}
