//! The process that starts a program in a task and watches it. It has one thread, and stays in the
//! node's namespaces and outside the task's control groups.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use cluster::exec::{ExecEnd, ExecSpec};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::{set_dumpable, set_name};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, pipe2, setsid};

use super::streams::Streams;
use super::{Order, Said};
use crate::failure::{CODE_SETUP, Failure};
use crate::layout::{LAUNCH, STATUS};
use crate::notes::give_up;
use crate::protocol::Phase;
use crate::spec::LaunchSpec;
use crate::status::{self, Launch, Status};
use crate::sys::{self, Ended, Forked};
use crate::{cgroup, task, wire};

/// `SIGKILL`.
const KILL: i32 = 9;
/// The most that a program says that cannot be executed.
const FAILURE_BYTES_MAX: u64 = 64 << 10;
/// What a terminal is called where the spec does not say, as Docker does (moby `daemon/exec.go`).
const TERMINAL: &str = "TERM=xterm";

/// Runs one program in the task of `task_dir`. Standard input must be the daemon's socket.
pub(crate) fn run(task_dir: &Path) -> ExitCode {
    // The name is for people who look at the process list.
    let _ = set_name(c"skein-exec");
    umask(Mode::from_bits_truncate(0o022));
    match attend(task_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => give_up(&format!("run a program in {}: {error}", task_dir.display())),
    }
}

fn attend(task_dir: &Path) -> io::Result<()> {
    // Until it is another program, nothing in the task may look into this one (ptrace(2)).
    set_dumpable(false)?;
    // Keys of the daemon's terminal, if it has one, are not for this process.
    setsid()?;
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let spec: ExecSpec = wire::read_request(&control)?;
    let said = match first_process(task_dir)? {
        Some((launch, first)) => match start(&launch.spec, &spec, &first, &control) {
            Ok(program) => Said::Ended(program.watch(&control)),
            Err(failure) => Said::Ended(never_ran(failure)),
        },
        None => Said::Refused { reason: "it is not running".to_owned() },
    };
    match (&control).write_all(&wire::encode(&said)?) {
        // The daemon does not want to know any more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn never_ran(failure: Failure) -> ExecEnd {
    ExecEnd::failed(failure.code, failure.error)
}

/// Pid 1 of the task, if it runs: a descriptor, as its pid may be another process's soon.
fn first_process(task_dir: &Path) -> io::Result<Option<(Launch, OwnedFd)>> {
    let launch: Launch = status::read(task_dir, LAUNCH)?;
    let Status { report, pid_ticks } = status::read(task_dir, STATUS)?;
    let Phase::Running { pid, .. } = report.phase else { return Ok(None) };
    let first = match sys::pidfd_open(Pid::from_raw(pid)) {
        Err(Errno::ESRCH) => return Ok(None),
        first => first?,
    };
    // A process that has the pid and the time of pid 1 now is what was opened before.
    let is_first = pid_ticks.is_some() && status::process_ticks(pid) == pid_ticks;
    Ok(is_first.then_some((launch, first)))
}

/// A program that was started.
struct Program {
    pid: i32,
    /// Readable when it has ended.
    process: OwnedFd,
    /// Ends, or says why not, when the program has been executed.
    failure: OwnedFd,
    /// Closed when this process ends: see [`task::execute`].
    _alive: OwnedFd,
}

fn start(
    task: &LaunchSpec,
    spec: &ExecSpec,
    first: &OwnedFd,
    control: &UnixStream,
) -> Result<Program, Failure> {
    let failed = |error| Failure::setup("run a program in the task", error);
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| failed(Failure::number(&error)))?;
    let (failure, say_failure) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let (lifeline, alive) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    // For children: this process stays where it is.
    setns(first, CloneFlags::CLONE_NEWPID).map_err(failed)?;
    match sys::fork().map_err(failed)? {
        Forked::Parent(pid) => {
            // With this process the program ends, too.
            let process = sys::pidfd_open(pid).map_err(failed)?;
            Ok(Program { pid: pid.as_raw(), process, failure, _alive: alive })
        }
        Forked::Child => {
            drop(alive);
            let Err(failure) = become_program(task, spec, first, (control, &null, &lifeline));
            if let Ok(text) = serde_json::to_vec(&failure.clone().shortened()) {
                // Where this cannot be written the exit code says it still.
                let _ = File::from(say_failure).write_all(&text);
            }
            sys::exit_now(failure.code)
        }
    }
}

fn become_program(
    task: &LaunchSpec,
    spec: &ExecSpec,
    first: &OwnedFd,
    (control, null, lifeline): (&UnixStream, &File, &OwnedFd),
) -> Result<Infallible, Failure> {
    sys::reset_signals();
    cgroup::join(&task.task, &task.limits)
        .map_err(|error| Failure::setup("enter the control group", Failure::number(&error)))?;
    let spaces = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWNS;
    setsid()
        .and_then(|_session| setns(first, spaces))
        .map_err(|error| Failure::setup("enter the task's namespaces", error))?;
    let task = of_program(task, spec);
    let identity = task::identity(&task)?;
    let mut streams = Streams::open(spec, null)?;
    let given = std::mem::take(&mut streams.given);
    let handed = wire::encode(&Said::Opened).and_then(|line| {
        let given: Vec<_> = given.iter().map(AsFd::as_fd).collect();
        wire::send_with_descriptors(control, &line, &given)
    });
    handed.map_err(|error| Failure::setup("hand out the streams", Failure::number(&error)))?;
    drop(given);
    // From here on standard input is no copy of the daemon's socket any more.
    streams.connect(identity.uid)?;
    task::execute(&task, &identity, &spec.argv, Some(lifeline.as_fd()))
}

/// The task's spec, with what the program has of its own.
fn of_program(task: &LaunchSpec, spec: &ExecSpec) -> LaunchSpec {
    let terminal = spec.terminal.map(|_| TERMINAL.to_owned());
    let env = terminal.into_iter().chain(task.env.iter().cloned()).chain(spec.env.iter().cloned());
    LaunchSpec {
        env: env.collect(),
        user: spec.user.clone().or_else(|| task.user.clone()),
        dir: spec.dir.clone().or_else(|| task.dir.clone()),
        ..task.clone()
    }
}

impl Program {
    /// Passes orders on until the program has ended; without a daemon it is killed.
    fn watch(self, control: &UnixStream) -> ExecEnd {
        let mut orders = Some(control);
        let mut received = Vec::new();
        loop {
            let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut polled = vec![readable(self.process.as_fd())];
            polled.extend(orders.map(|control| readable(control.as_fd())));
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    self.signal(KILL);
                    return self.finish(Some(error));
                }
            }
            let is_ready = |poll: &PollFd<'_>| poll.any() == Some(true);
            if is_ready(&polled[0]) {
                return self.finish(None);
            }
            if let Some(control) = orders
                && polled.get(1).is_some_and(is_ready)
                && !self.obey(control, &mut received)
            {
                self.signal(KILL);
                orders = None;
            }
        }
    }

    /// Whether the daemon is still there after what it said was carried out.
    fn obey(&self, mut control: &UnixStream, received: &mut Vec<u8>) -> bool {
        let mut bytes = [0; 4096];
        match control.read(&mut bytes) {
            Ok(0) => return false,
            Ok(count) => received.extend_from_slice(&bytes[..count]),
            Err(error) => return error.kind() == io::ErrorKind::Interrupted,
        }
        loop {
            match wire::take_line(received) {
                Ok(Some(line)) => match serde_json::from_slice(&line) {
                    Ok(Order::Signal(number)) => self.signal(number.into()),
                    Err(_) => return false,
                },
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn signal(&self, number: i32) {
        // Before it leads a session there is no such group; it may have ended by itself.
        if sys::kill(-self.pid, number).is_err() {
            let _ = sys::kill(self.pid, number);
        }
    }

    fn finish(self, trouble: Option<Errno>) -> ExecEnd {
        // One that is traced by a process of the task belongs to that first (ptrace(2)).
        let ended = sys::reap(self.pid);
        let mut text = Vec::new();
        // Nobody has it open any more.
        let read = File::from(self.failure).take(FAILURE_BYTES_MAX).read_to_end(&mut text);
        let failure = read.ok().and_then(|_| serde_json::from_slice::<Failure>(&text).ok());
        if let Some(failure) = failure {
            return never_ran(failure);
        }
        let error = trouble.map(|error| format!("wait for the program: {}", sys::words(error)));
        match ended {
            Some((_, Ended::Code(code))) => ExecEnd { code, signal: None, error },
            Some((_, Ended::Signal(signal))) => {
                ExecEnd { code: 128 + signal, signal: Some(signal), error }
            }
            None => ExecEnd::failed(CODE_SETUP, "its end was not seen".to_owned()),
        }
    }
}
