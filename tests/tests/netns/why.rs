//! `skein why`: what a service waits for, asked at any manager.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Node};
use serde_json::Value;

use lab::scenario::services::{NETWORK, make_network, serve_echo};

use crate::stage::Stage;

const SOON: Duration = Duration::from_secs(15);
/// The worker, whose kernel the others wait for.
const WORKER: usize = 2;

/// Goal: what waits says for what, in the planners' own words and with the leader's knowledge of
/// the nodes. Method: services that cannot become what they should be, one after the other.
#[test]
fn what_waits_says_why() {
    let mut stage = Stage::cluster("why", 3, 2);
    stage.check(&[
        ("a service that runs waits for nothing", nothing_waits),
        ("a constraint that no node meets", no_node),
        ("a restart delay, and how the last task ended", restart_delay),
        ("what is not there is not found", not_found),
        ("a stopping task waits for the kernel of another node", stopping),
        ("without a leader nobody knows", no_leader),
    ]);
}

/// What both managers print: one of them asks the other.
fn why(lab: &Lab, service: &str) -> Result<[String; 2]> {
    let told = |node: &Node| node.skein(&["why", service])?.ok();
    Ok([told(&lab.nodes[0])?, told(&lab.nodes[1])?])
}

fn nothing_waits(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    serve_echo(lab, 3)?;
    let told = lab.wait_for(SOON, "nothing to wait", || {
        let told = why(lab, "echo")?;
        ensure!(told[0].contains("nothing waits"), "{told:?}");
        Ok(told)
    })?;
    let expected = "echo: 3 tasks run, and nothing waits";
    ensure!(told == [expected, expected], "{told:?}");
    Ok(())
}

fn no_node(lab: &mut Lab) -> Result<()> {
    let constraint = "node.labels.disk==ssd";
    lab.create_service(0, &["--name", "picky", "--constraint", constraint, "host", "true"])?;
    let task = lab.all_tasks(0, "picky")?.into_iter().next().context("no task")?;
    for told in why(lab, "picky")? {
        let line = format!(
            "picky.1.{} pending: no suitable node: constraint {constraint} is not met: 3 nodes, \
             such as ",
            task.id
        );
        ensure!(told.starts_with("picky: 0 tasks run\n") && told.contains(&line), "{told}");
    }
    let json = lab.nodes[1].skein(&["why", "--json", &task.id])?.ok()?;
    let why: Value = serde_json::from_str(&json)?;
    let reason = &why["waiting"][0]["reasons"][0];
    ensure!(reason["cause"] == "no-node" && reason["nodes"][0]["nodes"] == 3, "{why}");
    lab.nodes[0].docker(&["service", "rm", "picky"])?.ok()?;
    Ok(())
}

fn restart_delay(lab: &mut Lab) -> Result<()> {
    let flags = ["--name", "fragile", "--restart-delay", "10m"];
    lab.create_service(0, &[flags.as_slice(), &["host", "sh", "-c", "exit 3"]].concat())?;
    lab.wait_for(SOON, "the first task to end", || {
        let told = why(lab, "fragile")?;
        for told in &told {
            let delay = told.contains("its restart delay: 9 min 5");
            ensure!(delay && told.contains("failed (task: non-zero exit (3))"), "{told:?}");
        }
        Ok(())
    })?;
    lab.nodes[0].docker(&["service", "rm", "fragile"])?.ok()?;
    Ok(())
}

fn not_found(lab: &mut Lab) -> Result<()> {
    for node in [&lab.nodes[0], &lab.nodes[1]] {
        let refusal = node.skein(&["why", "nothing"])?.refused()?;
        ensure!(refusal.contains("service nothing not found"), "{refusal}");
        let answer = node.request("GET", "/skein/v1/why?service=nothing", &Value::Null)?;
        ensure!(answer.status == 404, "{answer:?}");
    }
    let answer = lab.nodes[0].request("GET", "/skein/v1/why", &Value::Null)?;
    ensure!(answer.status == 400 && answer.message().contains("service"), "{answer:?}");
    let refusal = lab.nodes[WORKER].skein(&["why", "echo"])?.refused()?;
    ensure!(refusal.contains("not a swarm manager"), "{refusal}");
    Ok(())
}

/// The worker's daemon restarts, and keeps its lease meanwhile (`RESTART_LEASE`, longer than
/// `SOON`).
fn stopping(lab: &mut Lab) -> Result<()> {
    let worker = lab.nodes[WORKER].get("/info")?["Name"].clone();
    let worker = worker.as_str().context("no name")?;
    let waits = format!("it may stop when these nodes send it no more connections: {worker}\n");
    lab.nodes[WORKER].stop()?;
    lab.nodes[0].docker(&["service", "rm", "echo"])?.ok()?;
    lab.nodes[0].docker(&["network", "rm", NETWORK])?.ok()?;
    let seen = lab.wait_for(SOON, "the other nodes to follow", || {
        for (name, tasks) in [("echo", "tasks"), (NETWORK, "tasks on it")] {
            for told in why(lab, name)? {
                let removed = format!("{name}: it is being removed: 3 {tasks} have yet to end");
                let waiting = format!("{told}\n").matches(&waits).count();
                ensure!(told.contains(&removed) && waiting == 3, "{told}");
            }
        }
        Ok(())
    });
    lab.nodes[WORKER].start()?;
    seen?;
    lab.wait_for(SOON, "the service to go", || {
        let refusal = lab.nodes[0].skein(&["why", "echo"])?.refused()?;
        ensure!(refusal.contains("service echo not found"), "{refusal}");
        Ok(())
    })
}

fn no_leader(lab: &mut Lab) -> Result<()> {
    lab.create_service(0, &["--name", "last", "host", "sleep", "1000"])?;
    lab.nodes[1].kill_daemon()?;
    lab.wait_for(SOON, "a manager to know that it has no majority", || {
        let answer = lab.nodes[0].request("GET", "/skein/v1/why?service=last", &Value::Null)?;
        let no_leader = answer.message().contains("does not have a leader");
        ensure!(answer.status == 503 && no_leader, "{answer:?}");
        Ok(())
    })
}
