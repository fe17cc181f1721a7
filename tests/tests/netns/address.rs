//! Nodes whose addresses no longer exist on their machines: the key is the identity, the address
//! only an attribute.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::Lab;
use lab::cluster::text;
use lab::scenario::Check;
use lab::scenario::calls::wait_all_answer;
use lab::scenario::services::{make_network, serve_client, serve_echo};

use crate::roles::voters;
use crate::stage::Stage;

const NODES: usize = 2;
/// An additional address of the machine.
const BORROWED: &str = "192.168.50.212";
/// Such addresses of three nodes.
const BORROWED_BY_ALL: [&str; 3] = ["192.168.50.221", "192.168.50.222", "192.168.50.223"];
const SOON: Duration = Duration::from_secs(20);

const CHECKS: &[Check] = &[
    ("a worker joins with an address of its choice", join),
    ("services answer through it", serve),
    ("without it the worker comes back as the same node, elsewhere", lose_address),
    ("a pause that cost it its lease changes no address", pause),
];

/// Goal: a machine that gets another address needs nobody's help. Method: a worker that joined with
/// a second address, which is taken away while its daemon is dead and its tasks run.
#[test]
fn a_worker_follows_its_address() {
    let mut stage = Stage::empty("address", NODES);
    stage.check(CHECKS);
}

const MANAGERS: &[Check] = &[
    ("a cluster of one manager, at addresses of its choice", found),
    ("the only manager moves, and its workers find it", move_the_only_one),
    ("its workers become managers", promote),
    ("one manager of three is started with other flags", other_flags),
    ("the other two move at one time", move_two),
    ("of two managers the one that cannot lead moves", move_the_older),
];

/// Goal: a manager that gets another address is the same one, although the others' way to it was
/// that address. Method: second addresses, as above; each node has its own back after a move.
#[test]
fn managers_follow_their_addresses() {
    let mut stage = Stage::empty("addresses", BORROWED_BY_ALL.len());
    stage.check(MANAGERS);
}

fn ip(lab: &Lab, words: &str) -> Result<()> {
    ip_of(lab, 1, words)
}

fn ip_of(lab: &Lab, index: usize, words: &str) -> Result<()> {
    let words: Vec<&str> = ["ip"].into_iter().chain(words.split(' ')).collect();
    lab.nodes[index].run(10, &words)?.ok().map(drop)
}

fn join(lab: &mut Lab) -> Result<()> {
    ip(lab, &format!("address add {BORROWED}/24 dev eth0"))?;
    lab.start_all()?;
    let manager = lab.nodes[0].address.to_string();
    lab.nodes[0].docker(&["swarm", "init", "--advertise-addr", &manager])?.ok()?;
    let token = lab.nodes[0].docker(&["swarm", "join-token", "-q", "worker"])?.ok()?;
    let to = format!("{manager}:2377");
    let words = ["swarm", "join", "--advertise-addr", BORROWED, "--token", &token, &to];
    lab.nodes[1].docker(&words)?.ok()?;
    lab.wait_nodes_ready(NODES)?;
    is_at(lab, BORROWED)
}

/// Waits until the managers list the worker as ready at an address.
fn is_at(lab: &Lab, address: &str) -> Result<()> {
    let id = lab.nodes[1].cluster_id()?;
    lab.wait_for(SOON, &format!("the worker to be at {address}"), || {
        let status = lab.nodes[0].get(&format!("/nodes/{id}"))?["Status"].clone();
        let is_there = text(&status["State"]) == "ready" && text(&status["Addr"]) == address;
        ensure!(is_there, "{status}");
        Ok(())
    })
}

fn serve(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    serve_client(lab)?;
    serve_echo(lab, NODES)?;
    wait_all_answer(lab, NODES, NODES)
}

fn lose_address(lab: &mut Lab) -> Result<()> {
    let (id, own) = (lab.nodes[1].cluster_id()?, lab.nodes[1].address.to_string());
    lab.nodes[1].kill_daemon()?;
    ip(lab, &format!("address del {BORROWED}/24 dev eth0"))?;
    lab.nodes[1].start()?;
    ensure!(lab.nodes[1].cluster_id()? == id, "it is another node now");
    is_at(lab, &own)?;
    lab.wait_nodes_ready(NODES)?;
    wait_all_answer(lab, NODES, NODES)
}

fn found(lab: &mut Lab) -> Result<()> {
    for (index, address) in BORROWED_BY_ALL.into_iter().enumerate() {
        ip_of(lab, index, &format!("address add {address}/24 dev eth0"))?;
    }
    lab.start_all()?;
    for (index, address) in BORROWED_BY_ALL.into_iter().enumerate() {
        let words = ["--advertise-addr", address];
        if index == 0 {
            lab.nodes[0].docker(&[["swarm", "init"].as_slice(), &words].concat())?.ok()?;
            continue;
        }
        let token = lab.nodes[0].docker(&["swarm", "join-token", "-q", "worker"])?.ok()?;
        let to = format!("{}:2377", BORROWED_BY_ALL[0]);
        let rest = ["--token", &token, &to];
        lab.nodes[index].docker(&[["swarm", "join"].as_slice(), &words, &rest].concat())?.ok()?;
    }
    lab.wait_nodes_ready(3)?;
    make_network(lab)?;
    serve_client(lab)?;
    serve_echo(lab, 3)?;
    wait_all_answer(lab, 3, 3)
}

/// Takes the second addresses of nodes away while their daemons are dead, all at one time.
fn lose(lab: &mut Lab, moved: &[usize]) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for index in moved {
        ids.push(lab.nodes[*index].cluster_id()?);
        lab.nodes[*index].kill_daemon()?;
        let borrowed = BORROWED_BY_ALL[*index];
        ip_of(lab, *index, &format!("address del {borrowed}/24 dev eth0"))?;
    }
    for index in moved {
        lab.nodes[*index].start()?;
    }
    Ok(ids)
}

fn move_the_only_one(lab: &mut Lab) -> Result<()> {
    let own = lab.nodes[0].address.to_string();
    let ids = lose(lab, &[0])?;
    manager_is_at(lab, 0, &ids[0], &own, 2377)?;
    lab.wait_nodes_ready(3)?;
    wait_all_answer(lab, 3, 3)?;
    // Its workers have it in their lists, and find it again after a start of their own.
    lab.nodes[1].kill_daemon()?;
    lab.nodes[1].start()?;
    let managers = lab.nodes[1].get("/info")?["Swarm"]["RemoteManagers"].clone();
    ensure!(managers.to_string().contains(&own), "it knows {managers}");
    lab.wait_nodes_ready(3)
}

/// Waits until a manager is listed at an address, and Raft reaches it there.
fn manager_is_at(lab: &Lab, asked: usize, id: &str, ip: &str, port: u16) -> Result<()> {
    let address = format!("{ip}:{port}");
    lab.wait_for(SOON, &format!("the manager to be at {address}"), || {
        let listed = lab.nodes[asked].get(&format!("/nodes/{id}"))?;
        let (status, manager) = (&listed["Status"], &listed["ManagerStatus"]);
        let is_there = text(&status["State"]) == "ready"
            && text(&status["Addr"]) == ip
            && text(&manager["Addr"]) == address
            && text(&manager["Reachability"]) == "reachable";
        ensure!(is_there, "{listed}");
        let voting = voters(&lab.nodes[asked])?;
        let votes_there = voting.iter().any(|(_, at)| *at == address);
        ensure!(votes_there, "{voting:?}");
        Ok(())
    })
}

fn promote(lab: &mut Lab) -> Result<()> {
    let (second, third) = (lab.nodes[1].name.clone(), lab.nodes[2].name.clone());
    lab.nodes[0].docker(&["node", "promote", &second, &third])?.ok()?;
    for index in [1, 2] {
        let id = lab.nodes[index].cluster_id()?;
        manager_is_at(lab, 0, &id, BORROWED_BY_ALL[index], 2377)?;
    }
    Ok(())
}

fn other_flags(lab: &mut Lab) -> Result<()> {
    let (id, own) = (lab.nodes[0].cluster_id()?, lab.nodes[0].address.to_string());
    ip_of(lab, 0, &format!("address add {}/24 dev eth0", BORROWED_BY_ALL[0]))?;
    lab.nodes[0].stop()?;
    let listen = format!("{own}:2399");
    lab.nodes[0].set_flags(&["--data-path-addr", BORROWED_BY_ALL[0], "--listen-addr", &listen])?;
    lab.nodes[0].start()?;
    manager_is_at(lab, 1, &id, &own, 2399)?;
    let state = lab.nodes[1].get("/skein/v1/debug/state")?;
    let vtep = format!("vtep: {}", BORROWED_BY_ALL[0]);
    ensure!(text(&state).contains(&vtep), "no {vtep} in {state}");
    wait_all_answer(lab, 3, 3)
}

fn move_two(lab: &mut Lab) -> Result<()> {
    let ids = lose(lab, &[1, 2])?;
    for (id, index) in ids.iter().zip([1, 2]) {
        let own = lab.nodes[index].address.to_string();
        manager_is_at(lab, index, id, &own, 2377)?;
    }
    lab.wait_nodes_ready(3)?;
    lab.nodes[2].docker(&["network", "create", "-d", "overlay", "after"])?.ok()?;
    wait_all_answer(lab, 3, 3)
}

/// The one that stays has an entry that the other one lacks: it alone may lead, and for that it has
/// to reach the other one, whose address only a majority can record.
fn move_the_older(lab: &mut Lab) -> Result<()> {
    let third = lab.nodes[2].name.clone();
    lab.nodes[0].docker(&["node", "demote", &third])?.ok()?;
    lab.wait_for(SOON, "two voters", || {
        let voting = voters(&lab.nodes[0])?;
        ensure!(voting.len() == 2, "{voting:?}");
        let warnings = lab.nodes[0].get("/info")?["Warnings"].to_string();
        ensure!(warnings.contains("two managers"), "{warnings}");
        Ok(())
    })?;
    // It hands over where it leads.
    lab.nodes[1].stop()?;
    lab.nodes[1].start()?;
    let (id, own) = (lab.nodes[1].cluster_id()?, lab.nodes[1].address.to_string());
    manager_is_at(lab, 0, &id, &own, 2377)?;
    lab.nodes[1].kill_daemon()?;
    let refused =
        lab.nodes[0].docker(&["network", "create", "-d", "overlay", "alone"])?.refused()?;
    ensure!(refused.contains("The swarm does not have a leader"), "{refused}");
    lab.nodes[1].set_flags(&["--listen-addr", "eth0:2399"])?;
    lab.nodes[1].start()?;
    manager_is_at(lab, 0, &id, &own, 2399)?;
    lab.wait_nodes_ready(3)?;
    wait_all_answer(lab, 3, 3)
}

/// The report that ends the pause does not describe the node: the leader was told before.
fn pause(lab: &mut Lab) -> Result<()> {
    let (id, own) = (lab.nodes[1].cluster_id()?, lab.nodes[1].address.to_string());
    let state =
        |lab: &Lab| Ok(text(&lab.nodes[0].get(&format!("/nodes/{id}"))?["Status"]["State"]));
    lab.nodes[1].pause(true)?;
    let down = lab.wait_for(SOON, "the worker to be down", || {
        let state: Result<String> = state(lab);
        ensure!(state? == "down", "it is not");
        Ok(())
    });
    lab.nodes[1].pause(false)?;
    down?;
    lab.wait_nodes_ready(NODES)?;
    is_at(lab, &own)
}
