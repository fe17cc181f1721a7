//! Ports that programs of a node's host listen on are not taken over by services.

use anyhow::{Result, ensure};
use lab::Lab;
use lab::cluster::CONVERGE_MAX;
use lab::scenario::Check;
use lab::scenario::background::{Background, until_input_ends};
use lab::scenario::calls::ask_outside;
use lab::scenario::services::{hostname, make_network, probe, remove_services, serve};

use crate::stage::Stage;

const NODES: usize = 2;
/// On which a program of the second node listens.
const PORT: u16 = 8022;
const OTHER_PORT: u16 = 8023;
/// As `ps` shows the lab's server, in 15 characters (`TASK_COMM_LEN`).
const PROGRAM: &str = "skein-lab-probe";

const CHECKS: &[Check] = &[
    ("a network is made", make_network),
    ("a service leaves a program its port, and takes it when that ends", ingress),
    ("who was first keeps the port over a restart of the daemon", restart),
    ("a program that listens later is reported", later),
    ("a task in mode host goes where its port is free", host_mode),
];

/// Goal: a program of the host keeps its calls, and is named. Method: the lab's server listens on a
/// node before a service is published on its port, and after.
#[test]
fn programs_keep_their_ports() {
    let mut stage = Stage::cluster("ports", NODES, 1);
    stage.check(CHECKS);
}

/// A program that listens on the second node.
fn program(lab: &Lab, port: u16) -> Result<Background> {
    let node = &lab.nodes[1];
    let (probe, port) = (node.program("skein-lab-probe")?, port.to_string());
    let program =
        Background::start(&node.line(&until_input_ends("TERM", &[&probe, "serve", &port])))?;
    lab.wait_for(CONVERGE_MAX, "the program to listen", || {
        let shown = node.run(10, &["ss", "-Hltn"])?.ok()?;
        ensure!(shown.contains(&format!(":{port} ")), "{shown}");
        Ok(())
    })?;
    Ok(program)
}

/// The name that a program of the second node tells.
fn host(lab: &Lab) -> Result<String> {
    lab.nodes[1].run(10, &["cat", "/proc/sys/kernel/hostname"])?.ok()
}

/// Who answers on a port of a node by each protocol, by host name.
fn servers(lab: &Lab, node: usize, port: u16) -> Result<[String; 2]> {
    let to = format!("{}:{port}", lab.nodes[node].address);
    let by = |protocol: &str| ask_outside(lab, protocol, &to, &["1"]);
    Ok([by("tcp")?.remove(0).server, by("udp")?.remove(0).server])
}

/// Waits until a server answers on a port of a node.
fn answers(lab: &Lab, node: usize, port: u16, server: &str) -> Result<()> {
    lab.wait_for(CONVERGE_MAX, &format!("{server} to answer on node{}", node + 1), || {
        let told = servers(lab, node, port)?;
        ensure!(told.iter().all(|name| name == server), "it is {told:?}");
        Ok(())
    })
}

/// What doctor says of a node, and whether all is well.
fn doctor(lab: &Lab, node: usize) -> Result<(bool, String)> {
    let said = lab.nodes[node].skein(&["doctor"])?;
    Ok((said.status == 0, said.to_string()))
}

/// Waits until doctor on the second node names a program in a line with these words, or nothing.
fn doctor_names(lab: &Lab, words: Option<&str>) -> Result<()> {
    lab.wait_for(CONVERGE_MAX, &format!("doctor to say {words:?}"), || {
        let (well, said) = doctor(lab, 1)?;
        let line = said.lines().find(|line| line.contains(PROGRAM));
        let named = line.is_some_and(|line| line.contains("pid "));
        match words {
            None => ensure!(well && line.is_none(), "{said}"),
            Some(words) => {
                ensure!(!well && named && line.is_some_and(|line| line.contains(words)), "{said}");
            }
        }
        Ok(())
    })
}

/// Publishes a service on a port by both protocols; the host name of its task, which runs on the
/// first node.
fn publish(lab: &Lab, name: &str, port: u16) -> Result<String> {
    let tcp = format!("published={port},target=80");
    let udp = format!("published={port},target=80,protocol=udp");
    let place = ["--constraint", "node.role==manager", "--publish", &tcp, "--publish", &udp];
    let tasks = serve(lab, name, &place, &[&probe(lab)?, "serve", "80"], 1)?;
    Ok(hostname(&tasks[0]))
}

/// Waits until the second node counts so many ports that it withholds: the kernel has the end of a
/// pass before the count has it.
fn withholds(lab: &Lab, count: &str) -> Result<()> {
    lab.wait_for(CONVERGE_MAX, &format!("metrics to tell {count}"), || {
        let metrics = lab::cluster::text(&lab.nodes[1].get("/metrics")?);
        let told = metrics.lines().find_map(|line| line.strip_prefix("skein_ports_withheld "));
        ensure!(told == Some(count), "they tell {told:?}");
        Ok(())
    })
}

fn ingress(lab: &mut Lab) -> Result<()> {
    let program = program(lab, PORT)?;
    let task = publish(lab, "web", PORT)?;
    answers(lab, 0, PORT, &task)?;
    // The first node has the port from the same assignment on.
    doctor_names(lab, Some(&format!("tcp port {PORT} of service web is not published")))?;
    let host = host(lab)?;
    let told = servers(lab, 1, PORT)?;
    ensure!(told.iter().all(|name| *name == host), "the program lost its calls to {told:?}");
    withholds(lab, "2")?;
    ensure!(lab.nodes[1].log().contains("of service web is not published"), "nothing in the log");
    program.finish()?;
    answers(lab, 1, PORT, &task)?;
    withholds(lab, "0")?;
    doctor_names(lab, None)
}

fn restart(lab: &mut Lab) -> Result<()> {
    let task = hostname(&lab.running(0, "web")?[0]);
    lab.nodes[1].kill_daemon()?;
    let program = program(lab, PORT)?;
    lab.nodes[1].start()?;
    doctor_names(lab, Some("began to listen later"))?;
    answers(lab, 1, PORT, &task)?;
    program.finish()?;
    doctor_names(lab, None)
}

fn later(lab: &mut Lab) -> Result<()> {
    let task = publish(lab, "late", OTHER_PORT)?;
    answers(lab, 1, OTHER_PORT, &task)?;
    let program = program(lab, OTHER_PORT)?;
    doctor_names(lab, Some(&format!("tcp port {OTHER_PORT} of service late is published")))?;
    answers(lab, 1, OTHER_PORT, &task)?;
    program.finish()?;
    doctor_names(lab, None)?;
    remove_services(lab, &["web", "late"])
}

fn host_mode(lab: &mut Lab) -> Result<()> {
    let program = program(lab, PORT)?;
    // Of equal nodes the one with fewer tasks is chosen first.
    let filler = ["--constraint", "node.role==manager"];
    serve(lab, "filler", &filler, &[&probe(lab)?, "serve", "9"], 1)?;
    let port = format!("mode=host,published={PORT},target=80");
    let flags = ["--restart-delay", "100ms", "--publish", &port];
    let tasks = serve(lab, "hosted", &flags, &[&probe(lab)?, "serve", "80"], 1)?;
    ensure!(tasks[0].node == 0, "it runs on {}", tasks[0].node);
    let all = lab.all_tasks(0, "hosted")?;
    let rejected = all.iter().find(|task| task.state == "rejected" && task.node == 1);
    let message = rejected.map(|task| task.message.as_str()).unwrap_or_default();
    let named = message.contains(&format!("tcp port {PORT}")) && message.contains(PROGRAM);
    ensure!(named, "no rejected task says why: {all:?}");
    let told = ask_outside(lab, "tcp", &format!("{}:{PORT}", lab.nodes[1].address), &["1"])?;
    ensure!(told[0].server == host(lab)?, "the program lost its calls to {told:?}");
    program.finish()?;
    Ok(())
}
