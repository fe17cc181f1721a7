//! One JSON value a line over a unix socket, with descriptors next to a line where asked for.
//! Used by supervisors, by the holder and by processes that watch programs in tasks.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys;

/// The longest line either side accepts.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 10;
/// The most descriptors next to one line.
pub(crate) const DESCRIPTORS_MAX: usize = 3;
/// How long a server that has one client at a time waits for its request.
const REQUEST_READ_LIMIT: Duration = Duration::from_secs(1);
/// How long a client waits for the answer to one request.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// `value` as one line.
pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    if line.len() >= LINE_BYTES_MAX {
        let text = format!("message of {} bytes is above {LINE_BYTES_MAX}", line.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    line.push(b'\n');
    Ok(line)
}

/// Takes the first whole line out of `buffer`.
pub(crate) fn take_line(buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
        let rest = buffer.split_off(end + 1);
        let mut line = std::mem::replace(buffer, rest);
        line.pop();
        return Ok(Some(line));
    }
    if buffer.len() >= LINE_BYTES_MAX {
        let text = format!("line above {LINE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(None)
}

/// Sends a whole line with descriptors. The socket's buffer must be able to take it at once.
pub(crate) fn send_with_descriptors(
    stream: &UnixStream,
    line: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &control[..0] } else { &control[..] };
    let parts = [IoSlice::new(line)];
    let sent = sys::uninterrupted(REQUEST_LIMIT, || {
        sendmsg::<()>(stream.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)
    })?;
    if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Reads the one request of a connection that has only one, waiting at most
/// [`REQUEST_READ_LIMIT`].
pub(crate) fn read_request<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<T> {
    stream.set_read_timeout(Some(REQUEST_READ_LIMIT))?;
    let mut buffer = Vec::new();
    loop {
        if let Some(line) = take_line(&mut buffer)? {
            return Ok(serde_json::from_slice(&line)?);
        }
        let mut bytes = [0; 4096];
        let read = sys::uninterrupted(REQUEST_READ_LIMIT, || nix::unistd::read(stream, &mut bytes));
        match read? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => buffer.extend_from_slice(&bytes[..count]),
        }
    }
}

/// A client's connection: blocking, one request at a time.
pub(crate) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Connection {
    /// Connects to the socket at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::on(UnixStream::connect(path)?)
    }

    /// Uses a socket that is connected.
    pub(crate) fn on(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(REQUEST_LIMIT))?;
        stream.set_write_timeout(Some(REQUEST_LIMIT))?;
        Ok(Connection { stream, received: Vec::new() })
    }

    /// The socket, and what came after the last answer.
    pub(crate) fn into_parts(self) -> (UnixStream, Vec<u8>) {
        (self.stream, self.received)
    }

    /// Sends one request and waits for the one line that answers it.
    pub(crate) fn call<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        request: &Q,
    ) -> io::Result<(A, Vec<OwnedFd>)> {
        self.stream.write_all(&encode(request)?)?;
        let mut descriptors = Vec::new();
        loop {
            if let Some(line) = take_line(&mut self.received)? {
                return Ok((serde_json::from_slice(&line)?, descriptors));
            }
            let received = receive(&self.stream, &mut descriptors)?;
            if received.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&received);
        }
    }
}

fn receive(stream: &UnixStream, descriptors: &mut Vec<OwnedFd>) -> io::Result<Vec<u8>> {
    let (bytes, received) = sys::uninterrupted(REQUEST_LIMIT, || receive_once(stream))?;
    descriptors.extend(sys::adopt_descriptors(received));
    Ok(bytes)
}

fn receive_once(stream: &UnixStream) -> nix::Result<(Vec<u8>, Vec<RawFd>)> {
    let mut bytes = [0; 4096];
    let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    let mut received = Vec::new();
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = item {
            received.extend(numbers);
        }
    }
    let count = message.bytes;
    Ok((bytes[..count].to_vec(), received))
}
