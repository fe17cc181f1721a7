//! `skein task exec`: a program in a task of any node, with the caller's streams and terminal.

use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use clap::Args;
use cluster::exec::{ExecEnd, ExecInput, ExecOutput, INPUT_BYTES_MAX, WindowSize};
use cluster::frame::Frame;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};

use super::http::{Client, escape};

/// What is read of standard input at once.
const READ_BYTES: usize = 32 << 10;
/// Signals that are passed on to the program.
const SIGNALS: [SignalKind; 6] = [
    SignalKind::hangup(),
    SignalKind::interrupt(),
    SignalKind::quit(),
    SignalKind::terminate(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
];

type Connection = TokioIo<Upgraded>;

/// Flags of `task exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Name or number, with :GROUP if it matters; the task's user unless given
    #[arg(short, long)]
    user: Option<String>,
    /// A variable, in addition to the task's
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// The directory to run in; the task's unless given
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Id, prefix of an id, or name; on a worker, of a task that runs there
    task: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// Runs it; the exit status is the program's.
pub async fn run(client: &Client, args: ExecArgs) -> anyhow::Result<u8> {
    if args.tty && args.interactive && !std::io::stdin().is_terminal() {
        bail!("standard input is no terminal: leave -t out, or use a terminal");
    }
    let WindowSize { rows, columns } = own_size();
    let body = json!({
        "Cmd": args.command,
        "Env": args.env,
        "User": args.user.unwrap_or_default(),
        "WorkingDir": args.workdir.unwrap_or_default(),
        "Tty": args.tty,
        "ConsoleSize": [rows, columns],
        "AttachStdin": args.interactive,
        "AttachStdout": true,
        "AttachStderr": true,
    });
    let path = format!("/skein/v1/tasks/{}/exec", escape(&args.task));
    let connection = client.upgrade(&path, &body, api::EXEC_PROTOCOL).await?;
    let raw = (args.tty && args.interactive).then(Raw::enter).transpose()?;
    let end = converse(connection, args.interactive, args.tty).await;
    drop(raw);
    let end = end?;
    if let Some(error) = end.error {
        writeln!(std::io::stderr(), "skein: {error}")?;
    }
    Ok(u8::try_from(end.code).unwrap_or(u8::MAX))
}

/// The size of the caller's terminal; zeroes where it has none.
fn own_size() -> WindowSize {
    supervise::exec::window_size(std::io::stdin()).unwrap_or_default()
}

/// The caller's terminal, which passes every key on while this lives.
struct Raw(Termios);

impl Raw {
    fn enter() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin()).context("read the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw).context("set up the terminal")?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Without a terminal nothing is left to restore.
        let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, &self.0);
    }
}

async fn converse(connection: Connection, input: bool, tty: bool) -> anyhow::Result<ExecEnd> {
    let (mut reader, writer) = tokio::io::split(connection);
    let (say, said) = mpsc::channel(1);
    // How much more input may be sent.
    let room = Semaphore::new(INPUT_BYTES_MAX);
    tokio::select! {
        end = listen(&mut reader, &room) => end,
        failed = write(writer, said) => failed,
        failed = signals(say.clone(), tty) => failed,
        failed = read_input(say, &room), if input => failed,
    }
}

/// Writes what the program says where it belongs, up to its end.
async fn listen(reader: &mut ReadHalf<Connection>, room: &Semaphore) -> anyhow::Result<ExecEnd> {
    let mut received = BytesMut::new();
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        while let Some(frame) = Frame::take(&mut received)? {
            match ExecOutput::try_from(frame)? {
                ExecOutput::Stdout(bytes) => print(&mut stdout, &bytes).await?,
                ExecOutput::Stderr(bytes) => print(&mut stderr, &bytes).await?,
                ExecOutput::Taken(bytes) => room.add_permits(bytes.try_into()?),
                ExecOutput::Ended(end) => return Ok(end),
            }
        }
        if reader.read_buf(&mut received).await.context("read from the daemon")? == 0 {
            bail!("the daemon has hung up, and the program has ended");
        }
    }
}

async fn print(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> anyhow::Result<()> {
    to.write_all(bytes).await.context("write the program's output")?;
    to.flush().await.context("write the program's output")
}

/// Returns when the daemon cannot be written to: then there is nothing more to read.
async fn write(
    mut writer: WriteHalf<Connection>,
    mut said: mpsc::Receiver<ExecInput>,
) -> anyhow::Result<ExecEnd> {
    while let Some(input) = said.recv().await {
        if writer.write_all(&Frame::from(input).encode()?).await.is_err() {
            break;
        }
    }
    // The end is read, or the loss of the daemon.
    std::future::pending().await
}

/// Never returns, unless it cannot be read: the program has not ended with its input.
async fn read_input(say: mpsc::Sender<ExecInput>, room: &Semaphore) -> anyhow::Result<ExecEnd> {
    let mut stdin = tokio::io::stdin();
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let count = stdin.read(&mut bytes).await.context("read standard input")?;
        let part = Bytes::copy_from_slice(&bytes[..count]);
        room.acquire_many(part.len().try_into()?).await?.forget();
        let said = if part.is_empty() { ExecInput::End } else { ExecInput::Bytes(part) };
        if say.send(said).await.is_err() || count == 0 {
            return std::future::pending().await;
        }
    }
}

async fn signals(say: mpsc::Sender<ExecInput>, tty: bool) -> anyhow::Result<ExecEnd> {
    let mut each = Vec::new();
    for kind in SIGNALS {
        each.push((kind, signal(kind)?));
    }
    let mut resized = signal(SignalKind::window_change())?;
    loop {
        let caught = async {
            let waiting = each.iter_mut().map(|(kind, signal)| {
                Box::pin(async move {
                    signal.recv().await;
                    *kind
                })
            });
            futures_util::future::select_all(waiting).await.0
        };
        let said = tokio::select! {
            kind = caught => u8::try_from(kind.as_raw_value()).ok().map(ExecInput::Signal),
            _ = resized.recv() => tty.then(|| ExecInput::Resize(own_size())),
        };
        if let Some(said) = said {
            // The writer waits for the end as well.
            let _ = say.send(said).await;
        }
    }
}
