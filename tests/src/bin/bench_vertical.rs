//! The figures of docs/benchmarks.md: makes clusters in network namespaces of this machine and
//! prints a Markdown table.
//!
//! `skein-bench-vertical [--runs N] [--only abcd]`: 50 runs of every figure unless told otherwise.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::{sweep_dead, target_folder};
use tests::bench::{Figure, HEAD, leader, row, vertical};

const RUNS: usize = 50;
const RUNS_MAX: usize = 1_000;
const USAGE: &str = "usage: skein-bench-vertical [--runs N] [--only LETTERS of abcd]";

struct Wanted {
    runs: usize,
    figures: Vec<Figure>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let wanted = match read(&words) {
        Ok(wanted) => wanted,
        Err(error) => {
            complain(&format!("{error:#}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    match run(&wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn read(words: &[&str]) -> Result<Wanted> {
    let mut wanted = Wanted { runs: RUNS, figures: Figure::ALL.to_vec() };
    for pair in words.chunks(2) {
        match pair {
            ["--runs", number] => {
                let runs = number.parse().ok().filter(|runs| (1..=RUNS_MAX).contains(runs));
                wanted.runs = runs.with_context(|| format!("--runs {number}: 1 to {RUNS_MAX}"))?;
            }
            ["--only", letters] => {
                wanted.figures.retain(|figure| letters.contains(figure.letter()));
                if wanted.figures.is_empty() {
                    bail!("--only {letters}: no figure has one of these letters");
                }
            }
            other => bail!("{other:?} is not understood"),
        }
    }
    Ok(wanted)
}

fn run(wanted: &Wanted) -> Result<()> {
    sweep_dead()?;
    let mut rows = Vec::new();
    let of_vertical = |figure: &Figure| *figure != Figure::LeaderLoss;
    if wanted.figures.iter().any(of_vertical) {
        let mut stage = vertical::Stage::new()?;
        for figure in wanted.figures.iter().copied().filter(|figure| of_vertical(figure)) {
            let times = measure(figure, wanted.runs, |run| match figure {
                Figure::Create => stage.create_service(run),
                Figure::Scale => stage.add_backend(),
                Figure::NodeLoss => stage.lose_node(run),
                Figure::LeaderLoss => bail!("this figure has a stage of its own"),
            })?;
            stage.clear_target()?;
            rows.push(row(figure, &times)?);
        }
    }
    if wanted.figures.contains(&Figure::LeaderLoss) {
        let mut stage = leader::Stage::new()?;
        let lose = |run| stage.lose_leader(run);
        rows.push(row(Figure::LeaderLoss, &measure(Figure::LeaderLoss, wanted.runs, lose)?)?);
    }
    say(&format!("\n{}\n\n{HEAD}\n{}", surroundings()?, rows.join("\n")));
    Ok(())
}

fn measure(
    figure: Figure,
    runs: usize,
    mut once: impl FnMut(usize) -> Result<Duration>,
) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(runs);
    for run in 0..runs {
        let what = || format!("{} (run {} of {runs})", figure.title(), run + 1);
        let time = once(run).with_context(what)?;
        complain(&format!("{}: {:.1} ms", what(), time.as_secs_f64() * 1_000.0));
        times.push(time);
    }
    Ok(times)
}

/// What the figures depend on.
fn surroundings() -> Result<String> {
    let cores = std::thread::available_parallelism().context("counting cores")?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let folder = target_folder()?;
    let profile = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(format!("{cores} cores, Linux {}, {profile} build", kernel.trim()))
}

fn say(text: &str) {
    // Nobody to tell is no reason to stop.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Progress and complaints, apart from the table.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
