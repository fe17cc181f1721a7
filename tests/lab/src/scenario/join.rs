//! Three managers: tokens, forwarding, a lost leader, leaving and joining again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Scenario;
use super::services::{NETWORK, make_network, serve_echo};
use crate::Lab;
use crate::cluster::{list, text};

const SOON: Duration = Duration::from_secs(20);

/// Goal: any manager serves any request, one may be lost. Method: docker's client on each.
pub const SCENARIO: Scenario = Scenario {
    name: "join",
    nodes: 4,
    managers: 3,
    checks: &[
        ("roles are as joined", roles_are_as_joined),
        ("a follower forwards writes", follower_forwards),
        ("a worker refuses managers' routes", worker_refuses),
        ("a wrong token is refused", wrong_token_is_refused),
        ("a token of another cluster is refused", foreign_token_is_refused),
        ("a token that was rotated is refused", rotated_token_is_refused),
        ("a worker leaves and joins again", worker_comes_back),
        ("a lost leader is followed by another", leader_may_be_lost),
        ("a manager that leads leaves, and the others write", leader_leaves),
    ],
};

fn roles_are_as_joined(lab: &mut Lab) -> Result<()> {
    let nodes = lab.nodes[1].get("/nodes")?;
    let mut roles: Vec<_> = list(&nodes).map(|node| text(&node["Spec"]["Role"])).collect();
    roles.sort();
    ensure!(roles == ["manager", "manager", "manager", "worker"], "{roles:?}");
    let leaders = list(&nodes).filter(|node| node["ManagerStatus"]["Leader"] == json!(true));
    ensure!(leaders.count() == 1, "not one leader: {nodes}");
    Ok(())
}

/// Index of the manager that leads, as the asked node tells it.
pub(super) fn leader(lab: &Lab, asked: usize) -> Result<usize> {
    let nodes = lab.nodes[asked].get("/nodes")?;
    let leads = |node: &&Value| {
        node["ManagerStatus"]["Leader"] == json!(true)
            && text(&node["ManagerStatus"]["Reachability"]) == "reachable"
    };
    let found = list(&nodes).find(leads).context("nobody leads")?;
    let name = text(&found["Description"]["Hostname"]);
    lab.nodes.iter().position(|node| node.name == name).context("the leader is not in the lab")
}

fn follower_forwards(lab: &mut Lab) -> Result<()> {
    let leads = leader(lab, 0)?;
    let follower = (0..3).find(|index| *index != leads).context("a follower")?;
    let words = ["network", "create", "-d", "overlay", "by-follower"];
    lab.nodes[follower].docker(&words)?.ok()?;
    // Reads are linearizable: the next manager that is asked knows of the write.
    for index in 0..3 {
        lab.nodes[index].docker(&["network", "inspect", "by-follower"])?.ok()?;
    }
    lab.nodes[follower].docker(&["network", "rm", "by-follower"])?.ok()?;
    Ok(())
}

fn worker_refuses(lab: &mut Lab) -> Result<()> {
    let answer = lab.nodes[3].request("GET", "/services", &Value::Null)?;
    ensure!(answer.status == 503, "{answer:?}");
    ensure!(answer.message().contains("Worker nodes can't be used"), "{answer:?}");
    Ok(())
}

/// Takes the worker out of the cluster, from both sides.
fn leave(lab: &Lab) -> Result<()> {
    let id = lab.nodes[3].cluster_id()?;
    lab.nodes[3].docker(&["swarm", "leave"])?.ok()?;
    lab.wait_for(SOON, "the node to be listed as gone", || {
        let state = text(&lab.nodes[0].get(&format!("/nodes/{id}"))?["Status"]["State"]);
        ensure!(state == "down", "it is {state}");
        Ok(())
    })?;
    lab.nodes[0].docker(&["node", "rm", &id])?.ok()?;
    Ok(())
}

/// Tries to join with a token, which must be refused without a trace.
fn refuse_token(lab: &Lab, token: &str) -> Result<String> {
    let manager = format!("{}:2377", lab.nodes[0].address);
    let words = ["swarm", "join", "--token", token, &manager];
    let refusal = lab.nodes[3].docker(&words)?.refused()?;
    let state = lab.nodes[3].get("/info")?["Swarm"]["LocalNodeState"].clone();
    ensure!(state == "inactive", "after the refusal the node is {state}");
    let nodes = list(&lab.nodes[0].get("/nodes")?).count();
    ensure!(nodes == 3, "{nodes} nodes are listed");
    Ok(refusal)
}

fn token(lab: &Lab, role: &str) -> Result<String> {
    lab.nodes[0].docker(&["swarm", "join-token", "-q", role])?.ok()
}

fn wrong_token_is_refused(lab: &mut Lab) -> Result<()> {
    leave(lab)?;
    let good = token(lab, "worker")?;
    ensure!(good.starts_with("SWMTKN-1-"), "{good}");
    let (rest, _secret) = good.rsplit_once('-').context("a token has parts")?;
    let refusal = refuse_token(lab, &format!("{rest}-{}", "0".repeat(25)))?;
    ensure!(refusal.to_lowercase().contains("token"), "{refusal}");
    let refusal = refuse_token(lab, "nonsense")?;
    ensure!(refusal.to_lowercase().contains("token"), "{refusal}");
    Ok(())
}

fn foreign_token_is_refused(lab: &mut Lab) -> Result<()> {
    let good = token(lab, "worker")?;
    let parts: Vec<_> = good.split('-').collect();
    ensure!(parts.len() == 4, "{good}");
    let digest = format!("{}{}", "1".repeat(8), &parts[2][8..]);
    let refusal = refuse_token(lab, &format!("SWMTKN-1-{digest}-{}", parts[3]))?;
    ensure!(refusal.contains("CA") || refusal.contains("certificate"), "{refusal}");
    Ok(())
}

fn rotated_token_is_refused(lab: &mut Lab) -> Result<()> {
    let old = token(lab, "worker")?;
    let new = lab.nodes[0].docker(&["swarm", "join-token", "-q", "--rotate", "worker"])?.ok()?;
    ensure!(new != old, "the token is the same");
    refuse_token(lab, &old)?;
    Ok(())
}

fn worker_comes_back(lab: &mut Lab) -> Result<()> {
    lab.join(3, "worker")?;
    lab.wait_nodes_ready(4)
}

fn leader_may_be_lost(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    serve_echo(lab, 4)?;
    let leads = leader(lab, 0)?;
    let asked = (0..3).find(|index| *index != leads).context("a follower")?;
    lab.nodes[leads].kill_daemon()?;
    let next = lab.wait_for(SOON, "another leader", || {
        let next = leader(lab, asked)?;
        ensure!(next != leads, "node{} still leads", leads + 1);
        Ok(next)
    })?;
    lab.nodes[next].docker(&["service", "scale", "-d", "echo=5"])?.ok()?;
    lab.wait_running(next, "echo", 5)?;
    lab.nodes[next].docker(&["network", "inspect", NETWORK])?.ok()?;
    lab.nodes[leads].start()?;
    lab.wait_for(SOON, "the old leader to serve again", || {
        lab.nodes[leads].docker(&["service", "ls"])?.ok()
    })?;
    Ok(())
}

/// The two that are left are all that vote: either of them needs nobody who is gone.
fn leader_leaves(lab: &mut Lab) -> Result<()> {
    let leads = leader(lab, 0)?;
    lab.nodes[leads].docker(&["swarm", "leave", "--force"])?.ok()?;
    let asked = (0..3).find(|index| *index != leads).context("another manager")?;
    lab.wait_for(SOON, "two voters", || {
        let told = lab.nodes[asked].get("/skein/v1/debug/raft")?;
        ensure!(list(&told["voters"]).count() == 2, "{told}");
        Ok(())
    })?;
    let words = ["network", "create", "-d", "overlay", "after-leave"];
    lab.nodes[asked].docker(&words)?.ok()?;
    Ok(())
}
