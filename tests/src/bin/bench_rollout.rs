//! How many requests fail while the backends of a service come, go and are lost: the steps of
//! `lab::scenario::rollout`, again and again, on a cluster of three nodes in namespaces.
//!
//! `skein-bench-rollout [REQUESTS]`: until there were so many, 50,000 unless told otherwise; prints
//! a Markdown table.

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use lab::scenario::rollout::{Counts, PER_SECOND, Step, prepare, run};
use lab::{Lab, sweep_dead};

const REQUESTS: usize = 50_000;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted = match words.as_slice() {
        [] => REQUESTS,
        [number] => number.parse().with_context(|| format!("REQUESTS: {number:?}"))?,
        _ => bail!("usage: skein-bench-rollout [REQUESTS]"),
    };
    sweep_dead()?;
    let mut lab = Lab::for_test("bench-rollout", 3)?;
    lab.make_cluster(1)?;
    prepare(&mut lab)?;
    let mut counts = Step::ALL.map(|step| (step, Counts::default()));
    let total = |counts: &[(Step, Counts)]| counts.iter().map(|(_, c)| c.sent).sum::<usize>();
    while total(&counts) < wanted {
        for (step, count) in &mut counts {
            count.add(run(&mut lab, *step, PER_SECOND)?);
            writeln!(std::io::stderr(), "{step:?}: {count:?}")?;
        }
    }
    let mut out = std::io::stdout();
    writeln!(out, "| step | times | requests | failed | of them on the lost machine |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    for (step, Counts { times, sent, excused }) in counts {
        // Any other failure ends the run.
        writeln!(out, "| {step:?} | {times} | {sent} | {excused} | {excused} |")?;
    }
    Ok(())
}
