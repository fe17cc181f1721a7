//! A health check's command, run in the task's namespaces, root and user.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Pid, dup2_stderr, dup2_stdout, pipe2, read, setsid};

use crate::cgroup;
use crate::failure::Failure;
use crate::health::{PROBE_OUTPUT_BYTES_MAX, ProbeResult};
use crate::spec::LaunchSpec;
use crate::sys::{self, Ended, Forked};
use crate::task;

/// `SIGKILL`.
const KILL: i32 = 9;

/// A probe that is running.
pub(crate) struct RunningProbe {
    pid: i32,
    output: OwnedFd,
    text: Vec<u8>,
    aborted: bool,
}

impl RunningProbe {
    /// Starts `argv` next to the process `first`, pid 1 of the task. The caller's children must be
    /// made in the task's pid namespace already.
    pub(crate) fn start(spec: &LaunchSpec, argv: &[String], first: i32) -> Result<Self, Failure> {
        let failed = |error| Failure::setup("run the health check", error);
        let task = sys::pidfd_open(Pid::from_raw(first)).map_err(failed)?;
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
        match sys::fork().map_err(failed)? {
            Forked::Parent(pid) => {
                Ok(Self { pid: pid.as_raw(), output: reader, text: Vec::new(), aborted: false })
            }
            Forked::Child => {
                let Err(failure) = cgroup::join(&spec.task, &spec.limits)
                    .map_err(|error| failed(Failure::number(&error)))
                    .and_then(|()| connect(&task, &writer).map_err(failed))
                    .and_then(|()| task::identity(spec))
                    .and_then(|who| task::execute(spec, &who, argv, None));
                // Where this cannot be written the exit code says it still.
                let _ = fs::File::from(writer).write_all(failure.error.as_bytes());
                sys::exit_now(failure.code)
            }
        }
    }

    /// The probe's process, as the node sees it.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable when there is output.
    pub(crate) fn output(&self) -> &OwnedFd {
        &self.output
    }

    /// Reads what there is. `false` when there will be no more.
    pub(crate) fn read(&mut self) -> bool {
        let mut bytes = [0; PROBE_OUTPUT_BYTES_MAX];
        loop {
            match read(&self.output, &mut bytes) {
                Ok(0) => return false,
                Ok(count) => {
                    let room = PROBE_OUTPUT_BYTES_MAX - self.text.len();
                    self.text.extend_from_slice(&bytes[..count.min(room)]);
                }
                Err(Errno::EINTR) => {}
                Err(error) => return error == Errno::EAGAIN,
            }
        }
    }

    /// Kills it and what it has started in its session.
    pub(crate) fn abort(&mut self) {
        self.aborted = true;
        // It may not have its own group yet, and may have ended by itself.
        let _ = sys::kill(-self.pid, KILL);
        let _ = sys::kill(self.pid, KILL);
    }

    /// The verdict, once the process has ended.
    pub(crate) fn finish(mut self, ended: Ended) -> ProbeResult {
        self.read();
        if self.aborted {
            return ProbeResult::TimedOut;
        }
        let code = match ended {
            Ended::Code(code) => code,
            Ended::Signal(signal) => 128 + signal,
        };
        let output = String::from_utf8_lossy(&self.text).into_owned();
        ProbeResult::Exited { code, output }
    }
}

fn connect(task: &OwnedFd, output: &OwnedFd) -> nix::Result<()> {
    sys::reset_signals();
    setsid()?;
    dup2_stdout(output)?;
    dup2_stderr(output)?;
    let spaces = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWNS;
    setns(task, spaces)
}
