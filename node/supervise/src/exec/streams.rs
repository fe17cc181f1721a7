//! The streams of a program in a task: a terminal of the task's own, or pipes.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use cluster::exec::{ExecSpec, WindowSize};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::{Mode, fstat, major, minor};
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, pipe2};

use crate::failure::Failure;
use crate::sys;

/// Makes terminals, in the instance of devpts that is mounted in the task.
const MULTIPLEXER: &str = "/dev/ptmx";
/// Its number (linux/Documentation/admin-guide/devices.txt): a task could put another file there.
const MULTIPLEXER_NUMBER: (u64, u64) = (5, 2);

/// Both ends of all streams.
pub(super) struct Streams {
    /// The daemon's, as [`Said::Opened`](super::Said::Opened) has them.
    pub(super) given: Vec<OwnedFd>,
    program: [OwnedFd; 3],
    has_terminal: bool,
}

impl Streams {
    /// Makes what the spec asks for. The process must be in the task's root; `null` is /dev/null,
    /// and not one that the task has made.
    pub(super) fn open(spec: &ExecSpec, null: &File) -> Result<Self, Failure> {
        let made = match spec.terminal {
            Some(size) => Self::terminal(size),
            None => Self::pipes(spec, null),
        };
        made.map_err(|error| Failure::setup("make the program's streams", error))
    }

    fn terminal(size: WindowSize) -> nix::Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let own = open(MULTIPLEXER, flags, Mode::empty())?;
        let number = fstat(&own)?.st_rdev;
        if (major(number), minor(number)) != MULTIPLEXER_NUMBER {
            return Err(Errno::ENOTTY);
        }
        let input = sys::terminal_peer(own.as_fd())?;
        sys::set_window_size(own.as_fd(), size)?;
        let copy = || input.try_clone().map_err(|error| Failure::number(&error));
        let program = [copy()?, copy()?, input];
        Ok(Self { given: vec![own], program, has_terminal: true })
    }

    fn pipes(spec: &ExecSpec, null: &File) -> nix::Result<Self> {
        let nothing = || null.try_clone().map(OwnedFd::from).map_err(|e| Failure::number(&e));
        let mut given = Vec::new();
        let mut connect = |asked: bool, reads: bool| -> nix::Result<OwnedFd> {
            if !asked {
                return nothing();
            }
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
            let (own, other) = if reads { (writer, reader) } else { (reader, writer) };
            fcntl(&own, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            given.push(own);
            Ok(other)
        };
        let program = [
            connect(spec.stdin, true)?,
            connect(spec.stdout, false)?,
            connect(spec.stderr, false)?,
        ];
        Ok(Self { given, program, has_terminal: false })
    }

    /// Makes the program's ends the streams of this process, which leads a session, and closes the
    /// others. The user may open them again, as /dev/stderr.
    pub(super) fn connect(self, uid: u32) -> Result<(), Failure> {
        let connect = || -> nix::Result<()> {
            let [input, output, error] = &self.program;
            if self.has_terminal {
                sys::set_controlling_terminal(input.as_fd())?;
            }
            dup2_stdin(input)?;
            dup2_stdout(output)?;
            dup2_stderr(error)
        };
        let own = || -> nix::Result<()> {
            for stream in &self.program {
                // Not of /dev/null, which is the node's.
                if self.has_terminal || fstat(stream)?.st_rdev == 0 {
                    fchown(stream, Some(Uid::from_raw(uid)), None::<Gid>)?;
                }
            }
            Ok(())
        };
        own().and_then(|()| connect()).map_err(|e| Failure::setup("connect the streams", e))
    }
}
