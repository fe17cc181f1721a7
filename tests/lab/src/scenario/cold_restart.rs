//! Most daemons die, then all of them, then every machine: what was agreed on is still there.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Scenario;
use super::calls::{ask, wait_all_answer};
use super::join::leader;
use super::services::{NETWORK, make_network, processes, serve_client_and_echo};
use crate::cluster::{CONVERGE_MAX, list};
use crate::wait::now;
use crate::{Lab, Node};

/// How long most managers are away: a node's lease is 2.5 s. That none is given up meanwhile has no
/// condition to wait for.
const AWAY: Duration = Duration::from_secs(4);
/// What a manager says that leads and has no majority.
const NO_MAJORITY: &str = "no majority of managers";

/// Goal: state is on disk, tasks outlive daemons and a majority. Method: kill -9 of two of three
/// managers, of all daemons at once, then of all machines.
pub const SCENARIO: Scenario = Scenario {
    name: "cold",
    nodes: 3,
    managers: 3,
    checks: &[
        ("a network is made", make_network),
        ("services start", serve_client_and_echo),
        ("most managers killed: traffic goes on, and no task moves", most_managers),
        ("all daemons killed: traffic goes on, then all is there", daemons),
        ("all machines lost: tasks start again", machines),
        ("it can be done twice", machines),
    ],
};

/// What the cluster has agreed on, without what follows from its processes.
fn agreed(lab: &Lab) -> Result<Vec<Value>> {
    let node = &lab.nodes[0];
    let mut found = Vec::new();
    for (path, fields) in [
        ("/networks", ["Id", "Name", "IPAM"].as_slice()),
        ("/services", ["ID", "Spec", "Endpoint"].as_slice()),
        ("/nodes", ["ID", "Spec"].as_slice()),
    ] {
        let answer = node.get(path)?;
        for object in list(&answer) {
            found.push(fields.iter().map(|field| object[field].clone()).collect::<Value>());
        }
    }
    found.sort_by_key(Value::to_string);
    ensure!(found.len() > 6, "{found:?}");
    Ok(found)
}

/// Fails unless the cluster has agreed on exactly this. On a busy machine managers that just came
/// back may choose a leader twice: what counts is the first answer.
fn ensure_agreed(lab: &Lab, before: &[Value]) -> Result<()> {
    let after = lab.wait_for(CONVERGE_MAX, "a leader that answers", || agreed(lab))?;
    ensure!(after == before, "before {before:?}, after {after:?}");
    Ok(())
}

fn back_again(lab: &mut Lab) -> Result<()> {
    lab.start_all()?;
    lab.wait_for(CONVERGE_MAX, "a leader", || lab.nodes[0].get("/services"))?;
    lab.wait_nodes_ready(3)
}

fn daemons(lab: &mut Lab) -> Result<()> {
    let before = agreed(lab)?;
    let tasks = processes(lab)?;
    let (clients, backends) = (lab.running(0, "client")?, lab.running(0, "echo")?);
    lab.nodes.iter_mut().try_for_each(Node::kill_daemon)?;
    for client in &clients {
        // By address: nobody serves names while no daemon runs, connections go on all the same.
        let vip_calls =
            ask(lab, client, "tcp", &format!("{}:7000", backends[0].address(NETWORK)?), 5)?;
        ensure!(vip_calls.len() == 5, "{vip_calls:?}");
    }
    back_again(lab)?;
    ensure_agreed(lab, &before)?;
    wait_all_answer(lab, 3, 3)?;
    ensure!(processes(lab)? == tasks, "tasks were not adopted");
    Ok(())
}

/// A leader without a majority goes on with what was agreed; it cannot give a node up meanwhile,
/// and does not do so when the others are back.
fn most_managers(lab: &mut Lab) -> Result<()> {
    let tasks = processes(lab)?;
    let leads = leader(lab, 0)?;
    let clients = lab.running(0, "client")?;
    let client =
        clients.iter().find(|task| task.node == leads).context("a client on the same node")?;
    let others: Vec<usize> = (0..3).filter(|index| *index != leads).collect();
    for index in &others {
        lab.nodes[*index].kill_daemon()?;
    }
    let begin = now();
    lab.wait_for(CONVERGE_MAX, "a change to be refused", || {
        let change = ["network", "create", "-d", "overlay", "never"];
        let refusal = lab.nodes[leads].docker(&change)?.refused()?;
        ensure!(refusal.contains(NO_MAJORITY), "{refusal}");
        Ok(())
    })?;
    while begin.elapsed() < AWAY {
        ask(lab, client, "tcp", "echo:7000", 5)?;
    }
    // At once: with the first one there is a majority again, and the other one's lease begins.
    lab.start_all()?;
    // The refused change may have been under way, and is settled by a later one that is agreed on.
    lab.wait_for(CONVERGE_MAX, "a change to be agreed on", || {
        let output = lab.nodes[leads].docker(&["network", "create", "-d", "overlay", "later"])?;
        // An answer may get lost where leaders change: it was made all the same.
        ensure!(output.status == 0 || output.stderr.contains("already exists"), "{output}");
        Ok(())
    })?;
    lab.wait_nodes_ready(3)?;
    wait_all_answer(lab, 3, 3)?;
    let after = processes(lab)?;
    ensure!(after == tasks, "tasks were {tasks:?}, are {after:?}");
    Ok(())
}

fn machines(lab: &mut Lab) -> Result<()> {
    let before = agreed(lab)?;
    lab.nodes.iter_mut().try_for_each(Node::kill_machine)?;
    back_again(lab)?;
    ensure_agreed(lab, &before)?;
    wait_all_answer(lab, 3, 3)
}
