//! Two daemons in a cluster with very many endpoints (`tests::bench::rows`).
//!
//! `skein-bench-rows [ROWS]`: so many rows, 10,000 unless told otherwise; prints a Markdown table.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::sweep_dead;
use lab::wait::Pace;
use tests::bench::rows::Stage;

const ROWS: usize = 10_000;
const CHANGES: usize = 20;
/// Changes in a row, and how far apart.
const CHURN: usize = 500;
const CHURN_PERIOD: Duration = Duration::from_millis(20);
const REST: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(900);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rows = match words.as_slice() {
        [] => ROWS,
        [number] => number.parse().with_context(|| format!("ROWS: {number:?}"))?,
        _ => bail!("usage: skein-bench-rows [ROWS]"),
    };
    sweep_dead()?;
    let mut stage = Stage::new("bench-rows", rows)?;
    let mut out = std::io::stdout();
    writeln!(out, "| {rows} rows | s | CPU s of the manager | of the worker | MiB | MiB |")?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    let mut before = [stage.cost(0)?, stage.cost(1)?];
    let mut tell = |stage: &Stage, what: &str, took: Duration| -> Result<()> {
        let cost = [stage.cost(0)?, stage.cost(1)?];
        let cpu = [0, 1].map(|at| (cost[at].cpu - before[at].cpu).as_secs_f64());
        before = cost;
        let ([first, second], took) = (cpu, took.as_secs_f64());
        let [a, b] = cost.map(|cost| cost.mib);
        writeln!(out, "| {what} | {took:.3} | {first:.2} | {second:.2} | {a} | {b} |")?;
        Ok(())
    };
    let took = stage.fill(LIMIT)?;
    tell(&stage, "until both kernels hold all", took)?;
    let mut times = Vec::new();
    for _ in 0..CHANGES {
        times.push(stage.change(LIMIT)?);
    }
    times.sort();
    tell(&stage, &format!("a change, median of {CHANGES}"), times[CHANGES / 2])?;
    tell(&stage, "the slowest of them", times[CHANGES - 1])?;
    let took = stage.churn(CHURN, CHURN_PERIOD, LIMIT)?;
    tell(&stage, &format!("the last of {CHURN} changes at 50/s"), took)?;
    Pace::new(REST).wait();
    tell(&stage, "at rest", REST)?;
    Ok(())
}
