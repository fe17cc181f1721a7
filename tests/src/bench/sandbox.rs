//! Connecting from inside a task's sandbox without starting a program: a thread enters its
//! network namespace and calls from there.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use super::{EFFECT_MAX, LOOK_PERIOD};
use lab::wait::{Pace, now};

/// How long one call may take before another one is made: lost packets are not to be repeated by
/// TCP's own timer of a second.
const CALL_MAX: Duration = Duration::from_millis(50);
/// The pause between two ARP requests of the callers' sandboxes. The kernel's second would make a
/// caller that was too early by a moment find out a second later.
const ARP_RETRY_MS: &str = "10";

/// Runs `work` on a thread of its own in a network namespace.
///
/// # Errors
/// When the namespace cannot be entered, and those of `work`.
pub fn in_namespace<T: Send>(
    namespace: &Path,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let entered = || {
        let file = File::open(namespace)
            .with_context(|| format!("opening namespace {}", namespace.display()))?;
        setns(&file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering namespace {}", namespace.display()))?;
        work()
    };
    std::thread::scope(|scope| match scope.spawn(entered).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Makes a sandbox's callers ask for unknown addresses often. `link` is one of its devices.
///
/// # Errors
/// When the setting cannot be written.
pub fn ask_often(namespace: &Path, link: &str) -> Result<()> {
    in_namespace(namespace, || {
        let path = format!("/proc/sys/net/ipv4/neigh/{link}/retrans_time_ms");
        fs::write(&path, ARP_RETRY_MS).with_context(|| format!("writing {path}"))
    })
}

/// Calls again and again from a namespace until a server has answered with a line, and tells when.
///
/// # Errors
/// When none does in time.
pub fn until_answered(namespace: &Path, to: SocketAddr) -> Result<Instant> {
    in_namespace(namespace, || {
        let begin = now();
        let mut pace = Pace::new(LOOK_PERIOD);
        loop {
            let error = match call(to) {
                Ok(()) => return Ok(now()),
                Err(error) => error,
            };
            if begin.elapsed() > EFFECT_MAX {
                bail!("{to} did not answer within {EFFECT_MAX:?}: {error:#}");
            }
            pace.wait();
        }
    })
}

fn call(to: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect_timeout(&to, CALL_MAX)?;
    stream.set_read_timeout(Some(CALL_MAX))?;
    let mut line = String::new();
    if BufReader::new(stream).read_line(&mut line)? == 0 {
        bail!("closed without a word");
    }
    Ok(())
}
