//! A further program in a running task: what is asked for, and what is said between the daemon and
//! the process that starts the program and watches it, `skein exec-task TASK_DIR`.
//!
//! That process stays outside the task. Its standard input is a socket, over which it is told what
//! to run, and over which it hands out the daemon's ends of the program's streams. When the socket
//! ends it kills the program, so a program never outlives the daemon that asked for it. When the
//! task ends, the kernel kills the program with all processes of the task's pid namespace.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use cluster::exec::{ExecEnd, ExecSpec, WindowSize};
use serde::{Deserialize, Serialize};

use crate::client::TaskDir;
use crate::sys;
use crate::wire::{self, Connection};

pub(crate) mod streams;
pub(crate) mod watch;

/// What the program that starts and watches is called with.
pub(crate) const MODE: &str = "exec-task";

/// The size of a terminal.
///
/// # Errors
/// When it is no terminal.
pub fn window_size(terminal: impl AsFd) -> io::Result<WindowSize> {
    Ok(sys::window_size(terminal.as_fd())?)
}

/// Gives a terminal a size; what runs in it is notified.
///
/// # Errors
/// When it is no terminal.
pub fn resize(terminal: impl AsFd, size: WindowSize) -> io::Result<()> {
    Ok(sys::set_window_size(terminal.as_fd(), size)?)
}

/// What the process is told once its program runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Send a signal to the program and to what it has started in its process group.
    Signal(u8),
}

/// What the process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// Sent with the daemon's ends of the streams: the terminal, or input, output and error, those
    /// of them that the spec asks for.
    Opened,
    /// The task does not run.
    Refused { reason: String },
    /// The last message.
    Ended(ExecEnd),
}

/// What a program was answered with that was to be started.
#[derive(Debug)]
pub enum Begun {
    /// It starts.
    Running(Running),
    /// It cannot run in the task as it is now.
    Refused(String),
    /// It never ran.
    Ended(ExecEnd),
}

/// A program that starts, and its streams.
#[derive(Debug)]
pub struct Running {
    /// Ends the program when it is closed.
    pub control: UnixStream,
    /// What has come after the streams, for [`take_end`].
    pub received: Vec<u8>,
    /// The terminal, or input, output and error, those that the spec asks for; non-blocking.
    pub streams: Vec<OwnedFd>,
}

/// What starts and watches a program in the task of `task_dir`, as a call of the program `exe`; its
/// standard input must be the other end of the socket that [`begin`] gets.
#[must_use]
pub fn command(exe: &Path, task_dir: &TaskDir) -> Command {
    let mut command = Command::new(exe);
    command.arg(MODE).arg(task_dir.path());
    command
}

/// Says what to run and waits until it starts, at most [`REQUEST_LIMIT`](crate::client) long.
///
/// # Errors
/// When the process is gone or does not answer, or the spec is longer than a line.
pub fn begin(control: UnixStream, spec: &ExecSpec) -> io::Result<Begun> {
    let mut connection = Connection::on(control)?;
    let (said, streams) = connection.call::<_, Said>(spec)?;
    Ok(match said {
        Said::Opened => {
            let (control, received) = connection.into_parts();
            control.set_nonblocking(true)?;
            Begun::Running(Running { control, received, streams })
        }
        Said::Refused { reason } => Begun::Refused(reason),
        Said::Ended(end) => Begun::Ended(end),
    })
}

/// What makes the process send a signal, to be written to [`Running::control`].
///
/// # Errors
/// None for a number; the encoder has an error type.
pub fn signal(number: u8) -> io::Result<Vec<u8>> {
    wire::encode(&Order::Signal(number))
}

/// Takes the end out of what was read from [`Running::control`].
///
/// # Errors
/// When it is something else.
pub fn take_end(received: &mut Vec<u8>) -> io::Result<Option<ExecEnd>> {
    let Some(line) = wire::take_line(received)? else { return Ok(None) };
    match serde_json::from_slice(&line)? {
        Said::Ended(end) => Ok(Some(end)),
        said @ (Said::Opened | Said::Refused { .. }) => {
            Err(io::Error::other(format!("a running program was answered with {said:?}")))
        }
    }
}

#[cfg(test)]
mod tests;
