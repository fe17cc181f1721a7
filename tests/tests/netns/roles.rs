//! Roles change while tasks run and their traffic continues: promotion, demotion, leader changes.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::cluster::{list, text};
use lab::scenario::Check;
use lab::scenario::calls::wait_all_answer;
use lab::scenario::restart::Traffic;
use lab::scenario::services::{make_network, probe, processes, serve as serve_program, serve_echo};
use lab::{Lab, Node};
use serde_json::Value;
use skein::key_file::KeyFile;
use skein::pki::{certificate_der, identity_of};
use skein::transport::access::Callers;

use crate::adversary::{call_all, stolen, wait_down};
use crate::stage::Stage;

const NODES: usize = 4;
/// The one that is lost before it could be promoted.
const LOST: usize = 3;
const SOON: Duration = Duration::from_secs(30);
/// Of two others, each is elected in one of two cases.
const ELECTIONS_MAX: usize = 20;

const CHECKS: &[Check] = &[
    ("services start", serve),
    ("the last manager is not demoted", last_manager),
    ("a worker that is down is not promoted", lost_worker),
    ("two workers become managers, and no packet is lost", promote_both),
    ("without the first manager the other two lead", first_manager_lost),
    ("the leader is demoted, and no packet is lost", demote_leader),
    ("it is promoted again, as another member of Raft", promote_again),
    ("a manager that was demoted while it was down steps down", demoted_meanwhile),
];

/// Goal: a role is changed without a restart, without a lost packet, and without a moment in which
/// the managers that are left have no majority. Method: docker's own client, while traffic flows.
#[test]
fn roles_change_under_traffic() {
    let mut stage = Stage::cluster("roles", NODES, 1);
    stage.check(CHECKS);
}

fn serve(lab: &mut Lab) -> Result<()> {
    // Nothing moves when one of them is lost.
    let last = lab.nodes[LOST].name.clone();
    lab.nodes[0].docker(&["node", "update", "--availability", "drain", &last])?.ok()?;
    make_network(lab)?;
    let program = [&probe(lab)?, "serve", "9"];
    serve_program(lab, "client", &["--mode", "global"], &program, NODES - 1)?;
    serve_echo(lab, NODES - 1)?;
    wait_all_answer(lab, NODES - 1, NODES - 1)
}

fn last_manager(lab: &mut Lab) -> Result<()> {
    let refused = lab.nodes[0].docker(&["node", "demote", &lab.nodes[0].name])?.refused()?;
    ensure!(refused.contains("attempting to demote the last manager of the swarm"), "{refused}");
    Ok(())
}

fn lost_worker(lab: &mut Lab) -> Result<()> {
    let (id, name) = (lab.nodes[LOST].cluster_id()?, lab.nodes[LOST].name.clone());
    lab.nodes[LOST].kill_machine()?;
    wait_down(lab, &id)?;
    let refused = lab.nodes[0].docker(&["node", "promote", &name])?.refused()?;
    ensure!(refused.contains("is down and cannot be promoted"), "{refused}");
    let listed = lab.nodes[0].get(&format!("/nodes/{name}"))?;
    ensure!(text(&listed["Spec"]["Role"]) == "worker", "{listed}");
    Ok(())
}

/// Who votes, as a manager says: (Raft id, address).
pub(crate) fn voters(asked: &Node) -> Result<Vec<(u64, String)>> {
    let told = asked.get("/skein/v1/debug/raft")?;
    let voter = |peer: &Value| Ok((peer["id"].as_u64().context("no id")?, text(&peer["address"])));
    list(&told["voters"]).map(voter).collect()
}

/// Waits until exactly these nodes are managers: they vote, all can reach them, their certificates
/// say so, and the log is on their disks. Those of the others say that they are workers, and have
/// nothing of the log.
fn managers_are(lab: &Lab, asked: usize, expected: &[usize]) -> Result<()> {
    lab.wait_for(SOON, &format!("{expected:?} to be the managers"), || {
        for (index, node) in lab.nodes.iter().enumerate().take(LOST) {
            let listed = lab.nodes[asked].get(&format!("/nodes/{}", node.name))?;
            let status = &listed["ManagerStatus"];
            let is_one = text(&status["Reachability"]) == "reachable";
            let role = if expected.contains(&index) { "manager" } else { "worker" };
            ensure!(is_one == expected.contains(&index), "{} has {status}", node.name);
            let info = node.get("/info")?["Swarm"].clone();
            ensure!(info["ControlAvailable"] == is_one, "{} says {info}", node.name);
            ensure!(text(&listed["Spec"]["Role"]) == role, "{} is to be {listed}", node.name);
            ensure!(certified(node)? == role, "{} has another certificate", node.name);
            for part in ["raft", "snapshots"] {
                let path = node.data_dir().join(part);
                ensure!(path.exists() == is_one, "{}: wrong for a {role}", path.display());
            }
        }
        let count = voters(&lab.nodes[asked])?.len();
        ensure!(count == expected.len(), "{count} vote");
        Ok(())
    })
}

fn certified(node: &Node) -> Result<&'static str> {
    let file = node.data_dir().join("certs/node.json");
    let credentials = KeyFile::at(file).load()?.context("no keys there")?;
    Ok(identity_of(&certificate_der(&credentials.certificate)?)?.role.name())
}

fn promote_both(lab: &mut Lab) -> Result<()> {
    let (before, traffic) = (processes(lab)?, Traffic::start(lab)?);
    let (second, third) = (lab.nodes[1].name.clone(), lab.nodes[2].name.clone());
    let said = lab.nodes[0].docker(&["node", "promote", &second, &third])?.ok()?;
    ensure!(said.matches("promoted to a manager in the swarm").count() == 2, "{said}");
    managers_are(lab, 0, &[0, 1, 2])?;
    let again = lab.nodes[1].docker(&["node", "promote", &second])?;
    ensure!(again.stdout.contains("is already a manager"), "{again}");
    // Each of them decides, and asks the current leader.
    for (node, network) in lab.nodes.iter().zip(["one", "two", "three"]) {
        node.docker(&["network", "create", "-d", "overlay", network])?.ok()?;
    }
    ensure!(processes(lab)? == before, "tasks were touched");
    traffic.finish()
}

fn first_manager_lost(lab: &mut Lab) -> Result<()> {
    let id = lab.nodes[0].cluster_id()?;
    lab.nodes[0].kill_daemon()?;
    lab.wait_for(SOON, "the other two to lead", || {
        let listed = lab.nodes[1].get(&format!("/nodes/{id}"))?;
        ensure!(text(&listed["Status"]["State"]) == "down", "{listed}");
        Ok(())
    })?;
    lab.nodes[2].docker(&["network", "create", "-d", "overlay", "without"])?.ok()?;
    let third = lab.nodes[2].name.clone();
    let refused = lab.nodes[1].docker(&["node", "demote", &third])?.refused()?;
    ensure!(refused.contains("this would result in a loss of quorum"), "{refused}");
    lab.nodes[0].start()?;
    managers_are(lab, 1, &[0, 1, 2])?;
    lab.wait_nodes_ready(NODES - 1)?;
    wait_all_answer(lab, NODES - 1, NODES - 1)
}

pub(crate) fn leader(lab: &Lab, asked: usize) -> Result<usize> {
    lab.wait_for(SOON, "a leader", || {
        let nodes = lab.nodes[asked].get("/nodes")?;
        let leads = list(&nodes).find(|node| node["ManagerStatus"]["Leader"] == true);
        let name = text(&leads.context("nobody leads")?["Description"]["Hostname"]);
        lab.nodes.iter().position(|node| node.name == name).context("it is not of the lab")
    })
}

/// Kills leaders until one of these managers leads, in a lab of so many nodes. Each comes back when
/// another one leads: it would be elected again before the others have given it up.
pub(crate) fn lead(
    lab: &mut Lab,
    nodes: usize,
    managers: &[usize],
    wanted: &[usize],
) -> Result<()> {
    for _ in 0..ELECTIONS_MAX {
        let leads = leader(lab, managers[0])?;
        if wanted.contains(&leads) {
            return Ok(());
        }
        let other = managers.iter().find(|index| **index != leads).context("no other manager")?;
        lab.nodes[leads].kill_daemon()?;
        leader(lab, *other)?;
        lab.nodes[leads].start()?;
        lab.wait_nodes_ready(nodes)?;
    }
    bail!("none of {wanted:?} was elected")
}

fn demote_leader(lab: &mut Lab) -> Result<()> {
    // The first one is asked everywhere: another one is to lead.
    let leads = leader(lab, 0)?;
    let demoted = if leads == 0 { leads_instead(lab)? } else { leads };
    let stays: Vec<usize> = (0..LOST).filter(|index| *index != demoted).collect();
    let (before, traffic) = (processes(lab)?, Traffic::start(lab)?);
    let name = lab.nodes[demoted].name.clone();
    // Asked of itself: it answers, and hands over then.
    lab.nodes[demoted].docker(&["node", "demote", &name])?.ok()?;
    managers_are(lab, stays[0], &stays)?;
    ensure!(processes(lab)? == before, "tasks were touched");
    traffic.finish()?;
    lab.nodes[0].docker(&["network", "create", "-d", "overlay", "demoted"])?.ok()?;
    let refused = lab.nodes[demoted].docker(&["node", "ls"])?.refused()?;
    ensure!(refused.contains("This node is not a swarm manager"), "{refused}");
    // What it has now, and what a copy of its disk had before, opens what a worker's does.
    let tls = stolen(lab, demoted)?;
    call_all(lab, &tls, 403, |callers| callers == Callers::Members)
}

/// Has another manager than the first one lead.
fn leads_instead(lab: &mut Lab) -> Result<usize> {
    lab.nodes[0].stop()?;
    lab.nodes[0].start()?;
    let leads = leader(lab, 0)?;
    ensure!(leads != 0, "it leads again");
    managers_are(lab, 0, &[0, 1, 2])?;
    Ok(leads)
}

fn raft_id(lab: &Lab, node: &Node) -> Result<u64> {
    let address = format!("{}:2377", node.address);
    let found = voters(&lab.nodes[0])?.into_iter().find(|(_, at)| *at == address);
    Ok(found.with_context(|| format!("nobody votes at {address}"))?.0)
}

/// The worker among the three.
fn demoted(lab: &Lab) -> Result<usize> {
    let voting = voters(&lab.nodes[0])?;
    let votes = |node: &Node| voting.iter().any(|(_, at)| *at == format!("{}:2377", node.address));
    lab.nodes.iter().take(LOST).position(|node| !votes(node)).context("all vote")
}

fn promote_again(lab: &mut Lab) -> Result<()> {
    let again = demoted(lab)?;
    let name = lab.nodes[again].name.clone();
    let mut ids = Vec::new();
    for _ in 0..2 {
        lab.nodes[0].skein(&["node", "promote", &name])?.ok()?;
        managers_are(lab, 0, &[0, 1, 2])?;
        ids.push(raft_id(lab, &lab.nodes[again])?);
        lab.nodes[0].skein(&["node", "demote", &name])?.ok()?;
        let stays: Vec<usize> = (0..LOST).filter(|index| *index != again).collect();
        managers_are(lab, 0, &stays)?;
    }
    ensure!(ids[0] != ids[1], "Raft id {} came again", ids[0]);
    Ok(())
}

fn demoted_meanwhile(lab: &mut Lab) -> Result<()> {
    let away = demoted(lab)?;
    let (id, name) = (lab.nodes[away].cluster_id()?, lab.nodes[away].name.clone());
    lab.nodes[0].docker(&["node", "promote", &name])?.ok()?;
    managers_are(lab, 0, &[0, 1, 2])?;
    lab.nodes[away].kill_daemon()?;
    wait_down(lab, &id)?;
    lab.nodes[0].docker(&["node", "demote", &name])?.ok()?;
    lab.wait_for(SOON, "two voters", || {
        let voting = voters(&lab.nodes[0])?;
        ensure!(voting.len() == 2, "{voting:?}");
        Ok(())
    })?;
    lab.nodes[away].start()?;
    let stays: Vec<usize> = (0..LOST).filter(|index| *index != away).collect();
    managers_are(lab, 0, &stays)?;
    lab.wait_nodes_ready(NODES - 1)?;
    wait_all_answer(lab, NODES - 1, NODES - 1)
}
