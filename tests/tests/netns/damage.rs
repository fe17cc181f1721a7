//! A manager whose disk lost data: it serves nothing and does not vote, names the file and the
//! command that helps, and gets everything again from the other managers.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use lab::Lab;
use lab::cluster::{CONVERGE_MAX, list, text};
use lab::command::Output;
use lab::scenario::Check;
use lab::scenario::calls::wait_all_answer;
use lab::scenario::services::{make_network, processes, serve_client_and_echo};
use lab::wait::wait_for;
use serde_json::Value;

use crate::stage::Stage;

const NODES: usize = 3;
/// The one whose disk fails.
const HURT: usize = 2;

const CHECKS: &[Check] = &[
    ("a network is made", make_network),
    ("services start", serve_client_and_echo),
    ("a manager whose log is gone refuses to start", gone),
    ("one whose files changed refuses too", changed),
    ("a manager that runs is not wiped", running),
    ("wiped by one command it votes again, its tasks untouched", rejoin),
    ("wiped without a majority of the others it waits", waits),
];

/// Goal: what a manager acknowledged it has, or it does not count. Method: its files are removed
/// and changed while its daemon is dead, then the documented command.
#[test]
fn a_damaged_manager_does_not_vote_and_comes_back_whole() {
    let mut stage = Stage::cluster("damage", NODES, NODES);
    stage.check(CHECKS);
}

fn raft_file(lab: &Lab, name: &str) -> PathBuf {
    lab.nodes[HURT].data_dir().join("raft").join(name)
}

/// Starts the daemon and waits until it has ended; what it said last.
fn refuses(lab: &mut Lab) -> Result<String> {
    lab.nodes[HURT].spawn()?;
    let node = &mut lab.nodes[HURT];
    wait_for(CONVERGE_MAX, "the daemon to end", || {
        ensure!(!node.is_running()?, "it runs");
        Ok(())
    })?;
    Ok(node.log_tail())
}

fn ensure_named(said: &str, file: &str, what: &str) -> Result<()> {
    for words in [file, what, "skein cluster rejoin --data-dir"] {
        ensure!(said.contains(words), "{words:?} is not in: {said}");
    }
    Ok(())
}

fn gone(lab: &mut Lab) -> Result<()> {
    let before = processes(lab)?;
    lab.nodes[HURT].kill_daemon()?;
    let (log, kept) = (raft_file(lab, "log.redb"), raft_file(lab, "log.kept"));
    fs::rename(&log, &kept)?;
    let said = refuses(lab)?;
    ensure_named(&said, "raft/log.redb", "is gone")?;
    ensure!(!log.exists(), "a log was made");
    fs::rename(&kept, &log)?;
    lab.nodes[HURT].start()?;
    lab.wait_nodes_ready(NODES)?;
    ensure!(processes(lab)? == before, "tasks were touched");
    Ok(())
}

fn changed(lab: &mut Lab) -> Result<()> {
    lab.nodes[HURT].kill_daemon()?;
    for name in ["log.mark", "log.redb"] {
        let file = raft_file(lab, name);
        let whole = fs::read(&file)?;
        let mut bytes = whole.clone();
        // The mark is all seal; of the log every page after the first is taken.
        let step = if name == "log.mark" { bytes.len() } else { 4096 };
        for at in (step / 2..bytes.len()).step_by(step) {
            bytes[at] ^= 0x10;
        }
        fs::write(&file, bytes)?;
        ensure_named(&refuses(lab)?, name, "is damaged")?;
        fs::write(&file, whole)?;
    }
    Ok(())
}

fn wipe(lab: &Lab) -> Result<Output> {
    let dir = lab.nodes[HURT].data_dir();
    lab.nodes[HURT].skein(&["cluster", "rejoin", "--data-dir", &dir.to_string_lossy()])
}

fn running(lab: &mut Lab) -> Result<()> {
    lab.nodes[HURT].start()?;
    let refused = wipe(lab)?.refused()?;
    ensure!(refused.contains("in use by another daemon"), "{refused}");
    lab.nodes[HURT].kill_daemon()
}

fn raft_ids(lab: &Lab) -> Result<Vec<String>> {
    let told = lab.nodes[0].get("/skein/v1/debug/raft")?;
    Ok(list(&told["voters"]).map(|voter| Value::to_string(&voter["id"])).collect())
}

/// Waits until all three vote, none of them under the given id.
fn votes_again(lab: &Lab, old: &[String]) -> Result<()> {
    lab.wait_for(CONVERGE_MAX, "the wiped manager to vote again", || {
        let ids = raft_ids(lab)?;
        let new = ids.iter().filter(|id| !old.contains(id)).count();
        ensure!((ids.len(), new) == (NODES, 1), "{ids:?}, before {old:?}");
        let id = lab.nodes[HURT].cluster_id()?;
        let node = lab.nodes[0].get(&format!("/nodes/{id}"))?;
        let reached = text(&node["ManagerStatus"]["Reachability"]);
        ensure!(reached == "reachable", "{node}");
        Ok(())
    })
}

fn rejoin(lab: &mut Lab) -> Result<()> {
    let (before, old) = (processes(lab)?, raft_ids(lab)?);
    let id = lab.nodes[0].get("/nodes")?;
    fs::remove_file(raft_file(lab, "log.redb"))?;
    wipe(lab)?.ok()?;
    lab.nodes[HURT].start()?;
    votes_again(lab, &old)?;
    lab.wait_nodes_ready(NODES)?;
    ensure!(list(&lab.nodes[0].get("/nodes")?).count() == list(&id).count(), "another node");
    ensure!(processes(lab)? == before, "tasks were touched");
    // It has everything: it answers reads and writes by itself.
    lab.nodes[HURT].docker(&["network", "create", "-d", "overlay", "again"])?.ok()?;
    wait_all_answer(lab, NODES, NODES)
}

fn waits(lab: &mut Lab) -> Result<()> {
    let old = raft_ids(lab)?;
    lab.nodes[HURT].kill_daemon()?;
    lab.nodes[1].kill_daemon()?;
    wipe(lab)?.ok()?;
    lab.nodes[HURT].start()?;
    lab.wait_for(CONVERGE_MAX, "it to say what it waits for", || {
        let log = lab.nodes[HURT].log();
        ensure!(log.contains("get the log of the managers again"), "{log}");
        Ok(())
    })?;
    lab.nodes[1].start()?;
    votes_again(lab, &old)
}
