//! Memory use of idle daemons.

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::namespaces::daemon_pid;
use lab::scenario::Check;

use crate::stage::Stage;

/// Of a manager that leads, without a service. Tables of openraft's histograms alone were 26 MB.
const MANAGER_KIB_MAX: u64 = 16 << 10;
const WORKER_KIB_MAX: u64 = 8 << 10;

const CHECKS: &[Check] = &[("daemons without work are small", daemons_are_small)];

/// Goal: a node's memory is its tasks'. Method: memory that a manager and a worker share with no
/// other process, as the kernel counts it, once the cluster is complete and holds nothing else.
#[test]
fn an_idle_daemon_is_small() {
    let mut stage = Stage::empty("memory", 2);
    stage.lab.make_cluster(1).unwrap_or_else(|error| panic!("{error:#}"));
    stage.check(CHECKS);
}

fn daemons_are_small(lab: &mut Lab) -> Result<()> {
    for (index, role, limit) in [(0, "manager", MANAGER_KIB_MAX), (1, "worker", WORKER_KIB_MAX)] {
        let pid = daemon_pid(lab.nodes[index].folder()?)?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let private = of(&text, "Private_Clean:")? + of(&text, "Private_Dirty:")?;
        ensure!(private <= limit, "the {role} has {private} KiB, at most {limit} expected");
    }
    Ok(())
}

/// A line of `smaps_rollup`, in KiB (proc_pid_smaps(5)).
fn of(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("no {name} in {text}"))?.parse()?)
}
