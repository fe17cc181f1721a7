//! Sends requests at a fixed rate, independent of their results, from few source ports that are
//! reused.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::AsRawFd as _;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::wait::{now, pause};

/// After which a request has timed out.
const ANSWER_SECONDS: i64 = 2;
/// Source ports, the one that has rested longest next: at 600 requests/s each is used again after
/// two seconds.
const PORTS: std::ops::Range<u16> = 20_000..21_200;
/// Failures that are told.
const TOLD_MAX: usize = 1_000;

/// What became of the requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// How many there were.
    pub sent: usize,
    /// Those that were not answered, up to [`TOLD_MAX`].
    pub failures: Vec<Failure>,
}

/// A request without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When it began, from the beginning of all.
    pub at: Duration,
    /// Its source port.
    pub port: u16,
    /// What went wrong: `refused`, `reset`, `timeout`, or an error's text in one word.
    pub how: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed {} {} {}", self.at.as_millis(), self.port, self.how)
    }
}

impl FromStr for Outcome {
    type Err = anyhow::Error;

    /// Reads what [`run`] printed.
    fn from_str(text: &str) -> Result<Self> {
        let mut outcome = Self::default();
        let mut whole = false;
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["sent", count] => {
                    outcome.sent = count.parse()?;
                    whole = true;
                }
                ["failed", at, port, how] => outcome.failures.push(Failure {
                    at: Duration::from_millis(at.parse()?),
                    port: port.parse()?,
                    how: (*how).to_owned(),
                }),
                ["loading"] => {}
                _ => bail!("{line:?} is not understood"),
            }
        }
        if whole { Ok(outcome) } else { Err(anyhow!("no count in {text:?}")) }
    }
}

/// Asks `to` so often a second until standard input ends. Prints `loading` when the first request
/// was answered, and at the end the failures and how many requests there were.
///
/// # Errors
/// When `to` is no address, or no source port is left: all requests hang.
pub fn run(to: &str, per_second: u32) -> Result<()> {
    let mut addresses = to.to_socket_addrs().with_context(|| format!("resolving {to}"))?;
    let address = addresses.next().with_context(|| format!("{to} has no address"))?;
    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        seen.store(true, Ordering::Relaxed);
    });
    let free: Arc<Mutex<VecDeque<u16>>> = Arc::new(Mutex::new(PORTS.collect()));
    let failures: Arc<Mutex<Vec<Failure>>> = Arc::default();
    let answered = Arc::new(AtomicBool::new(false));
    let (begin, mut sent, mut threads) = (now(), 0_u32, VecDeque::new());
    while !ended.load(Ordering::Relaxed) {
        // By the clock and not by the last beat: what was missed is made up for.
        let due = begin + Duration::from_secs(sent.into()) / per_second;
        pause(due.saturating_duration_since(now()));
        let port = lock(&free).pop_front().context("all source ports are in use")?;
        let at = begin.elapsed();
        let (free, failures, answered) = (free.clone(), failures.clone(), answered.clone());
        threads.push_back(std::thread::spawn(move || {
            match ask(address, port) {
                Ok(()) if !answered.swap(true, Ordering::Relaxed) => {
                    let _ = writeln!(std::io::stdout(), "loading");
                }
                Ok(()) => {}
                Err(error) => lock(&failures).push(Failure { at, port, how: how(&error) }),
            }
            lock(&free).push_back(port);
        }));
        while threads.front().is_some_and(std::thread::JoinHandle::is_finished) {
            threads.pop_front();
        }
        sent += 1;
    }
    for thread in threads {
        thread.join().map_err(|panic| anyhow!("a request: {panic:?}"))?;
    }
    let mut out = std::io::stdout();
    for failure in lock(&failures).iter().take(TOLD_MAX) {
        writeln!(out, "{failure}")?;
    }
    writeln!(out, "sent {sent}")?;
    Ok(())
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection on which the server's line is awaited, and which then ends by a reset: its port is
/// free at once, where a connection that ends by FIN keeps it for a minute (TIME_WAIT).
fn ask(to: SocketAddr, port: u16) -> Result<()> {
    let SocketAddr::V4(to) = to else { bail!("{to} is not an IPv4 address") };
    let made = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&made, sockopt::ReuseAddr, &true)?;
    // Bounds a blocking connect too (socket(7), SO_SNDTIMEO).
    setsockopt(&made, sockopt::SendTimeout, &TimeVal::seconds(ANSWER_SECONDS))?;
    setsockopt(&made, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS))?;
    setsockopt(&made, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    bind(made.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port))?;
    connect(made.as_raw_fd(), &SockaddrIn::from(to)).map_err(std::io::Error::from)?;
    let stream = TcpStream::from(made);
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() { bail!("closed without an answer") } else { Ok(()) }
}

fn how(error: &anyhow::Error) -> String {
    let Some(error) = error.downcast_ref::<std::io::Error>() else {
        return format!("{error:#}").replace(' ', "_");
    };
    // EINPROGRESS is what a connect with a limit ends with (connect(2)).
    let unfinished = error.raw_os_error() == Some(nix::libc::EINPROGRESS);
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused".to_owned(),
        ErrorKind::ConnectionReset => "reset".to_owned(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timeout".to_owned(),
        _ if unfinished => "timeout".to_owned(),
        _ => error.to_string().replace(' ', "_"),
    }
}

#[test]
fn what_is_printed_is_read() {
    let text = "loading\nfailed 1200 20007 refused\nsent 600\n";
    let outcome: Outcome = text.parse().expect("an outcome");
    assert_eq!(outcome.sent, 600);
    assert_eq!(outcome.failures[0].to_string(), "failed 1200 20007 refused");
    assert!("failed 1200 20007 refused\n".parse::<Outcome>().is_err(), "it did not end");
}
