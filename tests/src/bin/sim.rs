//! `sim SEED`: replays one seed of the simulator and tells what it found.
//! `sim --count N [--from SEED]`: runs that many seeds, and stops at the first that fails.
//! With `--members` at the end, runs whose members and managers change.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use tests::sim::{Members, PlantedBug, run};

const USAGE: &str = "sim SEED [--members] | sim --count N [--from SEED] [--members]";

fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (words, members) = match words.split_last() {
        Some((last, rest)) if *last == "--members" => (rest, Members::Changing),
        _ => (words.as_slice(), Members::Fixed),
    };
    let number = |text: &str| text.parse::<u64>().with_context(|| format!("{text} is no number"));
    let (from, count) = match words {
        ["--count", count] => (1, number(count)?),
        ["--count", count, "--from", from] | ["--from", from, "--count", count] => {
            (number(from)?, number(count)?)
        }
        [seed] => (number(seed)?, 1),
        _ => bail!("usage: {USAGE}"),
    };
    for seed in from..from.saturating_add(count) {
        match run(seed, members, PlantedBug::Nothing) {
            Ok(summary) => writeln!(std::io::stdout(), "{summary}")?,
            Err(failure) => {
                write!(std::io::stdout(), "{failure}")?;
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
