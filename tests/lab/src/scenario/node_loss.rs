//! A machine is lost: traffic avoids it, its tasks move, and it may come back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Scenario;
use super::calls::{CALLS, ask, ensure_all_answer, wait_all_answer};
use super::services::{make_network, serve_client_and_echo};
use crate::Lab;
use crate::cluster::{CONVERGE_MAX, text};
use crate::topology::Point;
use crate::wait::now;

/// From the loss of a machine until no balancer uses its tasks: the aim for p99.
const PURGE_MAX: Duration = Duration::from_secs(3);

/// Goal: the loss of a node costs seconds, not the service. Method: its wire is cut and all its
/// processes are killed at once.
pub const SCENARIO: Scenario = Scenario {
    name: "loss",
    nodes: 3,
    managers: 1,
    checks: &[
        ("a network is made", make_network),
        ("services start", serve_client_and_echo),
        ("its backends are avoided within 3 s and then moved", lose),
        ("the node is listed as down", is_down),
        ("it comes back empty and is used again", comes_back),
        ("a cut node is left, and found again with its tasks ended", cut_and_heal),
    ],
};

fn lose(lab: &mut Lab) -> Result<()> {
    let before = lab.running(0, "echo")?;
    let left: Vec<_> = before.iter().filter(|task| task.node != 2).cloned().collect();
    ensure!(left.len() == 2, "echo is not spread: {before:?}");
    let clients = lab.running(0, "client")?;
    lab.nodes[2].kill_machine()?;
    let lost = now();
    for client in clients.iter().filter(|client| client.node != 2) {
        // A call that meets the dead backend fails by time-out: the condition is that none does.
        lab.wait_for(CONVERGE_MAX, "calls to avoid the lost node", || {
            ask(lab, client, "tcp", "echo:7000", CALLS)
        })?;
    }
    let took = lost.elapsed();
    // The probe's own time-out of 2 s for a last failed call comes on top.
    ensure!(took < PURGE_MAX + Duration::from_secs(3), "the backends were met for {took:?}");
    let after = lab.wait_for(CONVERGE_MAX, "the lost task to run elsewhere", || {
        let running = lab.running(0, "echo")?;
        ensure!(running.len() == 3 && running.iter().all(|task| task.node != 2), "{running:?}");
        Ok(running)
    })?;
    for client in clients.iter().filter(|client| client.node != 2) {
        lab.wait_for(CONVERGE_MAX, "the moved backend to answer", || {
            ensure_all_answer(&ask(lab, client, "tcp", "echo:7000", CALLS)?, &after)
        })?;
    }
    Ok(())
}

fn is_down(lab: &mut Lab) -> Result<()> {
    let state = text(&lab.nodes[0].get("/nodes/node3")?["Status"]["State"]);
    ensure!(state == "down", "it is {state}");
    let listed = lab.nodes[0].docker(&["node", "ls"])?.ok()?;
    let row = listed.lines().find(|line| line.contains("node3")).context("a row of node3")?;
    ensure!(row.contains("Down"), "{row}");
    Ok(())
}

fn comes_back(lab: &mut Lab) -> Result<()> {
    lab.nodes[2].start()?;
    lab.wait_nodes_ready(3)?;
    lab.nodes[0].docker(&["service", "scale", "-d", "echo=6"])?.ok()?;
    let tasks = lab.wait_running(0, "echo", 6)?;
    ensure!(tasks.iter().any(|task| task.node == 2), "nothing is placed on it: {tasks:?}");
    wait_all_answer(lab, 3, 6)
}

fn cut_and_heal(lab: &mut Lab) -> Result<()> {
    lab.cut_off(Point::Node(1))?;
    lab.wait_for(CONVERGE_MAX, "the cut node's tasks to move", || {
        let tasks = lab.running(0, "echo")?;
        ensure!(tasks.len() == 6 && tasks.iter().all(|task| task.node != 1), "{tasks:?}");
        Ok(())
    })?;
    lab.rejoin(Point::Node(1))?;
    lab.wait_nodes_ready(3)?;
    let tasks = lab.wait_running(0, "echo", 6)?;
    let client = lab.wait_running(0, "client", 3)?;
    let client = client.iter().find(|task| task.node == 1).context("a client on it")?;
    lab.wait_for(CONVERGE_MAX, "the healed node to reach exactly the running backends", || {
        ensure_all_answer(&ask(lab, client, "tcp", "echo:7000", CALLS * 4)?, &tasks)
    })?;
    // The orphans that ran there are stopped: supervisors of current tasks are all that is left.
    let wanted = 1 + tasks.iter().filter(|task| task.node == 1).count();
    lab.wait_for(CONVERGE_MAX, "orphans to be stopped", || {
        let folder = lab.nodes[1].run_dir().join("netns");
        let names = lab.nodes[1].run(20, &["ls", &folder.to_string_lossy()])?.ok()?;
        let sandboxes = names.lines().filter(|name| name.starts_with("sandbox-")).count();
        ensure!(sandboxes == wanted, "{sandboxes} sandboxes for {wanted} tasks");
        Ok(())
    })
}
