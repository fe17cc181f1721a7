//! A manager whose state differs from the others' is found by itself, named on every manager, and
//! repaired by the documented command.

use std::fs;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cluster::codec::{decode_transaction, encode_transaction};
use cluster::state::State;
use cluster::transaction::{Change, Object};
use lab::Lab;
use lab::cluster::text;
use lab::command::Output;
use lab::scenario::Check;
use raft_store::{Machine, Peer, Presence, SnapshotContent, Storage, found, replay};
use serde_json::Value;
use skein::key_file::KeyFile;
use skein::machine::StateMachine;
use skein::manager::agreement::History;

use crate::roles::{leader, voters};
use crate::stage::Stage;

const NODES: usize = 3;
/// The name that an object has on two managers, and on the third.
const NAME: &str = "whole";
const OTHER_NAME: &str = "torn";
/// Managers compare their states every 10 s, and a call takes at most 3 s.
const NOTICE_MAX: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(30);

const CHECKS: &[Check] = &[
    ("managers with one state say nothing", agree),
    ("one whose state has another name is named, on it and on the others", differ),
    ("wiped by one command it has the others' state", repaired),
];

/// Goal: managers that hold different states at one revision say so. Method: the log of one is
/// written again while its daemon is dead, as if it had applied an entry differently.
#[test]
fn a_manager_whose_state_differs_is_named() {
    let mut stage = Stage::cluster("divergence", NODES, NODES);
    stage.check(CHECKS);
}

/// Applies the entries of a log, but for the name of one network.
struct FaultyMachine(StateMachine);

impl Machine for FaultyMachine {
    fn apply(&mut self, index: u64, payload: &[u8]) -> Result<Vec<u8>, String> {
        if payload.is_empty() {
            return self.0.apply(index, payload);
        }
        let mut transaction = decode_transaction(payload).map_err(|e| e.to_string())?;
        for change in &mut transaction.changes {
            if let Change::Put { object: Object::Network(network), .. } = change
                && network.spec.name == NAME
            {
                OTHER_NAME.clone_into(&mut Arc::make_mut(network).spec.name);
            }
        }
        self.0.apply(index, &encode_transaction(&transaction).map_err(|e| e.to_string())?)
    }

    fn snapshot(&self) -> SnapshotContent {
        self.0.snapshot()
    }

    fn restore(&mut self, index: u64, snapshot: &mut dyn Read) -> Result<(), String> {
        self.0.restore(index, snapshot)
    }
}

pub(crate) fn metric(lab: &Lab, node: usize, name: &str) -> Result<u64> {
    let metrics = text(&lab.nodes[node].get("/metrics")?);
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.with_context(|| format!("{name} is no metric"))?.parse().context("a number")
}

/// Waits until all have applied the same entries.
fn level(lab: &Lab) -> Result<()> {
    lab.wait_for(SOON, "all managers to be level", || {
        let applied = |node| metric(lab, node, "skein_raft_applied");
        let all = (0..NODES).map(applied).collect::<Result<Vec<u64>>>()?;
        ensure!(all.iter().all(|index| *index == all[0]), "{all:?}");
        Ok(())
    })
}

fn doctor(lab: &Lab, node: usize) -> Result<Output> {
    lab.nodes[node].skein(&["doctor"])
}

fn names_of_others(lab: &Lab, node: usize) -> Vec<&str> {
    let others = lab.nodes.iter().enumerate().filter(|(index, _)| *index != node);
    others.map(|(_, other)| other.name.as_str()).collect()
}

fn agree(lab: &mut Lab) -> Result<()> {
    lab.nodes[0].docker(&["network", "create", "-d", "overlay", NAME])?.ok()?;
    level(lab)?;
    for node in 0..NODES {
        ensure!(metric(lab, node, "skein_state_differing")? == 0, "node {node} sees a difference");
        let said = doctor(lab, node)?;
        ensure!(!said.stdout.contains("held another state"), "{said}");
    }
    Ok(())
}

/// Writes a manager's log again from what it holds, with a mistake in it. It was the leader: the
/// last entry is of its own term, and is in the others' logs under the same id.
fn rewrite(lab: &Lab, hurt: usize, raft_id: u64, voters: &[Peer]) -> Result<()> {
    let data = lab.nodes[hurt].data_dir();
    let key = KeyFile::at(data.join("certs/node.json")).disk_key(Presence::Existing)?;
    let aside = lab.folder().join("rewritten");
    fs::create_dir(&aside)?;
    let (publish, newest) = tokio::sync::watch::channel(Arc::<State>::default());
    let mut machine = FaultyMachine(StateMachine::new(publish, History::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let old = Storage { dir: &data, raft_id, key: &key, presence: Presence::Existing };
        let end = replay(old, &mut machine).await?;
        let new = Storage { dir: &aside, raft_id, key: &key, presence: Presence::New };
        found(new, voters, end, machine.snapshot()).await
    })?;
    let state = newest.borrow();
    let has = |name: &str| state.live_networks().any(|network| network.spec.name == name);
    ensure!(has(OTHER_NAME) && !has(NAME), "the name was not changed");
    for part in ["raft", "snapshots"] {
        fs::remove_dir_all(data.join(part))?;
        fs::rename(aside.join(part), data.join(part))?;
    }
    Ok(())
}

/// The one that has the other name.
fn hurt(lab: &Lab) -> Result<usize> {
    for (index, node) in lab.nodes.iter().enumerate() {
        let path = format!("/networks/{OTHER_NAME}?consistency=stale");
        if node.request("GET", &path, &Value::Null)?.status == 200 {
            return Ok(index);
        }
    }
    bail!("nobody has a network {OTHER_NAME}")
}

fn differ(lab: &mut Lab) -> Result<()> {
    let hurt = leader(lab, 0)?;
    let told = lab.nodes[hurt].get("/skein/v1/debug/raft")?;
    let raft_id = told["id"].as_u64().context("no Raft id")?;
    let voting = voters(&lab.nodes[hurt])?;
    let voting = voting.into_iter().map(|(raft_id, address)| Peer { raft_id, address });
    let voting: Vec<Peer> = voting.collect();
    level(lab)?;
    lab.nodes[hurt].kill_daemon()?;
    rewrite(lab, hurt, raft_id, &voting)?;
    lab.nodes[hurt].start()?;
    lab.wait_for(NOTICE_MAX, "every manager to tell the difference", || {
        for node in 0..NODES {
            let (seen, said) = (metric(lab, node, "skein_state_differing")?, doctor(lab, node)?);
            let names: Vec<&str> = if node == hurt {
                names_of_others(lab, hurt)
            } else {
                vec![lab.nodes[hurt].name.as_str()]
            };
            ensure!(seen == names.len() as u64, "node {node} counts {seen}");
            ensure!(said.status == 1, "doctor of node {node}: {said}");
            for name in names_of_others(lab, node) {
                let line = format!("BAD  manager {name} held another state at revision");
                let is_named = said.stdout.contains(&line);
                ensure!(is_named == names.contains(&name), "doctor of node {node}: {said}");
            }
        }
        Ok(())
    })
}

fn repaired(lab: &mut Lab) -> Result<()> {
    let hurt = hurt(lab)?;
    lab.nodes[hurt].kill_daemon()?;
    let dir = lab.nodes[hurt].data_dir().to_string_lossy().into_owned();
    lab.nodes[hurt].skein(&["cluster", "rejoin", "--data-dir", &dir])?.ok()?;
    lab.nodes[hurt].start()?;
    lab.wait_for(SOON, "the difference to be gone", || {
        for node in 0..NODES {
            let seen = metric(lab, node, "skein_state_differing")?;
            ensure!(seen == 0, "node {node} counts {seen}");
            let stale = format!("/networks/{NAME}?consistency=stale");
            lab.nodes[node].get(&stale)?;
        }
        Ok(())
    })
}
