//! Calls from tasks, and programs that run beside a scenario until it ends them.
//!
//! A program on another machine is not reached by a signal of this one: what runs beside a
//! scenario ends when its standard input does.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::services::{hostname, probe};
use crate::lab::Lab;
use crate::lab::cluster::Task;
use crate::lab::command::Output;

/// Enough calls that each of three backends is met: one is missed with (2/3)^60, about 3e-11.
pub const CALLS: usize = 60;

/// Limit for the calls of one [`ask_outside`].
const OUTSIDE_SECONDS: u32 = 60;
/// Longest time that a program runs beside a scenario.
const BESIDE_SECONDS: &str = "600";

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

/// A program that runs beside the scenario, wherever its command line leads.
#[derive(Debug)]
pub struct Beside {
    child: Child,
    shown: String,
}

impl Beside {
    /// Starts a program that ends by itself when its standard input does.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(line: &[String]) -> Result<Self> {
        let shown = line.join(" ");
        let child = Command::new("timeout")
            .args(["-k", "1", BESIDE_SECONDS])
            .args(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting `{shown}`"))?;
        Ok(Self { child, shown })
    }

    /// Ends its standard input and awaits its end.
    ///
    /// # Errors
    /// When it cannot be awaited; a program that fails is an [`Output`].
    pub fn finish(mut self) -> Result<Output> {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output();
        let output = output.with_context(|| format!("awaiting `{}`", self.shown))?;
        Ok(Output {
            command: self.shown,
            status: output.status.code().unwrap_or(137),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// The words that run a program until their standard input ends, and then send it a signal
/// (`TERM`, `INT` …).
#[must_use]
pub fn until_input_ends<'a>(signal: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    let script = "\"$@\" & read -r _; kill -s \"$0\" $!; wait $!";
    [["sh", "-c", script, signal].as_slice(), words].concat()
}

/// One TCP connection from a task that counts, every 5 ms, until it is asked for the result.
#[derive(Debug)]
pub struct Counter(Beside);

impl Counter {
    /// Begins to count.
    ///
    /// # Errors
    /// When the probe cannot be started.
    pub fn start(lab: &Lab, from: &Task, to: &str) -> Result<Self> {
        Ok(Self(Beside::start(&lab.task_line(from, &[&probe(lab)?, "count", to])?)?))
    }

    /// Ends the count, and gives the longest silence in milliseconds.
    ///
    /// # Errors
    /// Unless every number came back, in order.
    pub fn finish(self) -> Result<u64> {
        let text = self.0.finish()?.ok().context("the connection broke")?;
        let number = |key: &str| {
            let word = text.split(' ').find_map(|word| word.strip_prefix(key));
            word.and_then(|word| word.parse::<u64>().ok()).context("reading the counter")
        };
        let (sent, received) = (number("sent=")?, number("received=")?);
        ensure!(sent > 0 && sent == received, "not all numbers came back: {text}");
        number("gap_ms=")
    }
}

#[test]
fn answers_of_the_probe_are_read() {
    let told = read_told("abc 10.0.1.3:4000 10.0.1.2:7000\n").expect("one line");
    let expected =
        Told { server: "abc".to_owned(), client: "10.0.1.3".to_owned(), client_port: 4000 };
    assert_eq!(told, [expected]);
    assert!(read_told("nonsense").is_err());
}

#[test]
fn a_program_beside_ends_with_its_input() {
    let words = until_input_ends("TERM", &["tail", "-f", "/dev/null"]);
    let line: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let output = Beside::start(&line).and_then(Beside::finish).expect("sh runs");
    assert_eq!(output.status, 128 + 15, "{output}");
}
