//! What is said to a program in a task: its input is held until the program takes it, and nothing
//! else waits for that.

use std::os::fd::OwnedFd;

use bytes::{Buf as _, BytesMut};
use cluster::exec::{ExecInput, ExecOutput, INPUT_BYTES_MAX, WindowSize};
use supervise::exec;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::unix::pipe::Sender;
use tokio::sync::mpsc;

/// What a terminal takes for the end of its input (VEOF, termios(3)).
const END_OF_FILE: &[u8] = b"\x04";

/// The input of a program.
pub(super) struct Input {
    /// `None` when the program takes no more.
    stream: Option<Sender>,
    is_terminal: bool,
    held: BytesMut,
    has_ended: bool,
    /// Bytes that the user does not yet know to be taken.
    taken: usize,
}

impl Input {
    pub(super) fn of(stream: Option<Sender>, is_terminal: bool) -> Self {
        Self { stream, is_terminal, held: BytesMut::new(), has_ended: false, taken: 0 }
    }

    /// Whether this is not more than the user may send.
    fn push(&mut self, bytes: &[u8]) -> bool {
        if self.stream.is_some() && !self.has_ended {
            self.held.extend_from_slice(bytes);
        } else {
            self.taken += bytes.len();
        }
        self.held.len() + self.taken <= INPUT_BYTES_MAX
    }

    /// It ends with what is held.
    fn end(&mut self) {
        if self.stream.is_some() && !self.has_ended && self.is_terminal {
            self.held.extend_from_slice(END_OF_FILE);
        }
        self.has_ended = true;
        self.close_if_done();
    }

    /// A pipe ends when it is closed; a terminal stays.
    fn close_if_done(&mut self) {
        if self.has_ended && self.held.is_empty() && !self.is_terminal {
            self.stream = None;
        }
    }

    /// Writes some of what is held; never returns while nothing is. May be dropped while it waits.
    async fn write(&mut self) -> usize {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.held.is_empty()) else {
            return std::future::pending().await;
        };
        match stream.write(&self.held).await {
            Ok(count) => count,
            Err(_closed) => {
                // The program has closed it, or has ended: the rest is for nobody.
                self.stream = None;
                self.held.len()
            }
        }
    }

    /// So many bytes have been written, or nobody wants them any more.
    fn advance(&mut self, count: usize) {
        self.held.advance(count);
        self.taken += count;
        self.close_if_done();
    }
}

/// Passes on what the user says. Returns when the user sends more input than it may, or is gone.
pub(super) async fn pass_on(
    mut from_user: mpsc::Receiver<ExecInput>,
    to_user: mpsc::Sender<ExecOutput>,
    mut input: Input,
    mut orders: OwnedWriteHalf,
    terminal: Option<OwnedFd>,
) {
    let mut is_open = true;
    loop {
        tokio::select! {
            said = from_user.recv(), if is_open => match said {
                Some(ExecInput::Bytes(bytes)) => {
                    if !input.push(&bytes) {
                        tracing::warn!("a program in a task was sent more input than it had taken");
                        return;
                    }
                }
                Some(ExecInput::End) => input.end(),
                Some(ExecInput::Resize(size)) => resize(terminal.as_ref(), size),
                Some(ExecInput::Signal(number)) => {
                    if let Ok(order) = exec::signal(number) {
                        // A process that is gone has ended, which is noticed elsewhere.
                        let _ = orders.write_all(&order).await;
                    }
                }
                None => {
                    is_open = false;
                    input.end();
                }
            },
            count = input.write() => input.advance(count),
            permit = to_user.reserve(), if input.taken > 0 => {
                let Ok(permit) = permit else { return };
                let taken = u32::try_from(std::mem::take(&mut input.taken));
                permit.send(ExecOutput::Taken(taken.unwrap_or(u32::MAX)));
            }
        }
    }
}

fn resize(terminal: Option<&OwnedFd>, size: WindowSize) {
    if let Some(terminal) = terminal
        && let Err(error) = exec::resize(terminal, size)
    {
        tracing::debug!(%error, "resize the terminal of a program in a task");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_may_send_what_was_taken_and_no_more() {
        let (sender, _reader) = tokio::net::unix::pipe::pipe().unwrap();
        let mut input = Input::of(Some(sender), false);
        assert!(input.push(&[0; INPUT_BYTES_MAX]));
        input.advance(5);
        assert!(!input.push(b"a"), "the user does not know of these five");
        let mut closed = Input::of(None, false);
        assert!(closed.push(&[0; INPUT_BYTES_MAX]));
        assert!(!closed.push(b"a"), "what is dropped counts as well");
    }
}
