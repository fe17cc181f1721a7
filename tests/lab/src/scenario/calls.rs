//! Calls from tasks and from the outside host.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};

use super::services::{hostname, probe};
use crate::Lab;
use crate::cluster::{CONVERGE_MAX, Task};

/// Calls for each backend that is to be met: of n backends one is missed with (1 - 1/n)^20n, which
/// is less than e^-20, 2e-9.
pub const CALLS_EACH: usize = 20;
/// Enough calls that each of three backends is met.
pub const CALLS: usize = 3 * CALLS_EACH;
/// Of so many datagrams that fragment …
const FRAGMENTED: usize = 20;
/// … so many may be lost. The rest of a datagram follows its first fragment, so one whose fragments
/// were put out of order is lost (docs/datapath.md). On a machine with more work than cores a
/// sender that moves between them in the middle of a datagram does that now and then.
const FRAGMENTED_LOST_MAX: usize = 3;

/// Limit for the calls of one [`ask_outside`].
const OUTSIDE_SECONDS: u32 = 60;

/// What the probe told: who answered, and the client that it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReply {
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
pub fn read_replies(text: &str) -> Result<Vec<ProbeReply>> {
    let read = |line: &str| {
        let mut words = line.split(' ');
        let (server, client) = (words.next()?, words.next()?);
        let (address, port) = client.rsplit_once(':')?;
        let client_port = port.parse().ok()?;
        Some(ProbeReply { server: server.to_owned(), client: address.to_owned(), client_port })
    };
    text.lines().map(|line| read(line).with_context(|| format!("reading {line:?}"))).collect()
}

/// Asks a probe from a task, `times` times by new connections.
///
/// # Errors
/// When one call fails.
pub fn ask(
    lab: &Lab,
    from: &Task,
    protocol: &str,
    to: &str,
    times: usize,
) -> Result<Vec<ProbeReply>> {
    ask_with(lab, from, protocol, to, &[&times.to_string()])
}

/// As [`ask`]: `rest` follows the address on the probe's command line, as the number of calls.
///
/// # Errors
/// When one call fails.
pub fn ask_with(
    lab: &Lab,
    from: &Task,
    protocol: &str,
    to: &str,
    rest: &[&str],
) -> Result<Vec<ProbeReply>> {
    let probe = probe(lab)?;
    let words = [[&probe, "ask", protocol, to].as_slice(), rest].concat();
    read_replies(&lab.in_task(from, &words)?.ok()?)
}

/// As [`ask_with`], from the outside host.
///
/// # Errors
/// When one call fails.
pub fn ask_outside(lab: &Lab, protocol: &str, to: &str, rest: &[&str]) -> Result<Vec<ProbeReply>> {
    let probe = lab.client_program("skein-lab-probe")?;
    let words = [[&probe, "ask", protocol, to].as_slice(), rest].concat();
    read_replies(&lab.client_run(OUTSIDE_SECONDS, &words)?.ok()?)
}

/// Fails unless the answers came from exactly these tasks.
///
/// # Errors
/// With both sets of host names.
pub fn ensure_all_answer(told: &[ProbeReply], tasks: &[Task]) -> Result<()> {
    let answered: BTreeSet<_> = told.iter().map(|told| told.server.clone()).collect();
    let expected: BTreeSet<_> = tasks.iter().map(hostname).collect();
    ensure!(answered == expected, "answers came from {answered:?}, backends are {expected:?}");
    Ok(())
}

/// Waits until from each of `clients` tasks of `client` exactly the `replicas` tasks of `echo`
/// answer. Which tasks there are is asked at each look: those of a machine that was lost are listed
/// as running until their node tells otherwise, and are replaced then.
///
/// # Errors
/// When they do not in time.
pub fn wait_all_answer(lab: &Lab, clients: usize, replicas: usize) -> Result<()> {
    let running = |service: &str, count: usize| {
        let tasks = lab.running(0, service)?;
        ensure!(tasks.len() == count, "{} tasks of {service} run, not {count}", tasks.len());
        Ok(tasks)
    };
    lab.wait_for(CONVERGE_MAX * 2, "exactly the running backends to answer every client", || {
        let backends = running("echo", replicas)?;
        for client in running("client", clients)? {
            let told = ask(lab, &client, "tcp", "echo:7000", CALLS_EACH * replicas)?;
            ensure_all_answer(&told, &backends)?;
        }
        Ok(())
    })
}

/// Fails unless datagrams of 4000 bytes, each asked once, come through but for
/// [`FRAGMENTED_LOST_MAX`].
///
/// # Errors
/// With how many came through.
pub fn ensure_fragments(ask_one: impl Fn(&[&str]) -> Result<Vec<ProbeReply>>) -> Result<()> {
    let answered = (0..FRAGMENTED).filter(|_| ask_one(&["1", "0", "4000"]).is_ok()).count();
    let enough = answered + FRAGMENTED_LOST_MAX >= FRAGMENTED;
    ensure!(enough, "only {answered} of {FRAGMENTED} came through");
    Ok(())
}

#[test]
fn answers_of_the_probe_are_read() {
    let told = read_replies("abc 10.0.1.3:4000 10.0.1.2:7000\n").expect("one line");
    let expected =
        ProbeReply { server: "abc".to_owned(), client: "10.0.1.3".to_owned(), client_port: 4000 };
    assert_eq!(told, [expected]);
    assert!(read_replies("nonsense").is_err());
}
