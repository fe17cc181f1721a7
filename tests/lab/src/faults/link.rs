//! The program around the slow [`Line`]: a TAP on the underlay's bridge, a Unix socket on which
//! it is told which pairs are slow, and a timer.
//!
//! `skein-lab-link SOCKET TAP` is one thread in the underlay's namespace. Every question on the
//! socket is one line, the JSON list of pairs; the answer is one line of counts. It ends when it
//! is told that no pair is slow, after it has given back what it held.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::line::{Counts, Line, Pair};
use super::tap;
use crate::command::ip;
use crate::net::BRIDGE;
use crate::program;
use crate::wait::{now, wait_for};

/// The TAP's name on the underlay.
pub const TAP: &str = "slow0";
/// Longest time until a started link answers.
const START_MAX: Duration = Duration::from_secs(10);
/// Longest time that either side waits for a line of the other.
const LINE_MAX: Duration = Duration::from_secs(5);
/// Longest line: pairs of some hundred nodes.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Largest frame: what a TAP can have as its MTU and the Ethernet header.
const FRAME_BYTES_MAX: usize = 65_536;
/// Frames that are read before what is due is looked at again.
const BATCH_FRAMES_MAX: usize = 64;
/// What a line draws is the same in each run.
const SEED: u64 = 1;

fn socket_path(folder: &Path) -> PathBuf {
    folder.join("link.sock")
}

/// Tells the link of a lab which pairs are slow; starts it first where it does not run.
///
/// # Errors
/// When it does not start or answer.
pub(super) fn set(namespace: &str, folder: &Path, pairs: &[Pair]) -> Result<()> {
    let socket = socket_path(folder);
    if UnixStream::connect(&socket).is_err() {
        start(namespace, folder)?;
        // It is gone again with the link: learning from it would move every sender there, and
        // what the bridge floods is no business of a link that is handed its frames.
        let off =
            ["learning", "flood", "mcast_flood", "bcast_flood"].map(|name| format!("{name} off"));
        ip(&format!("-n {namespace} link set {TAP} addrgenmode none"))?;
        ip(&format!("-n {namespace} link set {TAP} master {BRIDGE}"))?;
        ip(&format!("-n {namespace} link set {TAP} type bridge_slave {}", off.join(" ")))?;
        ip(&format!("-n {namespace} link set {TAP} up"))?;
    }
    tell(&socket, pairs).map(drop)
}

/// Lets a link that runs give back what it holds and end.
///
/// # Errors
/// When it does not answer.
pub(super) fn end(folder: &Path) -> Result<()> {
    let socket = socket_path(folder);
    if UnixStream::connect(&socket).is_err() {
        return Ok(());
    }
    tell(&socket, &[])?;
    wait_for(LINE_MAX, "the link to end", || match UnixStream::connect(&socket) {
        Err(_) => Ok(()),
        Ok(_) => bail!("it still answers"),
    })
}

/// Starts it so that it outlives this process; it is found by its socket and ended by [`end`] or,
/// as its command line names the lab's folder, with the lab.
fn start(namespace: &str, folder: &Path) -> Result<()> {
    let (socket, log) = (socket_path(folder), folder.join("link.log"));
    let log = File::create(&log).with_context(|| format!("opening {}", log.display()))?;
    let mut child = Command::new("ip")
        .args(["netns", "exec", namespace])
        .arg(program("skein-lab-link")?)
        .args([socket.as_os_str(), TAP.as_ref()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("starting the link")?;
    wait_for(START_MAX, "the link to answer", || {
        if let Some(status) = child.try_wait().context("asking for the link's state")? {
            let said = fs::read_to_string(folder.join("link.log")).unwrap_or_default();
            return Ok(Err(format!("the link ended with {status}: {}", said.trim())));
        }
        UnixStream::connect(&socket).context("no socket")?;
        Ok(Ok(()))
    })?
    .map_err(anyhow::Error::msg)
}

fn tell(socket: &Path, pairs: &[Pair]) -> Result<Counts> {
    let mut stream = UnixStream::connect(socket).context("calling the link")?;
    stream.set_read_timeout(Some(LINE_MAX)).context("limiting the link's time")?;
    let mut line = serde_json::to_string(pairs).context("writing pairs as JSON")?;
    line.push('\n');
    stream.write_all(line.as_bytes()).context("telling the link")?;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream).take(LINE_BYTES_MAX);
    reader.read_line(&mut answer).context("awaiting the link")?;
    serde_json::from_str(&answer).with_context(|| format!("the link answers {answer:?}"))
}

/// The program: serves until it is told that no pair is slow.
///
/// # Errors
/// When the TAP or the socket cannot be made or fails.
pub fn serve(socket: &Path, tap_name: &str) -> Result<()> {
    let mut shell = Shell {
        tap: tap::open(tap_name)?,
        line: Line::new(SEED),
        begin: now(),
        buffer: vec![0; FRAME_BYTES_MAX],
    };
    // One of a killed link is in the way.
    if socket.exists() {
        fs::remove_file(socket).context("removing the socket of an ended link")?;
    }
    let listener =
        UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
    loop {
        let (frames, question) = shell.wait(&listener)?;
        if frames {
            shell.take_frames()?;
        }
        shell.give_back(None)?;
        // A caller that says nothing only looks whether somebody is there.
        if question && shell.answer(&listener) == Some(true) {
            fs::remove_file(socket).context("removing the socket")?;
            return Ok(());
        }
    }
}

struct Shell {
    tap: File,
    line: Line,
    begin: Instant,
    buffer: Vec<u8>,
}

impl Shell {
    /// Waits for frames, a question, or the time of the next frame that is held.
    fn wait(&self, listener: &UnixListener) -> Result<(bool, bool)> {
        let left = self.line.next_due().map(|due| due.saturating_sub(self.begin.elapsed()));
        // Upwards: a frame must not come out early, nor the loop spin until it is due.
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            let ms = left.as_nanos().div_ceil(1_000_000);
            PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
        });
        let mut waiting = [
            PollFd::new(self.tap.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waiting, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for frames"),
        }
        let [tap, listener] = waiting.map(|fd| fd.any().unwrap_or_default());
        Ok((tap, listener))
    }

    fn take_frames(&mut self) -> Result<()> {
        for _ in 0..BATCH_FRAMES_MAX {
            let length = match self.tap.read(&mut self.buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The TAP is not up yet.
                Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => return Ok(()),
                Err(error) => return Err(error).context("reading from the TAP"),
            };
            self.give_back(Some(length))?;
        }
        Ok(())
    }

    /// Puts a frame of so many bytes on the line, and writes those that are due.
    fn give_back(&mut self, length: Option<usize>) -> Result<()> {
        let frame = length.map(|length| &self.buffer[..length]);
        for frame in self.line.step(frame, self.begin.elapsed()) {
            match self.tap.write(&frame) {
                Ok(_) => {}
                // The TAP is down: so is the way.
                Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => {}
                Err(error) => return Err(error).context("writing to the TAP"),
            }
        }
        Ok(())
    }

    /// Answers one question, and tells whether it was the last one. None is what a caller gets
    /// that asks nothing or goes away: that is no reason to stop.
    fn answer(&mut self, listener: &UnixListener) -> Option<bool> {
        let (stream, _) = listener.accept().ok()?;
        stream.set_read_timeout(Some(LINE_MAX)).ok()?;
        let mut text = String::new();
        BufReader::new(&stream).take(LINE_BYTES_MAX).read_line(&mut text).ok()?;
        let pairs: Vec<Pair> = serde_json::from_str(&text).ok()?;
        self.line.set_pairs(&pairs);
        self.take_frames().ok()?;
        self.give_back(None).ok()?;
        let counts = serde_json::to_string(&self.line.counts()).ok()?;
        // Dropped frames are counted in the lab's link.log.
        let _ = writeln!(std::io::stderr(), "received {} pairs, {counts}", pairs.len());
        let is_last = pairs.is_empty();
        let answered = writeln!(&stream, "{counts}");
        answered.is_ok().then_some(is_last)
    }
}
