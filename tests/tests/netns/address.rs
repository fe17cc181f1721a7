//! A worker whose address is gone from its machine: its key is its identity, the address an
//! attribute.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::Lab;
use lab::cluster::text;
use lab::scenario::Check;
use lab::scenario::calls::wait_all_answer;
use lab::scenario::services::{make_network, serve_client, serve_echo};

use crate::stage::Stage;

const NODES: usize = 2;
/// An address beside the one that the lab gave the machine.
const BORROWED: &str = "192.168.50.212";
const SOON: Duration = Duration::from_secs(20);

const CHECKS: &[Check] = &[
    ("a worker joins with an address of its choice", join),
    ("services answer through it", serve),
    ("without it the worker comes back as the same node, elsewhere", lose_address),
];

/// Goal: a machine that gets another address needs nobody's help. Method: a worker that joined with
/// a second address, which is taken away while its daemon is dead and its tasks run.
#[test]
fn a_worker_follows_its_address() {
    let mut stage = Stage::empty("address", NODES);
    stage.check(CHECKS);
}

fn ip(lab: &Lab, words: &str) -> Result<()> {
    let words: Vec<&str> = ["ip"].into_iter().chain(words.split(' ')).collect();
    lab.nodes[1].run(10, &words)?.ok().map(drop)
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
