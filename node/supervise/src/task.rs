//! The task's first process: from the fork to the exec.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, sethostname, setsid};

use crate::failure::{CODE_SETUP, Failure};
use crate::layout::WORK;
use crate::spec::LaunchSpec;
use crate::status::Launch;
use crate::sys::{self, Forked};
use crate::user::{self, Identity};
use crate::{cgroup, init, netns, privilege, root};

/// Docker's default `PATH` (moby `oci/defaults.go`).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the first process gets from the supervisor.
pub(crate) struct Setting<'a> {
    pub(crate) launch: &'a Launch,
    pub(crate) task_dir: &'a Path,
    pub(crate) sandbox: BorrowedFd<'a>,
    /// None is /dev/null.
    pub(crate) input: Option<BorrowedFd<'a>>,
    pub(crate) output: [BorrowedFd<'a>; 2],
    /// Gets a [`Failure`] as JSON, or nothing and an end when the command has been executed.
    pub(crate) failure: OwnedFd,
    /// Ends when the supervisor does.
    pub(crate) lifeline: OwnedFd,
}

/// Runs as the task's pid 1 and never returns.
pub(crate) fn become_first(setting: &Setting<'_>) -> ! {
    let Err(failure) = prepare(setting).and_then(|()| launch(setting));
    report(&setting.failure, &failure);
    sys::exit_now(failure.code)
}

fn report(pipe: &OwnedFd, failure: &Failure) {
    let Ok(text) = serde_json::to_vec(failure) else { return };
    if let Ok(copy) = pipe.try_clone() {
        // The supervisor that should read it may have died; then nobody needs it.
        let _ = fs::File::from(copy).write_all(&text);
    }
}

fn prepare(setting: &Setting<'_>) -> Result<(), Failure> {
    let spec = &setting.launch.spec;
    sys::reset_signals();
    let streams = || -> nix::Result<()> {
        setsid()?;
        setting.input.map_or(Ok(()), dup2_stdin)?;
        dup2_stdout(setting.output[0])?;
        dup2_stderr(setting.output[1])
    };
    streams().map_err(|error| Failure::setup("connect the streams", error))?;
    cgroup::join(&spec.task, &spec.limits)
        .map_err(|error| Failure::setup("enter the control group", Failure::number(&error)))?;
    let spaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    setns(setting.sandbox, CloneFlags::CLONE_NEWNET)
        .and_then(|()| unshare(spaces))
        .map_err(|error| Failure::setup("enter the task's namespaces", error))?;
    let hostname = spec.hostname();
    sethostname(&hostname).map_err(|error| Failure::path("set hostname", &hostname, error))?;
    for (name, value) in &spec.sysctls {
        netns::write_sysctl(name, value).map_err(|error| {
            Failure::setup(&format!("set sysctl {name} to {value:?}"), Failure::number(&error))
        })?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    root::enter(setting.launch, setting.task_dir)
}

fn launch(setting: &Setting<'_>) -> Result<Infallible, Failure> {
    let spec = &setting.launch.spec;
    if !spec.init {
        return execute(spec, &identity(spec)?, &spec.argv, Some(setting.lifeline.as_fd()));
    }
    match sys::fork().map_err(|error| Failure::setup("fork the command", error))? {
        Forked::Child => {
            let Err(failure) = identity(spec).and_then(|who| execute(spec, &who, &spec.argv, None));
            report(&setting.failure, &failure);
            sys::exit_now(failure.code)
        }
        Forked::Parent(command) => {
            privilege::restrict(&identity(spec)?, &spec.rights)?;
            die_with_supervisor(setting.lifeline.as_fd())?;
            init::run(command.as_raw())
        }
    }
}

/// Ends the program when the process that watches it ends. After the change of user, which clears
/// it (prctl(2)).
fn die_with_supervisor(lifeline: BorrowedFd<'_>) -> Result<(), Failure> {
    set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| Failure::setup("bind the program to what watches it", error))?;
    let mut wait = [PollFd::new(lifeline, PollFlags::empty())];
    match poll(&mut wait, PollTimeout::ZERO) {
        Ok(0) => Ok(()),
        // It ended before the kernel knew whose end to watch for.
        _ => sys::exit_now(CODE_SETUP),
    }
}

/// Whom the program of `spec` runs as. The process must be in the task's root already.
pub(crate) fn identity(spec: &LaunchSpec) -> Result<Identity, Failure> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
    user::resolve(spec.user.as_deref(), &spec.groups, &passwd, &group)
}

/// Becomes `argv` with the user, directory and environment of `spec`. The process must be in the
/// task's root already.
pub(crate) fn execute(
    spec: &LaunchSpec,
    identity: &Identity,
    argv: &[String],
    lifeline: Option<BorrowedFd<'_>>,
) -> Result<Infallible, Failure> {
    let directory = spec.dir.as_deref().filter(|dir| !dir.is_empty()).unwrap_or(WORK);
    chdir(directory).map_err(|error| Failure::path("working directory", directory, error))?;
    privilege::restrict(identity, &spec.rights)?;
    if let Some(lifeline) = lifeline {
        die_with_supervisor(lifeline)?;
    }
    exec(argv, &environment(&spec.env, &spec.hostname(), &identity.home))
}

/// Docker's defaults, replaced by what the spec says; the last of a name wins.
pub(crate) fn environment(given: &[String], hostname: &str, home: &str) -> Vec<String> {
    let defaults = [format!("PATH={PATH}"), format!("HOSTNAME={hostname}"), format!("HOME={home}")];
    let mut values: Vec<String> = Vec::new();
    for entry in defaults.iter().chain(given) {
        let name = name(entry);
        match values.iter_mut().find(|value| self::name(value) == name) {
            Some(value) => value.clone_from(entry),
            None => values.push(entry.clone()),
        }
    }
    values
}

fn name(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

/// Executes `argv`, looking for the program in the `PATH` of `environment`.
pub(crate) fn exec(argv: &[String], environment: &[String]) -> Result<Infallible, Failure> {
    let strings = |list: &[String]| -> Result<Vec<CString>, Failure> {
        let strings = list.iter().map(|text| CString::new(text.as_str()));
        strings.collect::<Result<_, _>>().map_err(|error| {
            Failure::new(Errno::EINVAL, format!("exec: zero byte at {}", error.nul_position()))
        })
    };
    let (arguments, variables) = (strings(argv)?, strings(environment)?);
    let program = argv.first().map_or("", String::as_str);
    if program.contains('/') {
        let error = try_exec(program, &arguments, &variables);
        return Err(Failure::path("exec", program, error));
    }
    let path = environment.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(PATH);
    let mut found = None;
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        match try_exec(&format!("{directory}/{program}"), &arguments, &variables) {
            Errno::ENOENT | Errno::ENOTDIR => {}
            error => found = Some(error),
        }
    }
    Err(match found {
        Some(error) => Failure::path("exec", program, error),
        None => {
            let text = format!("exec {program:?}: executable file not found in $PATH");
            Failure::new(Errno::ENOENT, text)
        }
    })
}

fn try_exec(path: &str, arguments: &[CString], variables: &[CString]) -> Errno {
    match CString::new(path).map(|path| execve(&path, arguments, variables)) {
        Ok(Err(error)) => error,
        Err(_nul) => Errno::EINVAL,
    }
}
