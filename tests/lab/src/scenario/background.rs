//! Programs that run in the background of a scenario until it stops them: a ping, a connection that
//! counts.
//!
//! A signal does not reach a program on another machine, so a background program ends when its
//! standard input is closed.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::services::probe;
use crate::Lab;
use crate::cluster::Task;
use crate::command::Output;
use crate::wait::wait_for;

/// Longest run of a background program.
const RUN_SECONDS_MAX: &str = "600";
/// Longest wait for output of a background program.
const SAY_MAX: Duration = Duration::from_secs(20);
/// Pings that must be answered before the tested change, and again after it.
const ANSWERS: usize = 20;
/// What ping prints for a reply.
const ANSWER: &str = "bytes from";

/// A program that runs in the background of a scenario, on any machine.
#[derive(Debug)]
pub struct Background {
    child: Child,
    shown: String,
    said: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Background {
    /// Starts a program that ends when its standard input is closed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(line: &[String]) -> Result<Self> {
        let shown = line.join(" ");
        let mut child = Command::new("timeout")
            .args(["-k", "1", RUN_SECONDS_MAX])
            .args(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting `{shown}`"))?;
        let stdout = child.stdout.take().context("it has no standard output")?;
        let said = Arc::default();
        let listening = Arc::clone(&said);
        let reader = std::thread::spawn(move || listen(stdout, &listening));
        Ok(Self { child, shown, said, reader })
    }

    /// Its output so far, in whole lines.
    #[must_use]
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until its output contains a text this many times.
    ///
    /// # Errors
    /// After [`SAY_MAX`], with its last line.
    pub fn wait_said(&self, text: &str, times: usize) -> Result<()> {
        wait_for(SAY_MAX, &format!("{text:?} {times} times from `{}`", self.shown), || {
            let said = self.said();
            let end = said.lines().last().unwrap_or("nothing");
            let count = said.matches(text).count();
            ensure!(count >= times, "{count} times, and then {end}");
            Ok(())
        })
    }

    /// Closes its standard input and waits for its end.
    ///
    /// # Errors
    /// When it cannot be awaited; a program that fails is an [`Output`].
    pub fn finish(mut self) -> Result<Output> {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output();
        let output = output.with_context(|| format!("awaiting `{}`", self.shown))?;
        self.reader.join().map_err(|panic| anyhow!("reading `{}`: {panic:?}", self.shown))?;
        let stdout = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Output {
            command: self.shown,
            status: output.status.code().unwrap_or(137),
            stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

fn listen(from: impl Read, said: &Mutex<String>) {
    // A broken stream ends as a closed one: the program's status tells the rest.
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_str(&line);
        said.push('\n');
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
pub struct Counter(Background);

impl Counter {
    /// Begins to count; the first number has come back.
    ///
    /// # Errors
    /// When the probe cannot be started, or does not get its first number back.
    pub fn start(lab: &Lab, from: &Task, to: &str) -> Result<Self> {
        let program = Background::start(&lab.task_line(from, &[&probe(lab)?, "count", to])?)?;
        match program.wait_said("counting", 1) {
            Ok(()) => Ok(Self(program)),
            Err(error) => Err(error.context(program.finish()?)),
        }
    }

    /// Ends the count, and gives the longest silence in milliseconds.
    ///
    /// # Errors
    /// Unless every number came back, in order.
    pub fn finish(self) -> Result<u64> {
        let text = self.0.finish()?.ok().context("the connection broke")?;
        let number = |key: &str| {
            let word = text.split_whitespace().find_map(|word| word.strip_prefix(key));
            word.and_then(|word| word.parse::<u64>().ok()).context("reading the counter")
        };
        let (sent, received) = (number("sent=")?, number("received=")?);
        ensure!(sent > 0 && sent == received, "not all numbers came back: {text}");
        number("gap_ms=")
    }
}

/// A ping every 10 ms from one task to another's address.
#[derive(Debug)]
pub struct Ping(Background);

impl Ping {
    /// Begins to ping; the first [`ANSWERS`] answers are there.
    ///
    /// # Errors
    /// When it cannot be started, or is not answered.
    pub fn start(lab: &Lab, from: &Task, to: &str) -> Result<Self> {
        // It counts what it lost when it is interrupted.
        let words = until_input_ends("INT", &["ping", "-n", "-i", "0.01", to]);
        let ping = Self(Background::start(&lab.task_line(from, &words)?)?);
        ping.0.wait_said(ANSWER, ANSWERS)?;
        Ok(ping)
    }

    /// Ends it after [`ANSWERS`] more answers.
    ///
    /// # Errors
    /// When a packet was lost.
    pub fn finish(self) -> Result<()> {
        let earlier = self.0.said().matches(ANSWER).count();
        self.0.wait_said(ANSWER, earlier + ANSWERS)?;
        let text = self.0.finish()?.stdout;
        let line = text.lines().find(|line| line.contains("packets transmitted"));
        let line = line.context("ping tells nothing")?;
        let mut numbers = line.split(' ').filter_map(|word| word.parse::<u64>().ok());
        let (sent, received) = (numbers.next(), numbers.next());
        let (sent, received) = (sent.context("reading it")?, received.context("reading it")?);
        // The last one may be under way when the ping is ended.
        ensure!(sent.saturating_sub(received) <= 1, "{line}");
        Ok(())
    }
}

#[test]
fn a_background_program_ends_with_its_input() {
    let words = until_input_ends("TERM", &["tail", "-f", "/dev/null"]);
    let line: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let output = Background::start(&line).and_then(Background::finish).expect("sh runs");
    assert_eq!(output.status, 128 + 15, "{output}");
}

#[test]
fn what_a_background_program_says_is_seen_while_it_runs() {
    let words =
        until_input_ends("TERM", &["sh", "-c", "echo one; echo two; exec tail -f /dev/null"]);
    let line: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let program = Background::start(&line).expect("sh runs");
    program.wait_said("o", 2).expect("both lines are read");
    assert_eq!(program.finish().expect("it ends").stdout, "one\ntwo\n");
}
