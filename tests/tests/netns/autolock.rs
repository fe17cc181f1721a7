//! Managers with sealed keys: a stolen disk reveals nothing, and a restart needs the unlock key.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use lab::Lab;
use lab::cluster::{CONVERGE_MAX, text};
use lab::scenario::Check;
use lab::scenario::calls::{ask, wait_all_answer};
use lab::scenario::services::{NETWORK, make_network, processes, serve_client_and_echo};

use crate::stage::Stage;

const NODES: usize = 4;
/// The only worker.
const WORKER: usize = 3;
const LOCKED: &str = "needs to be unlocked before it can be used";

const CHECKS: &[Check] = &[
    ("a cluster is founded with autolock, and gives its key", found),
    ("a node whose clock is far off is told so, and joins with a right one", clock),
    ("every manager's keys are sealed, and workers' are not", sealed),
    ("services start", services),
    ("a manager that restarts is locked, its traffic goes on", restart),
    ("only the unlock key opens it", unlock),
    ("a rotated key is the only one", rotate),
    ("without autolock a manager comes back by itself", off),
];

/// Goal: what docker promises of `--autolock`. Method: docker's own commands, and the files.
#[test]
fn a_locked_manager_needs_its_key() {
    let mut stage = Stage::empty("autolock", NODES);
    stage.check(CHECKS);
}

fn found(lab: &mut Lab) -> Result<()> {
    lab.start_all()?;
    let address = lab.nodes[0].address.to_string();
    let words = ["swarm", "init", "--autolock", "--advertise-addr", &address];
    let said = lab.nodes[0].docker(&words)?.ok()?;
    ensure!(said.contains("SWMKEY-1-"), "{said}");
    lab.join(1, "manager")?;
    lab.join(2, "manager")?;
    lab.wait_nodes_ready(NODES - 1)?;
    ensure!(said.contains(&key(lab)?), "another key: {said}");
    let spec = lab.nodes[0].get("/swarm")?["Spec"]["EncryptionConfig"].clone();
    ensure!(spec["AutoLockManagers"] == true, "{spec}");
    Ok(())
}

fn clock(lab: &mut Lab) -> Result<()> {
    lab.nodes[WORKER].set_days_ahead(200)?;
    lab.nodes[WORKER].stop()?;
    lab.nodes[WORKER].start()?;
    let token = lab.nodes[0].docker(&["swarm", "join-token", "-q", "worker"])?.ok()?;
    let to = format!("{}:2377", lab.nodes[0].address);
    let own = lab.nodes[WORKER].address.to_string();
    let words = ["swarm", "join", "--advertise-addr", &own, "--token", &token, &to];
    let refused = lab.nodes[WORKER].docker(&words)?.refused()?;
    ensure!(refused.contains("set this node's clock"), "{refused}");
    lab.nodes[WORKER].set_days_ahead(0)?;
    lab.nodes[WORKER].stop()?;
    lab.nodes[WORKER].start()?;
    lab.join(WORKER, "worker")?;
    lab.wait_nodes_ready(NODES)
}

fn key(lab: &Lab) -> Result<String> {
    let key = text(&lab.nodes[0].get("/swarm/unlockkey")?["UnlockKey"]);
    ensure!(key.starts_with("SWMKEY-1-"), "{key:?}");
    Ok(key)
}

/// Whether any file below holds some text.
fn holds(folder: &Path, needle: &str) -> Result<bool> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let found = if kind.is_dir() {
            holds(&entry.path(), needle)?
        } else if kind.is_symlink() {
            // What it leads to is met by itself, or is not in the folder.
            false
        } else {
            let bytes = fs::read(entry.path())?;
            bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

fn sealed(lab: &mut Lab) -> Result<()> {
    for index in 0..NODES {
        let is_clear = index == WORKER;
        let dir = lab.nodes[index].data_dir();
        lab.wait_for(CONVERGE_MAX, "the keys to be as they should", || {
            let found = holds(&dir, "PRIVATE KEY")?;
            ensure!(found == is_clear, "node {index} has a key in clear: {found}");
            Ok(())
        })?;
        ensure!(!holds(&dir, "SWMTKN")? && !holds(&dir, "SWMKEY")?, "a token or key is in clear");
    }
    Ok(())
}

fn services(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    serve_client_and_echo(lab)
}

fn is_locked(lab: &Lab, index: usize) -> Result<()> {
    let state = text(&lab.nodes[index].get("/info")?["Swarm"]["LocalNodeState"]);
    ensure!(state == "locked", "it is {state}");
    for words in [["node", "ls"], ["swarm", "leave"]] {
        let refused = lab.nodes[index].docker(&words)?.refused()?;
        ensure!(refused.contains(LOCKED), "{refused}");
    }
    Ok(())
}

fn start_locked(lab: &mut Lab, index: usize) -> Result<()> {
    lab.nodes[index].kill_daemon()?;
    lab.nodes[index].spawn()?;
    lab.wait_for(CONVERGE_MAX, "the daemon to say that it is locked", || is_locked(lab, index))
}

fn restart(lab: &mut Lab) -> Result<()> {
    let (clients, backends) = (lab.running(0, "client")?, lab.running(0, "echo")?);
    let before = processes(lab)?;
    start_locked(lab, 1)?;
    ensure!(processes(lab)? == before, "tasks were touched");
    for client in &clients {
        for backend in &backends {
            let told = ask(lab, client, "tcp", &format!("{}:7000", backend.address(NETWORK)?), 2)?;
            ensure!(told.len() == 2, "{told:?}");
        }
    }
    Ok(())
}

/// By docker's client, and with `skein` by Skein's.
fn give(lab: &Lab, index: usize, client: &str, key: &str) -> Result<lab::command::Output> {
    let (node, address) = (&lab.nodes[index], lab.nodes[index].url());
    let client = if client == "skein" { node.program("skein")? } else { client.to_owned() };
    let line = format!("printf '%s\\n' '{key}' | {client} -H {address} swarm unlock");
    node.run(30, &["sh", "-c", &line])
}

fn unlock(lab: &mut Lab) -> Result<()> {
    let key = key(lab)?;
    let wrong = "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for wrong in [wrong, "SWMKEY-1-short", &key[..20]] {
        for client in ["docker", "skein"] {
            let refused = give(lab, 1, client, wrong)?.refused()?;
            ensure!(refused.contains("invalid key provided"), "{client}, {wrong}: {refused}");
        }
        is_locked(lab, 1)?;
    }
    let before = processes(lab)?;
    give(lab, 1, "docker", &key)?.ok()?;
    lab.nodes[1].wait_ready()?;
    lab.wait_nodes_ready(NODES)?;
    ensure!(processes(lab)? == before, "tasks were touched");
    let refused = give(lab, 1, "docker", &key)?.refused()?;
    ensure!(refused.contains("not locked"), "{refused}");
    wait_all_answer(lab, NODES, 3)
}

fn rotate(lab: &mut Lab) -> Result<()> {
    let old = key(lab)?;
    let said = lab.nodes[0].docker(&["swarm", "unlock-key", "--rotate"])?.ok()?;
    let new = key(lab)?;
    ensure!(old != new && said.contains(&new), "{said}");
    // What the file is sealed with only a start tells.
    let file = lab.nodes[1].data_dir().join("certs/node.json");
    let before = fs::read(&file)?;
    let rotated = lab.nodes[0].skein(&["swarm", "unlock-key", "--rotate", "-q"])?.ok()?;
    let newest = key(lab)?;
    ensure!(rotated.trim() == newest, "{rotated}");
    lab.wait_for(CONVERGE_MAX, "the other manager to seal its keys again", || {
        match fs::read(&file)? == before {
            true => bail!("they are as before"),
            false => Ok(()),
        }
    })?;
    start_locked(lab, 1)?;
    for gone in [old, new] {
        let refused = give(lab, 1, "skein", &gone)?.refused()?;
        ensure!(refused.contains("invalid key provided"), "{refused}");
    }
    give(lab, 1, "skein", &newest)?.ok()?;
    lab.wait_nodes_ready(NODES)
}

fn off(lab: &mut Lab) -> Result<()> {
    let told = lab.nodes[0].skein(&["swarm", "unlock-key"])?.ok()?;
    ensure!(told.contains(&key(lab)?), "{told}");
    lab.nodes[0].skein(&["swarm", "update", "--autolock=false"])?.ok()?;
    let none = lab.nodes[0].skein(&["swarm", "unlock-key"])?.refused()?;
    ensure!(none.contains("no unlock key is set"), "{none}");
    let none = lab.nodes[0].get("/swarm/unlockkey")?;
    ensure!(text(&none["UnlockKey"]).is_empty(), "{none}");
    let dir = lab.nodes[1].data_dir();
    lab.wait_for(CONVERGE_MAX, "the keys to be in clear", || {
        ensure!(holds(&dir, "PRIVATE KEY")?, "they are sealed");
        Ok(())
    })?;
    lab.nodes[1].kill_daemon()?;
    lab.nodes[1].start()?;
    lab.wait_nodes_ready(NODES)
}
