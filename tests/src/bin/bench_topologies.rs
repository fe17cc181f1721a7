//! What each kind of machines costs: the time until a cluster of three is ready, and memory. Prints
//! a table in Markdown; docs/benchmarks.md says what the figures are.
//!
//! `skein-bench-topologies [--runs N]`: 3 runs of each kind unless told otherwise, after one that
//! is not counted, in which images are built.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use lab::kinds::folder_of;
use lab::topology::Kind;
use lab::vm::kernel::Kernel;
use lab::vm::topology::VirtualMachines;
use lab::wait::now;
use lab::{Lab, sweep_dead, test_name};

const NODES: usize = 3;
const RUNS: usize = 3;
const RUNS_MAX: usize = 100;
const USAGE: &str = "usage: skein-bench-topologies [--runs N]";
const ASK_SECONDS: u32 = 30;
/// Resident memory of each daemon that a node sees, in KiB, one a line.
const DAEMONS: &str = "for p in $(pgrep -f '(^|/)skein daemon'); do \
    sed -n 's/^VmRSS:[[:space:]]*\\([0-9]*\\) kB/\\1/p' /proc/$p/status; done";

/// A kind of machines, and the kernel where it has one of its own.
type What = (Kind, Option<Kernel>);

const ALL: [What; 4] = [
    (Kind::Namespaces, None),
    (Kind::Containers, None),
    (Kind::VirtualMachines, Some(Kernel::Uml)),
    (Kind::VirtualMachines, Some(Kernel::Debian61)),
];

/// One run.
#[derive(Debug, Clone, Copy)]
struct Run {
    made_s: f64,
    ready_s: f64,
    machine_mib: f64,
    daemon_mib: f64,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match read(&words).and_then(measure_all) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "skein-bench-topologies: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn read(words: &[&str]) -> Result<usize> {
    match words {
        [] => Ok(RUNS),
        ["--runs", number] => {
            let runs = number.parse().ok().filter(|runs| (1..=RUNS_MAX).contains(runs));
            runs.with_context(|| format!("--runs {number}: 1 to {RUNS_MAX}; {USAGE}"))
        }
        other => bail!("{:?} is not understood; {USAGE}", other.join(" ")),
    }
}

fn say(text: &str) {
    // Nobody to tell is no reason to stop.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn measure_all(runs: usize) -> Result<()> {
    sweep_dead()?;
    say("| machines | runs | made | ready | memory per node | of it the daemon |");
    say("|---|---|---|---|---|---|");
    for what in ALL {
        measure(what)?;
        let mut measured = (0..runs).map(|_| measure(what)).collect::<Result<Vec<_>>>()?;
        measured.sort_by(|one, other| one.ready_s.total_cmp(&other.ready_s));
        let Run { made_s, ready_s, machine_mib, daemon_mib } = measured[runs / 2];
        let name = match what {
            (kind, Some(kernel)) => format!("{kind}, {kernel}"),
            (kind, None) => kind.to_string(),
        };
        say(&format!(
            "| {name} | {runs} | {made_s:.1} s | {ready_s:.1} s | {machine_mib:.0} MiB | \
             {daemon_mib:.0} MiB |"
        ));
    }
    Ok(())
}

fn measure(what: What) -> Result<Run> {
    let name = test_name("bench");
    let folder = folder_of(&name);
    let before = processes();
    let begin = now();
    let mut lab = match what {
        (kind, None) => Lab::make(kind, &name, &folder, NODES)?,
        (_, Some(kernel)) => {
            let machines = VirtualMachines::make(&name, &folder, NODES, kernel)?;
            Lab::on(&name, &folder, Box::new(machines))?
        }
    };
    let made_s = begin.elapsed().as_secs_f64();
    lab.make_cluster(1)?;
    let ready_s = begin.elapsed().as_secs_f64();
    let kib: u64 = processes().difference(&before).filter_map(|pid| shared_out_kib(*pid)).sum();
    let machine_mib = mib(kib)? / f64::from(u32::try_from(NODES)?);
    Ok(Run { made_s, ready_s, machine_mib, daemon_mib: daemon_mib(&lab)? })
}

/// All processes of this machine.
fn processes() -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect()
}

/// Memory of a process in KiB, where what several share is shared out among them (`Pss`). None for
/// one that has ended, and for those of the kernel.
fn shared_out_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What a daemon takes, by its own machine's account: the mean of those that the first node sees.
fn daemon_mib(lab: &Lab) -> Result<f64> {
    let text = lab.nodes[0].run(ASK_SECONDS, &["sh", "-c", DAEMONS])?.ok()?;
    let sizes = text.lines().map(str::parse).collect::<Result<Vec<u64>, _>>();
    let sizes = sizes.with_context(|| format!("reading {text:?}"))?;
    ensure!(!sizes.is_empty(), "no daemon runs on {}", lab.nodes[0].name);
    Ok(mib(sizes.iter().sum())? / f64::from(u32::try_from(sizes.len())?))
}

fn mib(kib: u64) -> Result<f64> {
    Ok(f64::from(u32::try_from(kib).context("more than 4 TiB")?) / 1024.0)
}

#[test]
fn this_process_takes_memory() {
    assert!(shared_out_kib(std::process::id()).is_some_and(|kib| kib > 100));
    assert!(shared_out_kib(u32::MAX).is_none());
    assert!(processes().contains(&std::process::id()));
}
