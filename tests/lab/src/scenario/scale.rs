//! Scaling under load, and the update of a service.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};

use super::Scenario;
use super::calls::{ask, wait_all_answer};
use super::services::{NETWORK, make_network, probe, serve, serve_client, serve_echo};
use crate::Lab;
use crate::cluster::{CONVERGE_MAX, list, text};

/// How often ten calls are made until a late task has answered one: for half a minute and more.
const LATE_ASKED_MAX: usize = 1_000;

/// Goal: backends come and go without a failed call. Method: calls from every node while the
/// service is scaled and updated.
pub const SCENARIO: Scenario = Scenario {
    name: "scale",
    nodes: 3,
    managers: 1,
    checks: &[
        ("a network is made", make_network),
        ("one replica answers", start),
        ("scaled up, all replicas answer on every node", up),
        ("a task that opens its port late gets no call before", late),
        ("scaled down, no call fails once the task is out", down),
        ("scaled to nothing, the name stays and calls are refused at once", to_zero),
        ("constraints place tasks", constraints),
        ("a drained node loses its tasks", drain),
        ("an update replaces tasks one at a time", update),
    ],
};

fn start(lab: &mut Lab) -> Result<()> {
    serve_client(lab)?;
    serve_echo(lab, 1)?;
    converged(lab, 1)
}

/// Waits until exactly the running tasks answer, asked from every node.
fn converged(lab: &Lab, replicas: usize) -> Result<()> {
    wait_all_answer(lab, 3, replicas)
}

fn scale(lab: &Lab, replicas: usize) -> Result<()> {
    lab.nodes[0].docker(&["service", "scale", "-d", &format!("echo={replicas}")])?.ok()?;
    Ok(())
}

fn up(lab: &mut Lab) -> Result<()> {
    scale(lab, 6)?;
    let tasks = lab.wait_running(0, "echo", 6)?;
    for node in 0..3 {
        let here = tasks.iter().filter(|task| task.node == node).count();
        ensure!(here == 2, "node{} has {here} of 6 tasks", node + 1);
    }
    converged(lab, 6)
}

/// A task runs for three seconds before it listens; another of its service does all the while.
fn late(lab: &mut Lab) -> Result<()> {
    let client = &lab.running(0, "client")?[0];
    let script = format!("sleep 3; exec {} serve 7001", probe(lab)?);
    serve(lab, "late", &["--replicas", "1"], &["sh", "-c", &script], 1)?;
    lab.wait_for(CONVERGE_MAX, "the first task to listen", || {
        ask(lab, client, "tcp", "late:7001", 1)
    })?;
    lab.nodes[0].docker(&["service", "scale", "-d", "late=2"])?.ok()?;
    let mut servers = BTreeSet::new();
    for _ in 0..LATE_ASKED_MAX {
        servers.extend(ask(lab, client, "tcp", "late:7001", 10)?.into_iter().map(|t| t.server));
        if servers.len() == 2 {
            lab.nodes[0].docker(&["service", "rm", "late"])?.ok()?;
            return Ok(());
        }
    }
    bail!("only {servers:?} answered")
}

fn down(lab: &mut Lab) -> Result<()> {
    let client = &lab.running(0, "client")?[0];
    scale(lab, 3)?;
    // A task is stopped when no balancer uses it: calls made in the meantime do not fail.
    while lab.running(0, "echo")?.len() > 3 {
        ask(lab, client, "tcp", "echo:7000", 10)?;
    }
    converged(lab, 3)
}

fn to_zero(lab: &mut Lab) -> Result<()> {
    let vip = lab.vip(0, "echo", NETWORK)?;
    scale(lab, 0)?;
    lab.wait_running(0, "echo", 0)?;
    ensure!(lab.vip(0, "echo", NETWORK)? == vip, "the VIP moved");
    scale(lab, 3)?;
    converged(lab, 3)
}

fn constraints(lab: &mut Lab) -> Result<()> {
    let node = &lab.nodes[0];
    node.docker(&["node", "update", "--label-add", "disk=ssd", "node3"])?.ok()?;
    for (name, constraint, expected) in [
        ("by-role", "node.role==manager", BTreeSet::from([0])),
        ("by-name", "node.hostname!=node1", BTreeSet::from([1, 2])),
        ("by-label", "node.labels.disk==ssd", BTreeSet::from([2])),
    ] {
        let flags = ["--constraint", constraint, "--replicas", "4"];
        let tasks = serve(lab, name, &flags, &[&probe(lab)?, "serve", "81"], 4)?;
        let nodes: BTreeSet<_> = tasks.iter().map(|task| task.node).collect();
        ensure!(nodes == expected, "{constraint} placed on {nodes:?}");
        node.docker(&["service", "rm", name])?.ok()?;
    }
    let words = ["--name", "nowhere", "--constraint", "node.labels.disk==tape", "host", "true"];
    lab.create_service(0, &words)?;
    lab.wait_for(CONVERGE_MAX, "a reason for the pending task", || {
        let task = lab.all_tasks(0, "nowhere")?.into_iter().next().context("no task")?;
        let pending = task.state == "pending" && task.message.contains("no suitable node");
        ensure!(pending, "{}: {}", task.state, task.message);
        Ok(())
    })?;
    node.docker(&["service", "rm", "nowhere"])?.ok()?;
    Ok(())
}

fn drain(lab: &mut Lab) -> Result<()> {
    let node = &lab.nodes[0];
    node.docker(&["node", "update", "--availability", "drain", "node3"])?.ok()?;
    lab.wait_for(CONVERGE_MAX, "the drained node's tasks to move", || {
        let tasks = lab.running(0, "echo")?;
        let stay = tasks.iter().filter(|task| task.node == 2).count();
        ensure!(tasks.len() == 3 && stay == 0, "{stay} of {} are on it", tasks.len());
        Ok(())
    })?;
    node.docker(&["node", "update", "--availability", "pause", "node2"])?.ok()?;
    scale(lab, 5)?;
    let tasks = lab.wait_running(0, "echo", 5)?;
    let paused = tasks.iter().filter(|task| task.node == 1).count();
    ensure!(paused <= 2, "a paused node got new tasks: {tasks:?}");
    for name in ["node2", "node3"] {
        node.docker(&["node", "update", "--availability", "active", name])?.ok()?;
    }
    scale(lab, 3)?;
    converged(lab, 3)
}

fn update(lab: &mut Lab) -> Result<()> {
    let before: BTreeSet<_> = lab.running(0, "echo")?.into_iter().map(|task| task.id).collect();
    lab.nodes[0].docker(&["service", "update", "-d", "--env-add", "COLOUR=blue", "echo"])?.ok()?;
    lab.wait_for(CONVERGE_MAX, "the update to complete", || {
        let service = lab.nodes[0].get("/services/echo")?;
        let state = text(&service["UpdateStatus"]["State"]);
        ensure!(state == "completed", "it is {state:?}");
        Ok(())
    })?;
    let after = lab.wait_running(0, "echo", 3)?;
    ensure!(after.iter().all(|task| !before.contains(&task.id)), "an old task still runs");
    let file = format!("/proc/{}/environ", after[0].pid);
    let environment = lab.nodes[after[0].node].run(20, &["cat", &file])?.ok()?;
    ensure!(environment.contains("COLOUR=blue"), "{environment}");
    let service = lab.nodes[0].get("/services/echo")?;
    let env = list(&service["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"]).count();
    ensure!(env == 1, "{service}");
    converged(lab, 3)
}
