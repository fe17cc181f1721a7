//! Calls from tasks and from the outside host.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};

use super::services::{hostname, probe};
use crate::lab::Lab;
use crate::lab::cluster::Task;

/// Enough calls that each of three backends is met: one is missed with (2/3)^60, about 3e-11.
pub const CALLS: usize = 60;

/// Limit for the calls of one [`ask_outside`].
const OUTSIDE_SECONDS: u32 = 60;

/// What the probe told: who answered, and the client that it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The host name of the task that answered.
    pub server: String,
    /// The address from which it was called, as it saw it.
    pub client: String,
    /// The port from which it was called.
    pub client_port: u16,
}

/// Reads the lines of `skein-lab-probe ask`.
///
/// # Errors
/// When one is of another form.
pub fn read_told(text: &str) -> Result<Vec<Told>> {
    let read = |line: &str| {
        let mut words = line.split(' ');
        let (server, client) = (words.next()?, words.next()?);
        let (address, port) = client.rsplit_once(':')?;
        let client_port = port.parse().ok()?;
        Some(Told { server: server.to_owned(), client: address.to_owned(), client_port })
    };
    text.lines().map(|line| read(line).with_context(|| format!("reading {line:?}"))).collect()
}

/// Asks a probe from a task, `times` times by new connections.
///
/// # Errors
/// When one call fails.
pub fn ask(lab: &Lab, from: &Task, protocol: &str, to: &str, times: usize) -> Result<Vec<Told>> {
    let words = [&probe(lab)?, "ask", protocol, to, &times.to_string()];
    read_told(&lab.in_task(from, &words)?.ok()?)
}

/// Asks a probe from the outside host: `rest` follows the address on the probe's command line, as
/// the number of calls.
///
/// # Errors
/// When one call fails.
pub fn ask_outside(lab: &Lab, protocol: &str, to: &str, rest: &[&str]) -> Result<Vec<Told>> {
    let probe = lab.client_program("skein-lab-probe")?;
    let words = [[&probe, "ask", protocol, to].as_slice(), rest].concat();
    read_told(&lab.client_run(OUTSIDE_SECONDS, &words)?.ok()?)
}

/// Fails unless the answers came from exactly these tasks.
///
/// # Errors
/// With both sets of host names.
pub fn ensure_all_answer(told: &[Told], tasks: &[Task]) -> Result<()> {
    let answered: BTreeSet<_> = told.iter().map(|told| told.server.clone()).collect();
    let expected: BTreeSet<_> = tasks.iter().map(hostname).collect();
    ensure!(answered == expected, "answers came from {answered:?}, backends are {expected:?}");
    Ok(())
}

#[test]
fn answers_of_the_probe_are_read() {
    let told = read_told("abc 10.0.1.3:4000 10.0.1.2:7000\n").expect("one line");
    let expected =
        Told { server: "abc".to_owned(), client: "10.0.1.3".to_owned(), client_port: 4000 };
    assert_eq!(told, [expected]);
    assert!(read_told("nonsense").is_err());
}
