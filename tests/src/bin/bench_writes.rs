//! Durable writes a second of three managers, and of three members of etcd:
//! `tests::bench::writes`.
//!
//! `skein-bench-writes [OBJECTS]`: with so many services and networks there already, none unless
//! told otherwise; prints a Markdown table.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::sweep_dead;
use tests::bench::writes::{Stage, Store, etcd};

const CLIENTS: [usize; 3] = [1, 64, 256];
/// Both stores take turns; the median counts.
const ROUNDS: usize = 3;
const LASTS: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let objects = match words.as_slice() {
        [] => 0,
        [number] => number.parse().with_context(|| format!("OBJECTS: {number:?}"))?,
        _ => bail!("usage: skein-bench-writes [OBJECTS]"),
    };
    let etcd = etcd()?;
    sweep_dead()?;
    let mut stage = Stage::new(&etcd)?;
    stage.load(objects)?;
    let mut out = std::io::stdout();
    writeln!(out, "| clients, {objects} objects of each kind | writes/s | etcd | ratio |")?;
    writeln!(out, "|---|---|---|---|")?;
    for clients in CLIENTS {
        let (mut skein, mut etcd) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            skein.push(stage.measure(Store::Skein, clients, LASTS)?);
            etcd.push(stage.measure(Store::Etcd, clients, LASTS)?);
        }
        let [skein, etcd] = [skein, etcd].map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[ROUNDS / 2]
        });
        writeln!(out, "| {clients} | {skein:.0} | {etcd:.0} | {:.2} |", skein / etcd)?;
    }
    Ok(())
}
