//! Every daemon dies, then every machine: what was agreed on is still there.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::Scenario;
use super::calls::{ask, wait_all_answer};
use super::services::{NETWORK, make_network, serve_client_and_echo};
use crate::lab::cluster::{CONVERGE_MAX, Task, list};
use crate::lab::{Lab, Node};

/// Goal: state is on disk and tasks outlive daemons. Method: kill -9 of all daemons at once, then
/// of all machines.
pub const SCENARIO: Scenario = Scenario {
    name: "cold",
    nodes: 3,
    managers: 3,
    checks: &[
        ("a network is made", make_network),
        ("services start", serve_client_and_echo),
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
    let ids =
        |tasks: &[Task]| tasks.iter().map(|task| (task.id.clone(), task.pid)).collect::<Vec<_>>();
    ensure!(ids(&lab.running(0, "echo")?) == ids(&backends), "tasks were not adopted");
    Ok(())
}

fn machines(lab: &mut Lab) -> Result<()> {
    let before = agreed(lab)?;
    lab.nodes.iter_mut().try_for_each(Node::kill_machine)?;
    back_again(lab)?;
    ensure_agreed(lab, &before)?;
    wait_all_answer(lab, 3, 3)
}
