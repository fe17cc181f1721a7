//! Runs a program to its end, with a time limit, and checks its result.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// What a program wrote and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit status; 124 when the time limit ended it, 128 + signal when a signal did.
    pub status: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// The standard output of a program that succeeded, without the white space around it.
    ///
    /// # Errors
    /// When the exit status is not 0: the error carries both outputs.
    pub fn ok(&self) -> Result<String> {
        if self.status != 0 {
            bail!("{self}");
        }
        Ok(self.stdout.trim().to_owned())
    }

    /// The complaint of a program that refused with exit status 1.
    ///
    /// # Errors
    /// When it succeeded or ended in another way.
    pub fn refused(&self) -> Result<String> {
        if self.status != 1 {
            bail!("a refusal was expected: {self}");
        }
        Ok(self.stderr.trim().to_owned())
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (stdout, stderr) = (self.stdout.trim(), self.stderr.trim());
        write!(f, "`{}` ended with {}: {stdout} {stderr}", self.command, self.status)
    }
}

/// Runs a program with its arguments, for at most `seconds`.
///
/// # Errors
/// When it cannot be started; a program that fails is an [`Output`].
pub fn run<S: AsRef<OsStr>>(seconds: u32, words: &[S]) -> Result<Output> {
    run_with_input(seconds, words, "")
}

/// As [`run`], with `input` as its standard input.
///
/// # Errors
/// When it cannot be started or does not take its input.
pub fn run_with_input<S: AsRef<OsStr>>(seconds: u32, words: &[S], input: &str) -> Result<Output> {
    let shown: Vec<_> = words.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    let shown = shown.join(" ");
    let mut child = Command::new("timeout")
        .args(["-k", "1", &seconds.to_string()])
        .args(words)
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("running `{shown}`"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ended early has not read its input: its exit status tells why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("awaiting `{shown}`"))?;
    Ok(Output {
        command: shown,
        status: output.status.code().unwrap_or(137),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs `ip` with the words of one line.
///
/// # Errors
/// When `ip` fails.
pub fn ip(line: &str) -> Result<String> {
    let words: Vec<_> = std::iter::once("ip").chain(line.split_whitespace()).collect();
    run(20, &words)?.ok()
}

#[test]
fn outputs_are_judged_by_exit_status() {
    let good = run(5, &["sh", "-c", "echo fine"]).expect("sh runs");
    assert_eq!(good.ok().expect("it succeeds"), "fine");
    assert!(good.refused().is_err());
    let bad = run(5, &["sh", "-c", "echo no >&2; exit 1"]).expect("sh runs");
    assert_eq!(bad.refused().expect("it refuses"), "no");
    assert!(bad.ok().expect_err("it fails").to_string().contains("no"));
    let usage = run(5, &["sh", "-c", "exit 2"]).expect("sh runs");
    assert!(usage.refused().is_err() && usage.ok().is_err());
}

#[test]
fn a_program_that_hangs_is_ended() {
    let output = run(1, &["tail", "-f", "/dev/null"]).expect("tail runs");
    assert_eq!(output.status, 124);
}

#[test]
fn input_reaches_the_program() {
    let output = run_with_input(5, &["cat"], "words").expect("cat runs");
    assert_eq!(output.ok().expect("it succeeds"), "words");
}
