//! Three guests as a cluster: how long it takes, a VIP across kernels, and what the loss of power
//! and a reboot leave of it.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::lab::Lab;
use tests::lab::cluster::{CONVERGE_MAX, text};
use tests::lab::wait::now;
use tests::scenario::calls::{CALLS, ask, ensure_all_answer};
use tests::scenario::services::{make_network, serve_client, serve_echo};
use tests::scenario::{Check, check};
use tests::vm::kernel::Kernel;

use crate::stage::{guest, lab, must, turn};

/// From nothing to three ready nodes, under emulation on two cores.
const EMULATED_MAX: Duration = Duration::from_secs(60);
const NODES: usize = 3;

/// What is checked of each cluster.
const CHECKS: &[Check] = &[
    ("a VIP reaches every replica from every guest", vip_answers),
    ("the log survives the manager's loss of power", manager_loses_power),
    ("a rebooted guest is used again", worker_reboots),
];

/// Goal: a cluster on kernels of its own. Method: user-mode Linux; the balancer is nft.
#[test]
fn three_guests_of_user_mode_linux_are_a_cluster() {
    let _turn = turn();
    must(cluster(Kernel::Uml, "nft", None));
}

/// Goal: the same on Debian 12's kernel, within a minute. Method: QEMU.
#[test]
fn three_guests_of_debian_12_are_a_cluster() {
    let _turn = turn();
    must(cluster(Kernel::Debian61, "nft", Some(EMULATED_MAX)));
}

fn cluster(kernel: Kernel, balancer: &str, ready_max: Option<Duration>) -> Result<()> {
    let begin = now();
    let mut lab = lab("cluster", kernel, NODES)?;
    let booted = begin.elapsed();
    for node in &mut lab.nodes {
        node.set_flags(&["--load-balancer", balancer])?;
    }
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
    if balancer == "ipvs" {
        check(&mut lab, &[("the balancer is IPVS on every node", balances_by_ipvs)])?;
    }
    Ok(())
}

/// Run while a VIP is there: a node that balances it by other means fails.
fn balances_by_ipvs(lab: &mut Lab) -> Result<()> {
    for node in &lab.nodes {
        let script = "for n in /run/skein/netns/fabric-*; do nsenter --net=$n ipvsadm -Ln; done";
        let table = node.run(60, &["sh", "-c", script])?.ok()?;
        ensure!(table.contains("FWM") && table.contains("Route"), "{}: {table}", node.name);
    }
    Ok(())
}

fn vip_answers(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    serve_client(lab)?;
    serve_echo(lab, NODES)?;
    lab.wait_running(0, "client", NODES)?;
    all_answer(lab)
}

/// The tasks are asked for anew at each look: those of a guest that was off end and are replaced.
fn all_answer(lab: &Lab) -> Result<()> {
    lab.wait_for(CONVERGE_MAX * 2, "every replica to answer from every guest", || {
        let (echo, clients) = (lab.running(0, "echo")?, lab.running(0, "client")?);
        ensure!(echo.len() == NODES && clients.len() == NODES, "{echo:?} {clients:?}");
        for client in &clients {
            ensure_all_answer(&ask(lab, client, "tcp", "echo:7000", CALLS)?, &echo)?;
        }
        Ok(())
    })
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
