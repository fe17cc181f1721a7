//! The project as users run it: five nodes, a pid 1 that restarts a killed daemon, volumes that
//! outlive their containers; and the faults that this kind of underlay implements in its own way.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use lab::cluster::{CONVERGE_MAX, Task, list, text};
use lab::containers::{Containers, NODES_MAX, Restart};
use lab::kinds::sweep;
use lab::scenario::background::Counter;
use lab::scenario::calls::{CALLS_EACH, ask_outside, ensure_all_answer, wait_all_answer};
use lab::scenario::services::{ECHO_PORT, make_network, probe, serve, serve_client};
use lab::scenario::{Check, check};
use lab::topology::{Fault, Point};
use lab::{Lab, Node};
use nix::sys::signal::Signal;

use crate::stage::{lab, must, project, turn};

const MANAGERS: usize = 3;
const PUBLISHED: u16 = 8080;
/// Enough calls that each of five backends is met.
const CALLS: usize = CALLS_EACH * NODES_MAX;
/// The node that is restarted by compose: a worker.
const RESTARTED: usize = 4;
/// New connections that are made one after the other while a daemon is dead.
const ASKED: &str = "10000";
/// What pid 1 says of a daemon that was killed (node/supervise/src/first.rs).
const ENDED_BY_KILL: &str = "skein first: the daemon was ended by signal 9";
/// Enough that a loss of half of them is not all or none: 2^-59.
const PINGS: &str = "60";
/// Column of echo requests that arrived, in /proc/net/snmp (`InEchos`).
const ICMP_ECHOES: usize = 9;

const CHECKS: &[Check] = &[
    ("a cluster of 3 managers and 2 workers is made", make),
    ("every node is well", are_well),
    ("services start on all nodes", start),
    ("the VIP and the published port answer everywhere", answers_everywhere),
    ("a killed daemon is started again, its tasks and connections go on", kill_daemons),
    ("a cut is one way, and heals", cut),
    ("a restart by compose keeps a node's identity", restart_by_compose),
];

/// Goal: the compose project is a whole cluster as it is, and leaves nothing. Method: docker's
/// client and the probe, from a container outside the cluster.
#[test]
fn a_project_of_five_containers_is_a_cluster() {
    let _turn = turn();
    let mut lab = must(lab("compose", NODES_MAX, Restart::Always));
    must(check(&mut lab, CHECKS));
    let (name, folder) = (lab.name.clone(), lab.folder().to_owned());
    drop(lab);
    must(sweep(&name, &folder));
    let left = Containers::attach(&name, &folder, NODES_MAX);
    assert!(left.is_err(), "the project is still there");
}

fn make(lab: &mut Lab) -> Result<()> {
    lab.make_cluster(MANAGERS)?;
    let listed = lab.nodes[0].docker(&["node", "ls"])?.ok()?;
    let managers = listed.matches("Reachable").count() + listed.matches("Leader").count();
    ensure!(managers == MANAGERS, "{listed}");
    Ok(())
}

fn are_well(lab: &mut Lab) -> Result<()> {
    for node in &lab.nodes {
        lab.wait_for(CONVERGE_MAX, &format!("skein doctor on {}", node.name), || {
            node.run(60, &["skein", "doctor"])?.ok()
        })?;
    }
    Ok(())
}

/// A probe behind a VIP and a published port, and a client, on each of the five nodes.
fn start(lab: &mut Lab) -> Result<()> {
    make_network(lab)?;
    let (publish, port) = (format!("{PUBLISHED}:{ECHO_PORT}"), ECHO_PORT.to_string());
    let flags = ["--mode", "global", "-p", &publish];
    serve(lab, "echo", &flags, &[&probe(lab)?, "serve", &port], NODES_MAX)?;
    serve_client(lab)?;
    Ok(())
}

fn answers_everywhere(lab: &mut Lab) -> Result<()> {
    wait_all_answer(lab, NODES_MAX, NODES_MAX)?;
    let own = lab.client_address().to_string();
    for node in &lab.nodes {
        let to = format!("{}:{PUBLISHED}", node.address);
        let told = lab.wait_for(CONVERGE_MAX, &format!("{to} to answer"), || {
            let told = ask_outside(lab, "tcp", &to, &[&CALLS.to_string()])?;
            ensure_all_answer(&told, &all_running(lab, "echo")?)?;
            Ok(told)
        })?;
        let wrong = told.iter().find(|told| told.client != own);
        ensure!(wrong.is_none(), "{to} from {own}: {wrong:?}");
    }
    Ok(())
}

/// A service's tasks: one on each of the five nodes.
fn all_running(lab: &Lab, service: &str) -> Result<Vec<Task>> {
    let tasks = lab.running(0, service)?;
    ensure!(tasks.len() == NODES_MAX, "{} of {service} run", tasks.len());
    Ok(tasks)
}

/// The daemon of every node is killed once, and pid 1 starts the next one. Meanwhile a connection
/// of the node's client counts on, every new connection to the node's published port is answered,
/// and in the end no task was replaced.
fn kill_daemons(lab: &mut Lab) -> Result<()> {
    let before = lab.running(0, "echo")?;
    let clients = lab.running(0, "client")?;
    // Names are the daemon's to answer: while it is dead its tasks reach what they resolved.
    let vip = format!("{}:{ECHO_PORT}", lab.vip(0, "echo", "vote")?);
    for index in (0..NODES_MAX).rev() {
        let client = clients.iter().find(|client| client.node == index).context("a client")?;
        let counter = Counter::start(lab, client, &vip)?;
        let mut asking = ask_on_and_on(lab, index)?;
        let ends = |node: &Node| node.log().matches(ENDED_BY_KILL).count();
        let before = ends(&lab.nodes[index]);
        lab.nodes[index].signal(Signal::SIGKILL)?;
        lab.wait_for(CONVERGE_MAX, &format!("the daemon of node{} to end", index + 1), || {
            ensure!(ends(&lab.nodes[index]) > before, "it was not ended");
            Ok(())
        })?;
        let early = asking.try_wait().context("asking for the calls")?;
        ensure!(early.is_none(), "the calls to node{} ended before: {early:?}", index + 1);
        lab.nodes[index].wait_ready()?;
        lab.wait_nodes_ready(NODES_MAX)?;
        let answers = asking.wait_with_output().context("awaiting the calls")?;
        ensure!(answers.status.success(), "a call to node{} failed: {answers:?}", index + 1);
        counter.finish()?;
    }
    let ids = |tasks: &[Task]| tasks.iter().map(|task| task.id.clone()).collect::<Vec<_>>();
    let after = lab.wait_running(0, "echo", NODES_MAX)?;
    ensure!(ids(&before) == ids(&after), "tasks were replaced: {before:?} by {after:?}");
    Ok(())
}

/// Calls of a node's published port. The answers would fill a pipe; whether all came, the status
/// tells.
fn ask_on_and_on(lab: &Lab, node: usize) -> Result<Child> {
    let published = format!("{}:{PUBLISHED}", lab.nodes[node].address);
    let probe = lab.client_program("skein-lab-probe")?;
    let line = lab.client_line(&[&probe, "ask", "tcp", &published, ASKED]);
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().with_context(|| format!("starting {line:?}"))
}

/// Whether a ping of one machine by another comes back.
fn pings(from: &Node, to: &Node) -> Result<bool> {
    let output = from.run(20, &["ping", "-c", "1", "-W", "1", &to.address.to_string()])?;
    ensure!(output.status <= 1, "{output}");
    Ok(output.status == 0)
}

/// Echo requests that a node has received: a reply always takes the path that is cut;
/// this distinguishes the two directions.
fn heard(node: &Node) -> Result<u64> {
    let text = node.run(20, &["cat", "/proc/net/snmp"])?.ok()?;
    let line = text.lines().filter(|line| line.starts_with("Icmp:")).nth(1);
    let echoes = line.and_then(|line| line.split(' ').nth(ICMP_ECHOES)?.parse().ok());
    echoes.with_context(|| format!("reading {text:?}"))
}

/// Datagrams from the first to the last node are cut, and no others; loss is neither all nor none.
fn cut(lab: &mut Lab) -> Result<()> {
    let (one, other) = (Point::Node(0), Point::Node(NODES_MAX - 1));
    let ends = |lab: &Lab| pings(&lab.nodes[0], &lab.nodes[NODES_MAX - 1]);
    ensure!(ends(lab)?, "no ping before the cut");
    lab.disturb(one, other, Fault::Cut)?;
    ensure!(lab.faults()? == [(one, other, Fault::Cut)], "it shows {:?}", lab.faults()?);
    let (first, second, last) = (&lab.nodes[0], &lab.nodes[1], &lab.nodes[NODES_MAX - 1]);
    let (at_first, at_last) = (heard(first)?, heard(last)?);
    ensure!(!pings(first, last)?, "a ping came through the cut");
    ensure!(!pings(last, first)?, "an answer came through the cut");
    ensure!(heard(last)? == at_last, "the last node heard the first");
    ensure!(heard(first)? > at_first, "the first node did not hear the last");
    ensure!(pings(first, second)?, "the cut is wider than asked for");
    lab.disturb(one, other, Fault::Loss { percent: 50 })?;
    let to = lab.nodes[NODES_MAX - 1].address.to_string();
    let words = ["ping", "-q", "-c", PINGS, "-i", "0.01", "-W", "1", &to];
    let told = lab.nodes[0].run(60, &words)?.stdout;
    ensure!(!told.contains(" 0% packet loss") && !told.contains("100% packet loss"), "{told}");
    let delay = lab.disturb(one, other, Fault::Delay { ms: 1, spread_ms: 0 });
    let refusal = format!("{:#}", delay.err().context("a delay is not offered")?);
    ensure!(refusal.contains("containers offer no delay"), "{refusal}");
    lab.heal(other, one)?;
    ensure!(ends(lab)?, "no ping after the heal");
    lab.wait_nodes_ready(NODES_MAX)?;
    lab.wait_running(0, "echo", NODES_MAX)?;
    Ok(())
}

/// The machine's disk is a named volume: who it is and where it belongs outlive the container.
fn restart_by_compose(lab: &mut Lab) -> Result<()> {
    let before = lab.nodes[RESTARTED].cluster_id()?;
    let name = lab.nodes[RESTARTED].name.clone();
    project(lab)?.compose(&["restart", &name])?.ok()?;
    // Its tasks end with the container: peers are not to wait for them as for a mere restart.
    let log = lab.nodes[RESTARTED].log();
    ensure!(log.contains("stopping with the machine"), "it was not told: {log}");
    lab.nodes[RESTARTED].wait_ready()?;
    let after = lab.nodes[RESTARTED].cluster_id()?;
    ensure!(before == after && !after.is_empty(), "node {before} is {after} now");
    let nodes = lab.nodes[0].get("/nodes")?;
    let named = list(&nodes).filter(|node| node["Description"]["Hostname"] == *name);
    let ids: Vec<_> = named.map(|node| text(&node["ID"])).collect();
    ensure!(ids == [after.clone()], "it is {after:?}, the cluster knows {ids:?}");
    lab.wait_nodes_ready(NODES_MAX)?;
    answers_everywhere(lab)
}
