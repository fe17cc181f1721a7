//! The task's standard output and error: pipes on one side, the log on the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read};

use crate::clock;
use crate::forward::Forwarder;
use crate::logs::{LogStream, Writer};
use crate::notes::note;
use crate::spec::{LogLimits, LogSink, Output};

/// How much is read of one pipe before the others get their turn.
const READ_BYTES: usize = 64 << 10;

/// Both streams of one task; by default of none.
#[derive(Default)]
pub(crate) struct Streams {
    writer: Option<Writer>,
    forwarder: Option<Forwarder>,
    pipes: [Option<OwnedFd>; 2],
    /// Said once, because the next line would very likely fail in the same way.
    failed: bool,
}

const KINDS: [LogStream; 2] = [LogStream::Stdout, LogStream::Stderr];

impl Streams {
    /// Opens the log in `directory`, if there is to be one.
    pub(crate) fn open(
        directory: &Path,
        limits: LogLimits,
        output: Output,
        sink: Option<LogSink>,
    ) -> io::Result<Self> {
        let writer = match output {
            Output::Kept => Some(Writer::open(directory, limits)?),
            Output::Dropped => None,
        };
        let forwarder = sink.map(Forwarder::new);
        Ok(Streams { writer, forwarder, pipes: [None, None], failed: false })
    }

    /// Makes the pipes and returns the task's ends of them.
    pub(crate) fn connect(&mut self) -> nix::Result<[OwnedFd; 2]> {
        let mut make = |index: usize| -> nix::Result<OwnedFd> {
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
            fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            self.pipes[index] = Some(reader);
            Ok(writer)
        };
        Ok([make(0)?, make(1)?])
    }

    /// What to poll, by index.
    pub(crate) fn pipes(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.pipes
            .iter()
            .enumerate()
            .filter_map(|(index, pipe)| pipe.as_ref().map(|pipe| (index, pipe.as_fd())))
    }

    /// Reads one pipe once. `false` when nothing is there now or ever.
    pub(crate) fn pump(&mut self, index: usize, now: SystemTime) -> bool {
        let Some(pipe) = &self.pipes[index] else { return false };
        let mut bytes = [0; READ_BYTES];
        match read(pipe, &mut bytes) {
            Ok(0) => self.pipes[index] = None,
            Ok(count) => {
                let result = self
                    .writer
                    .as_mut()
                    .map_or(Ok(()), |writer| writer.write(KINDS[index], &bytes[..count], now));
                self.note(result);
                if let Some(forwarder) = &mut self.forwarder {
                    forwarder.take(KINDS[index], &bytes[..count], now, clock::monotonic());
                }
                return true;
            }
            Err(Errno::EINTR) => return true,
            Err(Errno::EAGAIN) => {}
            Err(_) => self.pipes[index] = None,
        }
        false
    }

    /// Reads what is left, closes the pipes and ends the log. Nobody writes any more.
    pub(crate) fn close(&mut self, now: SystemTime) {
        for index in 0..self.pipes.len() {
            while self.pump(index, now) {}
            self.pipes[index] = None;
        }
        if let Some(forwarder) = &mut self.forwarder {
            forwarder.end(now, clock::monotonic());
        }
        if let Some(writer) = self.writer.take() {
            let result = writer.close(now);
            self.note(result);
        }
    }

    /// What sends the lines elsewhere, if anything does.
    pub(crate) fn forwarder(&self) -> Option<&Forwarder> {
        self.forwarder.as_ref()
    }

    /// The same, to go on.
    pub(crate) fn forwarder_mut(&mut self) -> Option<&mut Forwarder> {
        self.forwarder.as_mut()
    }

    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && !self.failed
        {
            self.failed = true;
            note(&format!("write the log: {error}; output of the task is lost"));
        }
    }
}
