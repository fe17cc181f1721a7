//! Managers that are lost for good: one continues alone, or a backup is restored, and workers
//! notice nothing. docs/operations.md documents the same commands.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::cluster::{CONVERGE_MAX, Task, list, text};
use lab::command::Output;
use lab::scenario::Check;
use lab::scenario::background::Counter;
use lab::scenario::calls::{ask, ensure_all_answer};
use lab::scenario::services::{NETWORK, make_network, probe, serve, serve_client};
use lab::wait::Pace;

use crate::stage::Stage;

const MANAGERS: usize = 3;
/// The only worker.
const WORKER: usize = 3;
/// For how long a client waits that goes away, in milliseconds: a change takes about a hundred.
const STAYS_MS: [u64; 7] = [0, 2, 5, 10, 20, 50, 100];
const NO_LEADER: &str = "does not have a leader";

const CHECKS: &[Check] = &[
    ("a cluster with a majority is not split", majority),
    ("services start on every node", services),
    ("two of three managers lost: one goes on alone, with traffic flowing", alone),
    ("a client that goes away leaves no manager half-way", client_gone),
    ("a lost manager that returns is turned away", returned),
    ("a backup is checked, and a damaged one refused", backup),
    ("all managers lost: the backup is restored, tasks of the worker go on", restore),
];

/// Goal: no loss of managers costs the cluster. Method: the runbook, by Docker's and Skein's own
/// commands, with a connection between tasks that counts meanwhile.
#[test]
fn a_cluster_outlives_its_managers() {
    let mut stage = Stage::cluster("recovery", MANAGERS + 1, MANAGERS);
    stage.check(CHECKS);
}

fn force_new(lab: &Lab) -> Result<Output> {
    let address = lab.nodes[0].address.to_string();
    lab.nodes[0].docker(&["swarm", "init", "--force-new-cluster", "--advertise-addr", &address])
}

fn majority(lab: &mut Lab) -> Result<()> {
    let refused = force_new(lab)?.refused()?;
    ensure!(refused.contains("would split it"), "{refused}");
    let worker = lab.nodes[WORKER].docker(&["swarm", "init", "--force-new-cluster"])?.refused()?;
    ensure!(worker.contains("not a swarm manager"), "{worker}");
    let nodes = lab.nodes[0].get("/nodes")?;
    ensure!(list(&nodes).count() == MANAGERS + 1, "{nodes}");
    Ok(())
}

fn services(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    serve_client(lab)?;
    let probe = probe(lab)?;
    serve(lab, "echo", &["--mode", "global"], &[&probe, "serve", "7000"], MANAGERS + 1)?;
    Ok(())
}

fn on(tasks: &[Task], node: usize) -> Result<&Task> {
    tasks.iter().find(|task| task.node == node).context("no task on that node")
}

/// Waits until the service runs on exactly these nodes, each with one task.
fn runs_on(lab: &Lab, service: &str, nodes: &[usize]) -> Result<Vec<Task>> {
    lab.wait_for(CONVERGE_MAX, &format!("{service} to run on nodes {nodes:?}"), || {
        let tasks = lab.running(0, service)?;
        let mut found: Vec<usize> = tasks.iter().map(|task| task.node).collect();
        found.sort_unstable();
        ensure!(found == nodes, "it runs on {found:?}");
        Ok(tasks)
    })
}

fn alone(lab: &mut Lab) -> Result<()> {
    let (clients, echoes) = (lab.running(0, "client")?, lab.running(0, "echo")?);
    let (client, echo) = (on(&clients, WORKER)?, on(&echoes, 0)?);
    let counter = Counter::start(lab, client, &format!("{}:7000", echo.address(NETWORK)?))?;
    for lost in [1, 2] {
        lab.nodes[lost].kill_machine()?;
    }
    lab.wait_for(CONVERGE_MAX, "the loss to be noticed", || {
        let refused = lab.nodes[0].docker(&["node", "ls"])?.refused()?;
        ensure!(refused.contains(NO_LEADER), "{refused}");
        Ok(())
    })?;
    let own = lab.nodes[0].cluster_id()?;
    force_new(lab)?.ok()?;
    ensure!(lab.nodes[0].cluster_id()? == own, "it is another node now");
    let told = lab.nodes[0].get("/skein/v1/debug/raft")?;
    ensure!(list(&told["voters"]).count() == 1, "{told}");
    let nodes = lab.nodes[0].get("/nodes")?;
    ensure!(list(&nodes).count() == 2, "{nodes}");
    lab.wait_nodes_ready(2)?;
    // Before anything else is done with the service: what ran goes on.
    let still = runs_on(lab, "echo", &[0, WORKER])?;
    ensure!(on(&still, 0)?.pid == echo.pid, "the task was started again");
    let gap = counter.finish()?;
    ensure!(gap < 1_000, "the connection was silent for {gap} ms");
    lab.nodes[0].docker(&["network", "create", "-d", "overlay", "after"])?.ok()?;
    answers(lab, &still)
}

/// The Raft id of the first node.
fn raft_id(lab: &Lab) -> Result<u64> {
    let told = lab.nodes[0].get("/skein/v1/debug/raft")?;
    told["id"].as_u64().with_context(|| format!("no Raft id in {told}"))
}

/// The client stays for longer each time, so that it goes in each part of the change.
fn client_gone(lab: &mut Lab) -> Result<()> {
    let before = raft_id(lab)?;
    let node = &lab.nodes[0];
    let body = format!(r#"{{"ForceNewCluster":true,"AdvertiseAddr":"{}"}}"#, node.address);
    for stay in STAYS_MS {
        let mut client = UnixStream::connect(node.url().trim_start_matches("unix://"))?;
        write!(
            client,
            "POST /swarm/init HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        Pace::new(Duration::from_millis(stay)).wait();
        drop(client);
        lab.wait_for(CONVERGE_MAX, &format!("the manager, {stay} ms after"), || {
            raft_id(lab)?;
            node.docker(&["node", "ls"])?.ok().map(drop)
        })?;
    }
    ensure!(raft_id(lab)? != before, "it never went on alone");
    lab.wait_nodes_ready(2)
}

fn answers(lab: &Lab, backends: &[Task]) -> Result<()> {
    let clients = runs_on(lab, "client", &[0, WORKER])?;
    for client in &clients {
        lab.wait_for(CONVERGE_MAX, "all backends, and no other, to answer", || {
            let told = ask(lab, client, "tcp", "echo:7000", 20)?;
            ensure_all_answer(&told, backends)
        })?;
    }
    Ok(())
}

fn returned(lab: &mut Lab) -> Result<()> {
    lab.nodes[1].start()?;
    lab.wait_for(CONVERGE_MAX, "the lost manager to be turned away", || {
        let log = lab.nodes[1].log();
        ensure!(log.contains("is not in this cluster (any more)"), "it was told nothing yet");
        Ok(())
    })?;
    let refused = lab.nodes[1].docker(&["network", "create", "-d", "overlay", "no"])?.refused()?;
    ensure!(refused.contains(NO_LEADER), "{refused}");
    let nodes = lab.nodes[0].get("/nodes")?;
    ensure!(list(&nodes).count() == 2, "{nodes}");
    lab.nodes[1].kill_machine()
}

/// The cluster's id, as its first node tells it.
fn swarm(lab: &Lab) -> Result<String> {
    Ok(text(&lab.nodes[0].get("/swarm")?["ID"]))
}

fn file(lab: &Lab, name: &str) -> PathBuf {
    lab.folder().join(name)
}

fn backup(lab: &mut Lab) -> Result<()> {
    let (good, bad) = (file(lab, "backup"), file(lab, "damaged"));
    let (good, bad) = (good.to_string_lossy(), bad.to_string_lossy());
    let node = &lab.nodes[0];
    let said = node.skein(&["cluster", "backup", &good])?.ok()?;
    ensure!(said.contains("2 services"), "{said}");
    let refused = node.skein(&["cluster", "backup", &good])?.refused()?;
    ensure!(refused.contains("exists: give another name"), "{refused}");
    let told = node.skein(&["cluster", "inspect", &good])?.ok()?;
    ensure!(told.contains(&swarm(lab)?), "{told}");

    let mut bytes = std::fs::read(&*good)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&*bad, bytes)?;
    let refused = node.skein(&["cluster", "inspect", &bad])?.refused()?;
    ensure!(refused.contains("is damaged"), "{refused}");
    let refused = node.skein(&["cluster", "restore", &good])?.refused()?;
    ensure!(refused.contains("already part of a swarm"), "{refused}");
    let refused = lab.nodes[WORKER].skein(&["cluster", "backup", &bad])?.refused()?;
    ensure!(refused.contains("exists") || refused.contains("not a swarm manager"), "{refused}");
    Ok(())
}

fn restore(lab: &mut Lab) -> Result<()> {
    let echoes = lab.running(0, "echo")?;
    let (pid, worker) = (on(&echoes, WORKER)?.pid, lab.nodes[WORKER].cluster_id()?);
    let (old, cluster) = (lab.nodes[0].cluster_id()?, swarm(lab)?);
    lab.nodes[0].kill_machine()?;
    std::fs::remove_dir_all(lab.nodes[0].data_dir())?;
    lab.nodes[0].start()?;

    let address = lab.nodes[0].address.to_string();
    let restored = |name| {
        let path = file(lab, name).to_string_lossy().into_owned();
        lab.nodes[0].skein(&["cluster", "restore", "--advertise-addr", &address, &path])
    };
    let refused = restored("damaged")?.refused()?;
    ensure!(refused.contains("is damaged"), "{refused}");
    let state = lab.nodes[0].get("/info")?["Swarm"]["LocalNodeState"].clone();
    ensure!(text(&state) == "inactive", "a refused backup left the node {state}");
    restored("backup")?.ok()?;

    ensure!(swarm(lab)? == cluster, "it is another cluster");
    let new = lab.nodes[0].cluster_id()?;
    ensure!(new != old, "a node without its key is another node");
    lab.wait_nodes_ready(2)?;
    let nodes = lab.nodes[0].get("/nodes")?;
    let ids: Vec<String> = list(&nodes).map(|node| text(&node["ID"])).collect();
    ensure!(ids.contains(&worker) && ids.contains(&new) && ids.len() == 2, "{ids:?}");
    let backends = runs_on(lab, "echo", &[0, WORKER])?;
    ensure!(on(&backends, WORKER)?.pid == pid, "the worker's task was started again");
    answers(lab, &backends)?;
    lab.nodes[0].docker(&["network", "create", "-d", "overlay", "restored"])?.ok().map(drop)
}
