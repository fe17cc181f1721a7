//! A socket to a syslog server or the journal, none of whose calls waits.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use cluster::log_driver::Address;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, UnixAddr, connect, getsockopt,
    recv, send, socket, sockopt::SocketError,
};

use crate::spec::LogSink;

/// What a server says, which nobody reads, is taken off its socket so much at a time.
const SAID_BYTES: usize = 4 << 10;

/// A way to a server, or none.
pub(super) enum Link {
    Down { retry_at: std::time::Duration },
    Connecting(OwnedFd),
    Up(OwnedFd),
}

/// What became of a message.
pub(super) enum Sent {
    /// So many bytes were taken.
    Bytes(usize),
    /// No datagram is so large.
    TooLarge,
    /// Nothing can be taken now.
    Later,
}

/// Where a server is.
pub(super) struct Server {
    kind: SockType,
    place: Place,
}

enum Place {
    Socket(SocketAddr),
    Path(PathBuf),
}

impl Server {
    pub(super) fn of(sink: &LogSink) -> Self {
        let (kind, place) = match sink {
            LogSink::Journald { socket, .. } => (SockType::Datagram, Place::Path(socket.clone())),
            LogSink::Syslog(syslog) => match &syslog.address {
                Address::Udp(at) => (SockType::Datagram, Place::Socket(*at)),
                Address::Tcp(at) => (SockType::Stream, Place::Socket(*at)),
                Address::Unix(path) => (SockType::Stream, Place::Path(path.into())),
                Address::Unixgram(path) => (SockType::Datagram, Place::Path(path.into())),
            },
        };
        Server { kind, place }
    }

    /// Begins to connect.
    pub(super) fn connect(&self) -> nix::Result<Link> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let family = match &self.place {
            Place::Socket(SocketAddr::V4(_)) => AddressFamily::Inet,
            Place::Socket(SocketAddr::V6(_)) => AddressFamily::Inet6,
            Place::Path(_) => AddressFamily::Unix,
        };
        let socket = socket(family, self.kind, flags, None)?;
        let begun = match &self.place {
            Place::Socket(address) => connect(socket.as_raw_fd(), &SockaddrStorage::from(*address)),
            Place::Path(path) => connect(socket.as_raw_fd(), &UnixAddr::new(path)?),
        };
        match begun {
            Ok(()) => Ok(Link::Up(socket)),
            Err(Errno::EINPROGRESS) => Ok(Link::Connecting(socket)),
            Err(error) => Err(error),
        }
    }

    pub(super) fn send(&self, socket: BorrowedFd<'_>, message: &[u8]) -> nix::Result<Sent> {
        match send(socket.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL) {
            Ok(count) => Ok(Sent::Bytes(count)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Sent::Later),
            Err(Errno::EMSGSIZE) if self.kind == SockType::Datagram => Ok(Sent::TooLarge),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Socket(address) => write!(f, "log server {address}"),
            Place::Path(path) => write!(f, "log server {}", path.display()),
        }
    }
}

impl Link {
    /// Looks whether a connection has come to be, or has ended.
    pub(super) fn settle(&mut self) -> nix::Result<()> {
        match std::mem::replace(self, Link::Down { retry_at: std::time::Duration::ZERO }) {
            down @ Link::Down { .. } => *self = down,
            Link::Connecting(socket) => match getsockopt(&socket, SocketError)? {
                0 => *self = Link::Up(socket),
                error => return Err(Errno::from_raw(error)),
            },
            Link::Up(socket) => {
                listen(socket.as_fd())?;
                *self = Link::Up(socket);
            }
        }
        Ok(())
    }
}

/// A stream that has ended is an error, whatever was said before is not.
fn listen(socket: BorrowedFd<'_>) -> nix::Result<()> {
    let mut said = [0; SAID_BYTES];
    match recv(socket.as_raw_fd(), &mut said, MsgFlags::MSG_DONTWAIT) {
        Ok(0) => Err(Errno::ECONNRESET),
        Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}
