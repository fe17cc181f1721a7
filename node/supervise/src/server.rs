//! The supervisor's socket: connections, their buffers and limits. It never blocks, and a client
//! that does not read loses its connection, not the task.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::poll::PollFlags;

use crate::protocol::{Message, Request};
use crate::wire;

/// Connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 32;
/// What may wait for one client.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// The socket and its clients.
pub(crate) struct Server {
    listener: UnixListener,
    clients: Vec<Client>,
    next: u64,
}

/// A connection, as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientId(u64);

struct Client {
    id: ClientId,
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    subscribed: bool,
}

impl Server {
    /// Listens at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Server { listener, clients: Vec::new(), next: 0 })
    }

    /// What to poll besides the clients.
    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// What to poll of the clients, and for what.
    pub(crate) fn clients(&self) -> impl Iterator<Item = (ClientId, BorrowedFd<'_>, PollFlags)> {
        self.clients.iter().map(|client| {
            let writing = !client.output.is_empty();
            let flags = if writing { PollFlags::POLLOUT } else { PollFlags::empty() };
            (client.id, client.stream.as_fd(), flags | PollFlags::POLLIN)
        })
    }

    /// Takes the connections that wait.
    pub(crate) fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() >= CONNECTIONS_MAX || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let id = ClientId(self.next);
            self.next += 1;
            let (input, output) = (Vec::new(), Vec::new());
            self.clients.push(Client { id, stream, input, output, subscribed: false });
        }
    }

    /// Moves bytes from and to a client and returns its requests. A client that is gone or breaks
    /// the protocol is dropped.
    pub(crate) fn exchange(&mut self, id: ClientId) -> Vec<Request> {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else {
            return Vec::new();
        };
        let mut requests = Vec::new();
        let open = client.receive(&mut requests).unwrap_or(false) && client.flush().is_ok();
        if !open {
            self.clients.retain(|client| client.id != id);
        }
        requests
    }

    /// Queues a message.
    pub(crate) fn send(&mut self, id: ClientId, message: &Message) {
        self.clients.retain_mut(|client| client.id != id || client.queue(message).is_ok());
    }

    /// Sends a message with descriptors, at once.
    pub(crate) fn send_with(
        &mut self,
        id: ClientId,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) {
        self.clients.retain(|client| {
            let send = || -> io::Result<()> {
                // The descriptors belong to the line's first byte, so nothing may be before it.
                if !client.output.is_empty() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                wire::send_with_descriptors(&client.stream, &wire::encode(message)?, descriptors)
            };
            client.id != id || send().is_ok()
        });
    }

    /// Makes a client a subscriber.
    pub(crate) fn subscribe(&mut self, id: ClientId) {
        for client in self.clients.iter_mut().filter(|client| client.id == id) {
            client.subscribed = true;
        }
    }

    /// Queues a message for every subscriber.
    pub(crate) fn publish(&mut self, message: &Message) {
        self.clients.retain_mut(|client| !client.subscribed || client.queue(message).is_ok());
    }
}

impl Client {
    fn receive(&mut self, requests: &mut Vec<Request>) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(false),
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            while let Some(line) = wire::take_line(&mut self.input)? {
                requests.push(serde_json::from_slice(&line)?);
            }
        }
    }

    fn queue(&mut self, message: &Message) -> io::Result<()> {
        self.output.extend(wire::encode(message)?);
        if self.output.len() > OUTPUT_BYTES_MAX {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
