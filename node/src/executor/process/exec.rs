//! A further program in a task: the process that watches it, and its streams.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;

use bytes::{Bytes, BytesMut};
use cluster::exec::{ExecEnd, ExecInput, ExecOutput, ExecSpec};
use supervise::client::TaskDir;
use supervise::exec::{self, Begun, Running};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::executor::Error;
use crate::executor::exec::{CHUNK_BYTES_MAX, Exec, QUEUE};
use crate::places::Place;
use input::{Input, pass_on};

mod input;

/// The most that is read of what a program has written before its end: the largest pipe that a
/// program without privileges can make of its own (`fs.pipe-max-size`, pipe(7)).
const LEFT_BYTES_MAX: usize = 1 << 20;
/// The exit code where nobody knows better.
const CODE_UNKNOWN: i32 = 128;

/// Starts a program in the task of `task_dir`. `place` is held until it has ended.
pub(super) async fn begin(
    exe: &Path,
    task_dir: &TaskDir,
    spec: ExecSpec,
    place: Place<String>,
) -> Result<Exec, Error> {
    let task = || task_dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let failed = |source| Error::Supervisor { task: task(), source };
    let (own, other) = StdUnixStream::pair().map_err(failed)?;
    let mut command = Command::from(exec::command(exe, task_dir));
    // When the call is given up the runtime reaps it; it ends with its socket.
    let child = command.stdin(OwnedFd::from(other)).stdout(Stdio::null()).spawn();
    let child = child.map_err(failed)?;
    // It has the other end of the socket.
    drop(command);
    let has_terminal = spec.terminal.is_some();
    let asked = [has_terminal || spec.stdin, has_terminal || spec.stdout, spec.stderr];
    // Its place is held until it has begun also when nobody waits for that any more.
    let begin = move || exec::begin(own, &spec).map(|begun| (begun, child, place));
    let begun = tokio::task::spawn_blocking(begin).await.map_err(io::Error::other).flatten();
    let (begun, child, place) = match begun {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            return Err(Error::Rejected { reason: error.to_string() });
        }
        begun => begun.map_err(failed)?,
    };
    let (input, from_user) = mpsc::channel(QUEUE);
    let (to_user, output) = mpsc::channel(QUEUE);
    match begun {
        Begun::Refused(reason) => return Err(Error::Refused { task: task(), reason }),
        Begun::Ended(end) => {
            // The channel is empty and has its receiver.
            let _ = to_user.send(ExecOutput::Ended(end)).await;
        }
        Begun::Running(running) => {
            let program = Program::of(running, has_terminal, asked).map_err(failed)?;
            tokio::spawn(async move {
                program.run(child, from_user, to_user).await;
                drop(place);
            });
        }
    }
    Ok(Exec { input, output })
}

/// A program that runs, as its streams.
struct Program {
    control: UnixStream,
    received: Vec<u8>,
    terminal: Option<OwnedFd>,
    input: Option<Sender>,
    output: Option<Receiver>,
    error: Option<Receiver>,
}

impl Program {
    fn of(running: Running, has_terminal: bool, asked: [bool; 3]) -> io::Result<Self> {
        let control = UnixStream::from_std(running.control)?;
        let received = running.received;
        let mut streams = running.streams.into_iter();
        // Unchecked: a terminal is no pipe, but is read and written like one.
        let (reader, writer) = (Receiver::from_owned_fd_unchecked, Sender::from_owned_fd_unchecked);
        if has_terminal {
            let terminal = streams.next().ok_or(io::ErrorKind::UnexpectedEof)?;
            let input = Some(writer(terminal.try_clone()?)?);
            let output = Some(reader(terminal.try_clone()?)?);
            return Ok(Self {
                control,
                received,
                terminal: Some(terminal),
                input,
                output,
                error: None,
            });
        }
        let [input, output, error] = asked.map(|asked| asked.then(|| streams.next()).flatten());
        let input = input.map(writer).transpose()?;
        let (output, error) = (output.map(reader).transpose()?, error.map(reader).transpose()?);
        Ok(Self { control, received, terminal: None, input, output, error })
    }

    /// Carries everything between the program and its user, until it has ended or its user is gone.
    async fn run(
        self,
        mut child: Child,
        from_user: mpsc::Receiver<ExecInput>,
        to_user: mpsc::Sender<ExecOutput>,
    ) {
        let Self { control, mut received, terminal, input, output, error } = self;
        let (mut control, orders) = control.into_split();
        let input = Input::of(input, terminal.is_some());
        let ended = CancellationToken::new();
        let outputs = async {
            tokio::join!(
                copy(output, ExecOutput::Stdout, &to_user, &ended),
                copy(error, ExecOutput::Stderr, &to_user, &ended),
            );
        };
        let end = async {
            let end = end(&mut control, &mut received).await;
            ended.cancel();
            end
        };
        let whole = async {
            let (end, ()) = tokio::join!(end, outputs);
            // Its user may have gone meanwhile.
            let _ = to_user.send(ExecOutput::Ended(end)).await;
        };
        tokio::select! {
            () = whole => {}
            () = to_user.closed() => {}
            () = pass_on(from_user, to_user.clone(), input, orders, terminal) => {}
        }
        // Both halves of the socket are closed: where the program still runs it is killed.
        drop(control);
        if let Err(error) = child.wait().await {
            tracing::warn!(%error, "wait for the end of a program in a task");
        }
    }
}

/// How it ended, once it has.
async fn end(control: &mut OwnedReadHalf, received: &mut Vec<u8>) -> ExecEnd {
    let lost = |why: String| ExecEnd::failed(CODE_UNKNOWN, format!("its end is not known: {why}"));
    loop {
        match exec::take_end(received) {
            Ok(Some(end)) => return end,
            Ok(None) => {}
            Err(error) => return lost(error.to_string()),
        }
        match control.read_buf(received).await {
            Ok(0) => return lost("the process that watched it has ended".to_owned()),
            Ok(_) => {}
            Err(error) => return lost(error.to_string()),
        }
    }
}

/// Reads a stream to its end, or until the program has ended and what it has written is read.
async fn copy(
    stream: Option<Receiver>,
    wrap: fn(Bytes) -> ExecOutput,
    to_user: &mpsc::Sender<ExecOutput>,
    ended: &CancellationToken,
) {
    let Some(mut stream) = stream else { return };
    let mut bytes = BytesMut::zeroed(CHUNK_BYTES_MAX);
    let mut left = LEFT_BYTES_MAX;
    loop {
        let read = tokio::select! {
            biased;
            read = stream.read(&mut bytes) => read,
            // A process that goes on in the background may have it open.
            () = ended.cancelled() => {
                nix::unistd::read(&stream, &mut bytes).map_err(io::Error::from)
            }
        };
        let count = match read {
            // A terminal that nobody has open any more says EIO.
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        if to_user.send(wrap(Bytes::copy_from_slice(&bytes[..count]))).await.is_err() {
            return;
        }
        if ended.is_cancelled() {
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    }
}
