//! Sends a task's lines to a syslog server or the journal, without ever waiting for it: what cannot
//! be sent waits in a bounded queue, and what finds that full is dropped and counted.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use time::OffsetDateTime;

use self::link::{Link, Sent, Server};
use self::queue::Queue;
use self::wire::Origin;
use crate::clock;
use crate::logs::{LogLine, LogStream, Splitter};
use crate::notes::note;
use crate::spec::LogSink;
use crate::sys;

mod link;
mod queue;
mod wire;

/// Messages that wait for a server: a few thousand lines.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Between two attempts to reach a server: at first, and at most.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A supervisor that ends sends what is left for so long.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// A server that comes and goes is reported so often.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);

/// The way of one task's lines to its server.
pub(crate) struct Forwarder {
    sink: LogSink,
    server: Server,
    origin: Origin,
    splitter: Splitter,
    queue: Queue,
    link: Link,
    /// Before the next attempt but one.
    pause: Duration,
    /// Since when the link is up, or when it was last tried.
    since: Duration,
    /// An outage that was reported, and is not over.
    told: bool,
    quiet_until: Duration,
}

impl Forwarder {
    pub(crate) fn new(sink: LogSink) -> Self {
        let hostname = nix::unistd::gethostname().unwrap_or_default();
        Forwarder {
            server: Server::of(&sink),
            sink,
            origin: Origin {
                hostname: hostname.to_string_lossy().into_owned(),
                pid: std::process::id(),
            },
            splitter: Splitter::default(),
            queue: Queue::new(QUEUE_BYTES_MAX),
            link: Link::Down { retry_at: Duration::ZERO },
            pause: RETRY_MIN,
            since: Duration::ZERO,
            told: false,
            quiet_until: Duration::ZERO,
        }
    }

    /// Takes what the task has written to `stream`, read at `time`.
    pub(crate) fn take(
        &mut self,
        stream: LogStream,
        bytes: &[u8],
        time: SystemTime,
        now: Duration,
    ) {
        let lines = self.splitter.split(stream, bytes, time);
        self.send(&lines, now);
    }

    /// Takes lines that have no newline: the task has ended.
    pub(crate) fn end(&mut self, time: SystemTime, now: Duration) {
        let lines = self.splitter.rest(time);
        self.send(&lines, now);
    }

    /// What to poll; nothing where a server is away.
    pub(crate) fn watched(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.link {
            Link::Down { .. } => None,
            Link::Connecting(socket) => Some((socket.as_fd(), PollFlags::POLLOUT)),
            Link::Up(socket) if self.queue.is_empty() => Some((socket.as_fd(), PollFlags::POLLIN)),
            Link::Up(socket) => Some((socket.as_fd(), PollFlags::POLLIN | PollFlags::POLLOUT)),
        }
    }

    /// When the server is to be tried again.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match self.link {
            Link::Down { retry_at } if !self.queue.is_empty() => Some(retry_at),
            Link::Down { .. } | Link::Connecting(_) | Link::Up(_) => None,
        }
    }

    /// Goes on where what is watched is ready, or the deadline has come.
    pub(crate) fn go_on(&mut self, now: Duration) {
        match self.link.settle() {
            Ok(()) => self.pump(now),
            Err(error) => self.lose(sys::words(error), now),
        }
    }

    /// Sends what is left as far as the server takes it in time.
    pub(crate) fn flush(&mut self) {
        let end = clock::monotonic() + FLUSH_MAX;
        while !self.queue.is_empty() {
            let left = end.saturating_sub(clock::monotonic());
            let Some((socket, flags)) = self.watched().filter(|_| !left.is_zero()) else { break };
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let mut polled = [PollFd::new(socket, flags)];
            let ready = sys::uninterrupted(left, || poll(&mut polled, timeout));
            if !ready.is_ok_and(|ready| ready > 0) {
                break;
            }
            self.go_on(clock::monotonic());
        }
        let unsent = self.queue.len() + self.queue.take_dropped();
        if unsent > 0 {
            note(&format!("{}: {unsent} lines were not sent", self.server));
        }
    }

    fn send(&mut self, lines: &[LogLine], now: Duration) {
        for line in lines {
            let message = self.message(line);
            if !message.is_empty() && !self.queue.push(message) {
                self.tell("takes lines too slowly", now);
            }
        }
        // Looks first whether the connection has ended: what is sent into it then is lost.
        self.go_on(now);
    }

    /// Empty where there is nothing to say.
    fn message(&self, line: &LogLine) -> Vec<u8> {
        let time = OffsetDateTime::from(line.time);
        let time = time.to_offset(sys::utc_offset(time.unix_timestamp()));
        match &self.sink {
            // As Docker's: a server would take an empty message for a fault.
            LogSink::Syslog(_) if line.text.is_empty() => Vec::new(),
            LogSink::Syslog(syslog) => wire::syslog(syslog, &self.origin, time, line),
            LogSink::Journald { fields, .. } => wire::journal(fields, time, line),
        }
    }

    /// Sends what the server takes now, and reaches for one that is away if it is time.
    fn pump(&mut self, now: Duration) {
        if self.queue.is_empty() {
            return;
        }
        if let Link::Down { retry_at } = self.link {
            if now < retry_at {
                return;
            }
            self.since = now;
            match self.server.connect() {
                Ok(link) => self.link = link,
                Err(error) => return self.lose(sys::words(error), now),
            }
        }
        while let (Link::Up(socket), Some(message)) = (&self.link, self.queue.first()) {
            match self.server.send(socket.as_fd(), message) {
                Ok(Sent::Bytes(count)) => self.queue.advance(count),
                Ok(Sent::TooLarge) => self.queue.drop_first(),
                Ok(Sent::Later) => return,
                Err(error) => return self.lose(sys::words(error), now),
            }
        }
        if self.queue.is_empty() && std::mem::take(&mut self.told) {
            let dropped = self.queue.take_dropped();
            note(&format!("{} takes lines again; {dropped} were dropped", self.server));
        }
    }

    fn lose(&mut self, why: String, now: Duration) {
        // One that stayed for long is tried again soon.
        let stayed = matches!(self.link, Link::Up(_)) && now - self.since > RETRY_MAX;
        self.pause = if stayed { RETRY_MIN } else { self.pause };
        self.link = Link::Down { retry_at: now + self.pause };
        self.pause = (self.pause * 2).min(RETRY_MAX);
        self.queue.restart();
        self.tell(&format!("does not take lines: {why}"), now);
    }

    fn tell(&mut self, what: &str, now: Duration) {
        if !self.told && now >= self.quiet_until {
            self.told = true;
            self.quiet_until = now + NOTE_INTERVAL;
            let limit = QUEUE_BYTES_MAX >> 20;
            note(&format!("{} {what}; {limit} MiB of them wait, more are dropped", self.server));
        }
    }
}
