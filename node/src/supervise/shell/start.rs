//! From `start` to the fork of the task's first process.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use netprog_linux::facts::RESOLV_CONF;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::pipe2;

use std::os::fd::AsFd;

use super::Supervisor;
use crate::executor::{StartSpec, cgroup};
use crate::supervise::lifecycle::Input;
use crate::supervise::root::{FILES, IMAGE, OWNER, STAGE};
use crate::supervise::sys::{self, Forked};
use crate::supervise::task::{Failure, Setting, become_first};
use crate::supervise::{etc, remains, status};

impl Supervisor {
    /// Forks pid 1. What goes wrong afterwards is said through the failure pipe.
    pub(super) fn fork(&mut self, start: &StartSpec) -> Result<(), Failure> {
        self.make_files(start)
            .map_err(|error| Failure::setup("make the task's files", Failure::number(&error)))?;
        let spec = &self.launch.spec;
        cgroup::create(&spec.task, &spec.limits)
            .map_err(|error| Failure::setup("make the control group", Failure::number(&error)))?;
        let failed = |error| Failure::setup("fork the task", error);
        let output = self.streams.connect().map_err(failed)?;
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
                    launch: &self.launch,
                    task_dir: &self.task_dir,
                    sandbox: self.sandbox.namespace.as_fd(),
                    input: input.as_ref().map(AsFd::as_fd),
                    output: [output[0].as_fd(), output[1].as_fd()],
                    failure: say_failure,
                    lifeline,
                })
            }
            Forked::Parent(pid) => {
                self.failure = Some(failure);
                self.lifeline = Some(hold_lifeline);
                self.input = hold_input;
                self.pid_ticks = status::process_ticks(pid.as_raw());
                self.step(Input::Forked { pid: pid.as_raw() });
                Ok(())
            }
        }
    }

    fn make_files(&self, start: &StartSpec) -> io::Result<()> {
        let spec = &self.launch.spec;
        let files = self.task_dir.join(FILES);
        fs::create_dir_all(&files)?;
        for name in [STAGE, IMAGE] {
            fs::create_dir_all(self.task_dir.join(name))?;
        }
        fs::create_dir_all(remains::work_directory(&self.launch))?;
        let layer = remains::layer_directory(&self.launch);
        // Of a start that the machine did not outlive.
        remains::remove_tree(&layer)?;
        fs::create_dir_all(&layer)?;
        symlink(&self.task_dir, layer.join(OWNER))?;
        let hostname = spec.hostname();
        fs::write(files.join("hosts"), etc::hosts(&hostname, &spec.hosts, &start.addresses))?;
        fs::write(files.join("hostname"), format!("{hostname}\n"))?;
        // Without such a file there is nothing to take over.
        let of_host = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        fs::write(files.join("resolv.conf"), etc::resolv_conf(&spec.dns, &of_host))
    }
}
