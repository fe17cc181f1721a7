//! Removes a lab if Ctrl-C interrupts its creation. The program starts itself again as a worker
//! process and waits for its end or a signal. The worker is in its own process group, so only the
//! parent receives the terminal's signal. The parent kills the worker first, so that nothing is
//! created while it removes the lab.

use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode};

use anyhow::{Context as _, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;

use crate::kinds::{folder_of, sweep};

/// The first argument of the worker process.
const WORKER: &str = "guarded";
/// What asks for an end.
const ENDS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The words of a command line, if this is the process that is to do the work.
#[must_use]
pub fn work<'a>(words: &'a [&'a str]) -> Option<&'a [&'a str]> {
    let words = words.strip_prefix(&[WORKER])?;
    // What the other one blocks was inherited, and would be by each daemon that is started here.
    waited_for().thread_unblock().ok()?;
    // Without the parent that would remove what it makes, it stops.
    set_pdeathsig(Signal::SIGKILL).ok()?;
    Some(words)
}

/// Runs this program with these words as a worker process; on a signal removes the lab of this
/// name, which must not have been there before. Gives the exit status: 128 + signal after one.
///
/// # Errors
/// When the program cannot be run, or something of the lab stays.
pub fn run(program: &str, lab: &str, words: &[&str]) -> Result<ExitCode> {
    // Before the child is there: its end must not be missed.
    let signals = waited_for();
    signals.thread_block().context("blocking signals")?;
    let own = std::env::current_exe().context("finding this program")?;
    let mut child = Command::new(own)
        .arg(WORKER)
        .args(words)
        .process_group(0)
        .spawn()
        .context("running this program as a worker")?;
    loop {
        let signal = signals.wait().context("awaiting a signal")?;
        if let Some(status) = child.try_wait().context("waiting for the worker")? {
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
            return Ok(ExitCode::from(u8::try_from(code.unwrap_or(1)).unwrap_or(1)));
        }
        if signal != Signal::SIGCHLD {
            end(&mut child)?;
            sweep(lab, &folder_of(lab))?;
            let told = format!("{program}: ended by {signal}; nothing of lab {lab} is left");
            // Nobody to tell is no reason for another status.
            let _ = writeln!(std::io::stderr(), "{told}");
            return Ok(ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(1)));
        }
    }
}

fn waited_for() -> SigSet {
    SigSet::from_iter(ENDS.into_iter().chain([Signal::SIGCHLD]))
}

fn end(child: &mut Child) -> Result<()> {
    let group = i32::try_from(child.id()).context("a process id")?;
    // One that ended meanwhile is what we want.
    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    child.wait().context("waiting for the worker")?;
    Ok(())
}

#[test]
fn only_the_one_who_works_has_the_word_before_all_others() {
    assert_eq!(work(&["up", WORKER]), None);
    assert_eq!(work(&[]), None);
}
