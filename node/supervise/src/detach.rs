//! How a long-lived process is started by a daemon that it must outlive.
//!
//! The starter opens a lock file, takes the lock and hands it over as standard input: the lock
//! belongs to the open file, so it is held until the last process that has it ends, and "is it
//! alive" needs no pid. Standard output is a pipe that gets one line, when the process is ready.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::{dup2_stdin, dup2_stdout, setsid};

use crate::sys::{self, Forked};

/// The line that says that the process is ready.
const READY: &str = "ready";
/// The most that is read from a process that is starting.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// How long a starting process may take until it is ready.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(10);

/// The starter's side: `exe` with `arguments`, its standard error in the file `log`.
/// Returns when the process is ready.
///
/// # Errors
/// What the process said when it could not start, or that it took longer than [`START_LIMIT`].
pub(crate) fn spawn(exe: &Path, arguments: [&Path; 2], lock: File, log: &Path) -> io::Result<()> {
    let log = File::options().create(true).append(true).open(log)?;
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(exe);
    command.args(arguments).stdin(lock).stdout(writer).stderr(Stdio::from(log)).current_dir("/");
    let mut child = command.spawn()?;
    // The command holds the write end and the lock, and both must be the process' alone.
    drop(command);
    let answer = read_answer(reader);
    // The process detaches by a fork, so its first half ends at once or has already failed.
    let status = child.wait()?;
    match answer?.trim_end() {
        READY => Ok(()),
        "" => Err(io::Error::other(format!("ended without a word ({status})"))),
        text => Err(io::Error::other(text.to_owned())),
    }
}

fn read_answer(reader: io::PipeReader) -> io::Result<String> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let limit = PollTimeout::try_from(START_LIMIT).map_err(io::Error::other)?;
    let mut wait = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    if sys::uninterrupted(START_LIMIT, || poll(&mut wait, limit))? == 0 {
        let text = format!("was not ready after {START_LIMIT:?}");
        return Err(io::Error::new(io::ErrorKind::TimedOut, text));
    }
    let mut answer = String::new();
    reader.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Waits for something that gives no notice, between two looks at it. For processes without a
/// runtime's timers.
pub(crate) fn pause(interval: Duration) {
    let timeout = nix::poll::PollTimeout::try_from(interval).unwrap_or(nix::poll::PollTimeout::MAX);
    // A signal shortens the wait, and then the next look comes sooner.
    let _ = nix::poll::poll(&mut [], timeout);
}

/// Opens the lock file and takes the lock; `None` when a living process holds it.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).append(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The started process' side, after [`begin`].
pub(crate) struct Detached {
    /// Held, never read: the lock lives as long as this process.
    _lock: OwnedFd,
    answer: File,
}

/// Leaves the starter's session and process tree, and takes over lock and pipe, so that standard
/// input and output are /dev/null.
pub(crate) fn begin() -> io::Result<Detached> {
    match sys::fork()? {
        Forked::Parent(_) => sys::exit_now(0),
        Forked::Child => {}
    }
    setsid()?;
    let lock = io::stdin().as_fd().try_clone_to_owned()?;
    let answer = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(Detached { _lock: lock, answer })
}

impl Detached {
    /// Tells the starter that the process is ready; what is returned must be kept while it runs.
    pub(crate) fn ready(self) -> io::Result<Lease> {
        let Detached { _lock, mut answer } = self;
        writeln!(answer, "{READY}")?;
        Ok(Lease { _lock })
    }

    /// Tells the starter why the process cannot run.
    pub(crate) fn refuse(mut self, reason: &str) {
        // A starter that has died needs no answer.
        let _ = writeln!(self.answer, "{reason}");
    }
}

/// The lock of a running process.
pub(crate) struct Lease {
    _lock: OwnedFd,
}
