//! The other end of an agent: what runs on the machine of the test.

use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use super::frame::{FRAME_BYTES_MAX, Frame};
use super::{Reply, Request, read_line, splice, watch, write_line};

/// How long an agent may take to accept a connection. Under emulation on a busy machine a guest
/// may be silent for a while.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Where `ip netns` keeps its namespaces.
const NETNS_FOLDER: &str = "/run/netns";

/// Connects from within a network namespace, by its name; from the caller's if there is none.
///
/// # Errors
/// When there is no such namespace, or nobody answers.
pub fn connect(namespace: Option<&str>, to: SocketAddr) -> Result<TcpStream> {
    let Some(name) = namespace else { return open(to) };
    let path = Path::new(NETNS_FOLDER).join(name);
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    // A thread of its own: what it enters ends with it, and the socket stays there.
    let opener = std::thread::spawn(move || {
        setns(&file, CloneFlags::CLONE_NEWNET).context("entering the namespace")?;
        open(to)
    });
    match opener.join() {
        Ok(stream) => stream,
        Err(_) => bail!("connecting to {to} panicked"),
    }
}

fn open(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, CONNECT_MAX);
    let stream = stream.with_context(|| format!("connecting to the agent at {to}"))?;
    watch(&stream)?;
    Ok(stream)
}

fn ask(stream: &TcpStream, request: &Request) -> Result<BufReader<TcpStream>> {
    write_line(&mut &*stream, request)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    match read_line(&mut reader)? {
        Reply::Done => Ok(reader),
        Reply::Refused { why } => bail!("the guest refused: {why}"),
    }
}

/// Runs a program of a guest with this process's own streams; gives its exit status.
///
/// # Errors
/// When it cannot be started, or the guest is lost.
pub fn call(stream: &TcpStream, request: &Request) -> Result<i32> {
    let mut reader = ask(stream, request)?;
    let mut to = stream.try_clone()?;
    // Not joined: it may wait for input that nobody gives when the program has ended.
    std::thread::spawn(move || send_input(&mut to));
    loop {
        match Frame::read(&mut reader)? {
            Some(Frame::Output(bytes)) => {
                let mut out = std::io::stdout();
                out.write_all(&bytes).and_then(|()| out.flush()).context("writing output")?;
            }
            Some(Frame::Error(bytes)) => {
                std::io::stderr().write_all(&bytes).context("writing errors")?;
            }
            Some(Frame::Ended(status)) => return Ok(status),
            Some(other) => bail!("{other:?} came from an agent"),
            None => bail!("the guest was lost before the program ended"),
        }
    }
}

fn send_input(to: &mut TcpStream) -> Result<()> {
    let mut input = std::io::stdin();
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    loop {
        let length = input.read(&mut buffer).context("reading input")?;
        if length == 0 {
            return Frame::InputEnd.write(to);
        }
        Frame::Input(buffer[..length].to_vec()).write(to)?;
    }
}

/// Serves a Unix socket of this machine by one of a guest, until this process is ended.
///
/// # Errors
/// When the socket cannot be made. A guest that is down refuses only one connection.
pub fn forward(
    namespace: Option<&str>,
    to: SocketAddr,
    socket: &Path,
    guest_path: &str,
) -> Result<()> {
    if socket.exists() {
        std::fs::remove_file(socket).with_context(|| format!("removing {}", socket.display()))?;
    }
    let listener = UnixListener::bind(socket);
    let listener = listener.with_context(|| format!("listening on {}", socket.display()))?;
    let namespace = namespace.map(str::to_owned);
    for unix in listener.incoming() {
        let unix = unix.context("awaiting a connection")?;
        let (namespace, path) = (namespace.clone(), guest_path.to_owned());
        std::thread::spawn(move || {
            if let Err(error) = forward_one(namespace.as_deref(), to, &unix, path) {
                let _ = writeln!(std::io::stderr(), "skein-lab-agent: {error:#}");
            }
        });
    }
    Ok(())
}

fn forward_one(
    namespace: Option<&str>,
    to: SocketAddr,
    unix: &UnixStream,
    path: String,
) -> Result<()> {
    let stream = connect(namespace, to)?;
    let reader = ask(&stream, &Request::Connect { path })?;
    // The server may have spoken already; it is the TCP side's early bytes.
    splice(&stream, reader.buffer(), unix)
}
