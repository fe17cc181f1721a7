//! The agent of a guest: runs programs and opens sockets there for the machine that runs the test.
//!
//! One TCP connection is one request: a line of JSON ([`Request`]), answered by a line of JSON
//! ([`Reply`]). A program's streams follow in frames, both ways; a socket's bytes follow as they
//! are. A program ends with its connection.

pub mod client;
pub mod frame;
pub mod serve;

use std::collections::BTreeMap;
use std::io::{BufRead, Read as _, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Where the agent of every guest listens.
pub const PORT: u16 = 1023;
/// Longest line of a request: the kernel's limit for a command line is about this.
const LINE_BYTES_MAX: u64 = 2 << 20;
/// After so many seconds of silence the other end is asked whether it is there …
const IDLE_SECONDS: u32 = 10;
/// … every so many seconds …
const ASK_SECONDS: u32 = 3;
/// … so many times, before it counts as lost.
const ASK_TIMES: u32 = 5;

/// What is asked of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Run a program as root.
    Run {
        /// Its command line.
        words: Vec<String>,
        /// Environment variables in addition to the usual ones.
        env: BTreeMap<String, String>,
    },
    /// Open a Unix socket.
    Connect { path: String },
}

/// Whether it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It was: streams follow.
    Done,
    /// It was not.
    Refused { why: String },
}

fn write_line(to: &mut impl Write, value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value).context("writing JSON")?;
    line.push(b'\n');
    to.write_all(&line).context("sending a line")
}

fn read_line<T: DeserializeOwned>(from: &mut impl BufRead) -> Result<T> {
    let mut line = Vec::new();
    from.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).context("awaiting a line")?;
    ensure!(!line.is_empty(), "the connection was closed without a line");
    ensure!(line.ends_with(b"\n"), "a line of {} bytes has no end", line.len());
    serde_json::from_slice(&line).context("reading a line of JSON")
}

/// A connection notices when the other machine is gone: it is switched off without a word.
fn watch(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true).context("setting TCP_NODELAY")?;
    setsockopt(stream, sockopt::KeepAlive, &true).context("setting SO_KEEPALIVE")?;
    setsockopt(stream, sockopt::TcpKeepIdle, &IDLE_SECONDS).context("setting TCP_KEEPIDLE")?;
    setsockopt(stream, sockopt::TcpKeepInterval, &ASK_SECONDS).context("setting TCP_KEEPINTVL")?;
    setsockopt(stream, sockopt::TcpKeepCount, &ASK_TIMES).context("setting TCP_KEEPCNT")?;
    // Questions are asked of silence only: what was sent and never acknowledged has its own limit,
    // else minutes (tcp(7), tcp_retries2).
    let limit_ms = (IDLE_SECONDS + ASK_SECONDS * ASK_TIMES) * 1_000;
    setsockopt(stream, sockopt::TcpUserTimeout, &limit_ms).context("setting TCP_USER_TIMEOUT")
}

/// Carries bytes between a TCP and a Unix connection until both have ended. `early` are bytes of
/// the former that were read already.
fn splice(tcp: &TcpStream, early: &[u8], unix: &UnixStream) -> Result<()> {
    let (mut from_unix, mut to_tcp) = (unix.try_clone()?, tcp.try_clone()?);
    let back = std::thread::spawn(move || {
        let copied = std::io::copy(&mut from_unix, &mut to_tcp);
        // An end that is gone already cannot be told.
        let _ = to_tcp.shutdown(Shutdown::Write);
        copied
    });
    let (mut from_tcp, mut to_unix) = (tcp.try_clone()?, unix.try_clone()?);
    let forth = to_unix.write_all(early);
    let forth = forth.and_then(|()| std::io::copy(&mut from_tcp, &mut to_unix));
    let _ = to_unix.shutdown(Shutdown::Write);
    if forth.is_err() {
        // The client is gone: nobody reads what the server may still say.
        let _ = unix.shutdown(Shutdown::Both);
    }
    match back.join() {
        Ok(copied) => copied.map(|_| ()).context("carrying bytes back"),
        Err(_) => bail!("carrying bytes back panicked"),
    }
}
