//! Published ports: every node answers, and the task sees who called.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::Scenario;
use super::calls::{
    CALLS, ProbeReply, ask_outside, ensure_all_answer, ensure_fragments, read_replies,
};
use super::services::{hostname, make_network, probe, serve, serve_redis};
use crate::Lab;
use crate::cluster::Task;

const PUBLISHED: u16 = 8080;
/// Outside of the ports that the kernel gives to calls by itself (from 32768 on), one of which an
/// earlier call may still hold.
const FROM_PORT: &str = "20000";
const SOON: Duration = Duration::from_secs(20);

/// Goal: a published port answers on all nodes and keeps the client's address. Method: an outside
/// host calls nodes with and without a task; then nodes call themselves.
pub const SCENARIO: Scenario = Scenario {
    name: "ingress",
    nodes: 3,
    managers: 1,
    checks: &[
        ("a network is made", make_network),
        ("one task is published", publish),
        ("every node answers by TCP and sees the client", |lab| outside(lab, "tcp")),
        ("every node answers by UDP and sees the client", |lab| outside(lab, "udp")),
        ("one client port works towards two nodes at once", one_client_port),
        ("datagrams that fragment come through", fragments),
        ("loopback and own address work on every node", from_the_node),
        ("two tasks share the load", two_tasks),
        ("the demo's front counts votes and tells the client", front_counts),
        ("an unpublished port is closed", unpublish),
    ],
};

fn publish(lab: &mut Lab) -> Result<()> {
    let tcp = format!("published={PUBLISHED},target=80");
    let udp = format!("published={PUBLISHED},target=80,protocol=udp");
    let flags = ["--publish", &tcp, "--publish", &udp, "--replicas", "1"];
    serve(lab, "web", &flags, &[&probe(lab)?, "serve", "80"], 1)?;
    lab.wait_for(SOON, "every node to answer", || {
        for index in 0..lab.nodes.len() {
            call(lab, index, "tcp", 1)?;
        }
        Ok(())
    })
}

/// Calls the published port of a node from the outside host.
fn call(lab: &Lab, node: usize, protocol: &str, times: usize) -> Result<Vec<ProbeReply>> {
    let to = format!("{}:{PUBLISHED}", lab.nodes[node].address);
    ask_outside(lab, protocol, &to, &[&times.to_string()])
}

fn outside(lab: &mut Lab, protocol: &str) -> Result<()> {
    let task = lab.wait_running(0, "web", 1)?.remove(0);
    let client = lab.client_address().to_string();
    for index in 0..lab.nodes.len() {
        let told = call(lab, index, protocol, 20)?;
        for told in told {
            let place = if task.node == index { "with" } else { "without" };
            ensure!(
                told.server == hostname(&task) && told.client == client,
                "node{} {place} a task: {told:?}, the client is {client}",
                index + 1
            );
        }
    }
    Ok(())
}

/// Without a port per node these two flows would be one, and the second would hang.
fn one_client_port(lab: &mut Lab) -> Result<()> {
    for (index, protocol) in [(0, "tcp"), (1, "tcp"), (2, "tcp"), (0, "udp"), (1, "udp")] {
        let to = format!("{}:{PUBLISHED}", lab.nodes[index].address);
        let told = ask_outside(lab, protocol, &to, &["1", FROM_PORT])?;
        ensure!(told[0].client == lab.client_address().to_string(), "{told:?}");
    }
    Ok(())
}

fn fragments(lab: &mut Lab) -> Result<()> {
    for node in &lab.nodes {
        let to = format!("{}:{PUBLISHED}", node.address);
        ensure_fragments(|rest| ask_outside(lab, "udp", &to, rest))?;
    }
    Ok(())
}

fn from_the_node(lab: &mut Lab) -> Result<()> {
    let server = hostname(&lab.running(0, "web")?[0]);
    let probe = probe(lab)?;
    let mut complaints = Vec::new();
    for node in &lab.nodes {
        for address in ["127.0.0.1".to_owned(), node.address.to_string()] {
            for protocol in ["tcp", "udp"] {
                let to = format!("{address}:{PUBLISHED}");
                let output = node.run(20, &[&probe, "ask", protocol, &to, "3"])?;
                let served = output.ok().and_then(|text| read_replies(&text));
                if !served.is_ok_and(|told| told.iter().all(|told| told.server == server)) {
                    complaints.push(format!("{} to {to} by {protocol}: {output}", node.name));
                }
            }
        }
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

fn two_tasks(lab: &mut Lab) -> Result<()> {
    lab.nodes[0].docker(&["service", "scale", "-d", "web=2"])?.ok()?;
    let tasks = lab.wait_running(0, "web", 2)?;
    lab.wait_for(SOON, "both tasks to answer through every node", || {
        for index in 0..lab.nodes.len() {
            let told = call(lab, index, "tcp", CALLS)?;
            ensure_all_answer(&told, &tasks)?;
        }
        Ok(())
    })
}

fn front_counts(lab: &mut Lab) -> Result<()> {
    serve_redis(lab)?;
    let program = lab.program("skein-demo-vote")?;
    let front: Vec<Task> = serve(lab, "front", &["-p", "3000:80"], &[&program], 1)?;
    let mut votes = 0;
    for node in &lab.nodes {
        let url = format!("http://{}:3000/vote?for=cats", node.address);
        let answer = lab.wait_for(SOON, "the front to count", || {
            lab.client_run(10, &["curl", "-sf", "--max-time", "5", &url])?.ok()
        })?;
        votes += 1;
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        ensure!(answer["client"] == lab.client_address().to_string(), "{answer}");
        ensure!(answer["task"] == hostname(&front[0]), "{answer}");
        ensure!(answer["votes"]["cats"].as_u64() >= Some(votes), "{answer}");
    }
    Ok(())
}

fn unpublish(lab: &mut Lab) -> Result<()> {
    let words = ["service", "update", "-d", "--publish-rm", "80/tcp", "web"];
    lab.nodes[0].docker(&words)?.ok()?;
    let probe = lab.client_program("skein-lab-probe")?;
    lab.wait_for(SOON, "the port to be closed on every node", || {
        for node in &lab.nodes {
            let to = format!("{}:{PUBLISHED}", node.address);
            if lab.client_run(10, &[&probe, "ask", "tcp", &to])?.status == 0 {
                bail!("{} still answers", node.name);
            }
        }
        Ok(())
    })
}
