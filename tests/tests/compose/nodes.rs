//! Nodes that are made, killed, cut off, restarted and lost.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::containers::NODES;
use tests::containers::cluster::{
    Machines, cluster_id, docker, exec, get, make_cluster, run_on, running, wait_nodes_ready,
    wait_ready, wait_running,
};
use tests::lab::cluster::{CONVERGE_MAX, Task, list, text};
use tests::lab::topology::{Fault, Machine, Point, Topology};
use tests::lab::wait::wait_for;

use crate::stage::{CALLS, ask_outside, ensure_all_answer, task_line};
use crate::traffic::{MOVERS, PUBLISHED, ask};

/// The node that is restarted by compose: a worker.
const RESTARTED: usize = 4;
/// Its name, and that of its service.
pub(crate) const RESTARTED_NAME: &str = "node5";
/// The node that is lost: a manager, but not the one that is asked.
const LOST: usize = 2;
/// New connections that are made one after the other while a daemon is dead.
const ASKED: &str = "10000";
/// What pid 1 says of a daemon that was killed (node/src/supervise/first.rs).
const ENDED_BY_KILL: &str = "skein first: the daemon was ended by signal 9";
/// Enough that a loss of half of them is not all or none: 2^-59.
const PINGS: &str = "60";
/// Column of echo requests that arrived, in /proc/net/snmp (`InEchos`).
const ICMP_ECHOES: usize = 9;

pub(crate) fn make(_: &mut dyn Topology, machines: &mut Machines) -> Result<()> {
    make_cluster(machines, 3)?;
    let listed = docker(machines[0].as_ref(), &["node", "ls"])?.ok()?;
    let managers = listed.matches("Reachable").count() + listed.matches("Leader").count();
    ensure!(managers == 3, "{listed}");
    Ok(())
}

pub(crate) fn are_well(_: &mut dyn Topology, machines: &mut Machines) -> Result<()> {
    for machine in machines.iter() {
        wait_for(CONVERGE_MAX, &format!("skein doctor on {}", machine.name()), || {
            run_on(machine.as_ref(), &["skein", "doctor"])?.ok()
        })?;
    }
    Ok(())
}

/// A TCP connection from a task that counts every 5 ms, until its input ends.
fn count(machine: &dyn Machine, client: &Task, to: &str) -> Result<Child> {
    start(&task_line(machine, client, &["skein-lab-probe", "count", to]), Stdio::piped())
}

fn start(line: &[String], output: Stdio) -> Result<Child> {
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).stdin(Stdio::piped()).stdout(output).stderr(Stdio::piped());
    command.spawn().with_context(|| format!("starting {line:?}"))
}

/// Ends the count. Fails unless every number came back.
fn finish(mut counter: Child) -> Result<()> {
    drop(counter.stdin.take());
    let output = counter.wait_with_output().context("awaiting the counter")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(output.status.success(), "the connection broke: {text}");
    let number = |key: &str| text.split(' ').find_map(|word| word.strip_prefix(key));
    let (sent, received) = (number("sent="), number("received="));
    ensure!(sent.is_some_and(|sent| sent != "0") && sent == received, "numbers got lost: {text}");
    Ok(())
}

/// The daemon of every node is killed once, and pid 1 starts the next one. Meanwhile a connection
/// of the node's client counts on, every new connection to the node's published port is answered,
/// and in the end no task was replaced.
pub(crate) fn kill_daemon(topology: &mut dyn Topology, machines: &mut Machines) -> Result<()> {
    let before = running(machines, 0, "echo")?;
    let clients = running(machines, 0, "client")?;
    // Names are the daemon's to answer: while it is dead its tasks reach what they resolved.
    let resolved = exec(machines, &clients[0], &["getent", "hosts", "echo"])?.ok()?;
    let vip = format!("{}:7000", resolved.split(' ').next().unwrap_or_default());
    for index in (0..NODES).rev() {
        let client = clients.iter().find(|client| client.node == index).context("a client")?;
        let machine = machines[index].as_ref();
        let counter = count(machine, client, &vip)?;
        let published = format!("{}:{PUBLISHED}", machine.address());
        let line = topology.client_line(&["skein-lab-probe", "ask", "tcp", &published, ASKED]);
        // Its answers would fill a pipe; whether all came, its status tells.
        let mut asking = start(&line, Stdio::null())?;
        let ends = machine.log().matches(ENDED_BY_KILL).count();
        machines[index].signal(Signal::SIGKILL)?;
        wait_for(CONVERGE_MAX, &format!("the daemon of node{} to end", index + 1), || {
            let now = machines[index].log().matches(ENDED_BY_KILL).count();
            ensure!(now > ends, "it was not ended");
            Ok(())
        })?;
        let early = asking.try_wait().context("asking for the calls")?;
        ensure!(early.is_none(), "the calls to {published} ended before the daemon: {early:?}");
        wait_ready(machines[index].as_mut())?;
        wait_nodes_ready(machines, 0, NODES)?;
        let answers = asking.wait_with_output().context("awaiting the calls")?;
        ensure!(answers.status.success(), "a call to {published} failed: {answers:?}");
        finish(counter)?;
    }
    let ids = |tasks: &[Task]| tasks.iter().map(|task| task.id.clone()).collect::<Vec<_>>();
    let after = wait_running(machines, 0, "echo", NODES)?;
    ensure!(ids(&before) == ids(&after), "tasks were replaced: {before:?} by {after:?}");
    Ok(())
}

/// Whether a ping of one machine by another comes back.
fn pings(from: &dyn Machine, to: &dyn Machine) -> Result<bool> {
    let to = to.address().to_string();
    let output = run_on(from, &["ping", "-c", "1", "-W", "1", &to])?;
    ensure!(output.status <= 1, "{output}");
    Ok(output.status == 0)
}

/// Datagrams from the first to the last node are cut, and no others; loss is neither all nor none.
pub(crate) fn cut(topology: &mut dyn Topology, machines: &mut Machines) -> Result<()> {
    let (one, other) = (Point::Node(0), Point::Node(NODES - 1));
    let (first, last, second) = (&machines[0], &machines[NODES - 1], &machines[1]);
    ensure!(pings(first.as_ref(), last.as_ref())?, "no ping before the cut");
    // An answer takes the way that is cut, whoever asks; a counter at the far end tells the two.
    let heard = |machine: &dyn Machine| -> Result<u64> {
        let text = run_on(machine, &["cat", "/proc/net/snmp"])?.ok()?;
        let line = text.lines().filter(|line| line.starts_with("Icmp:")).nth(1);
        let echoes = line.and_then(|line| line.split(' ').nth(ICMP_ECHOES)?.parse().ok());
        echoes.with_context(|| format!("reading {text:?}"))
    };
    topology.disturb(one, other, Fault::Cut)?;
    let (at_first, at_last) = (heard(first.as_ref())?, heard(last.as_ref())?);
    ensure!(!pings(first.as_ref(), last.as_ref())?, "a ping came through the cut");
    ensure!(!pings(last.as_ref(), first.as_ref())?, "an answer came through the cut");
    ensure!(heard(last.as_ref())? == at_last, "the last node heard the first");
    ensure!(heard(first.as_ref())? > at_first, "the first node did not hear the last");
    ensure!(pings(first.as_ref(), second.as_ref())?, "the cut is wider than asked for");
    topology.disturb(one, other, Fault::Loss { percent: 50 })?;
    let to = last.address().to_string();
    let words = ["ping", "-q", "-c", PINGS, "-i", "0.01", "-W", "1", &to];
    let told = run_on(first.as_ref(), &words)?.ok()?;
    ensure!(!told.contains(" 0% packet loss") && !told.contains("100% packet loss"), "{told}");
    topology.heal(other, one)?;
    ensure!(pings(first.as_ref(), last.as_ref())?, "no ping after the heal");
    wait_nodes_ready(machines, 0, NODES)?;
    wait_running(machines, 0, "echo", NODES)?;
    Ok(())
}

/// The machine's disk is a named volume: who it is and where it belongs outlive the container.
pub(crate) fn is_same(topology: &mut dyn Topology, machines: &mut Machines) -> Result<()> {
    wait_ready(machines[RESTARTED].as_mut())?;
    let own = cluster_id(machines[RESTARTED].as_ref())?;
    let nodes = get(machines[0].as_ref(), "/nodes")?;
    let named = list(&nodes).filter(|node| node["Description"]["Hostname"] == RESTARTED_NAME);
    let ids: Vec<_> = named.map(|node| text(&node["ID"])).collect();
    ensure!(ids == [own.clone()], "it is {own:?}, the cluster knows {ids:?}");
    wait_nodes_ready(machines, 0, NODES)?;
    let backends = wait_running(machines, 0, "echo", NODES)?;
    let client = wait_running(machines, 0, "client", NODES)?;
    let client = client.iter().find(|client| client.node == RESTARTED).context("a client on it")?;
    wait_for(CONVERGE_MAX, "its task to reach every backend", || {
        ensure_all_answer(&ask(machines, client, CALLS)?, &backends)
    })?;
    answer_everywhere(topology, machines, NODES)
}

pub(crate) fn lose(topology: &mut dyn Topology, machines: &mut Machines) -> Result<()> {
    let had = running(machines, 0, "mover")?;
    ensure!(had.iter().any(|task| task.node == LOST), "it has nothing to lose: {had:?}");
    machines[LOST].power_off()?;
    wait_for(CONVERGE_MAX, "the lost node's tasks to move", || {
        let tasks = running(machines, 0, "mover")?;
        ensure!(tasks.len() == MOVERS && tasks.iter().all(|task| task.node != LOST), "{tasks:?}");
        Ok(())
    })?;
    answer_everywhere(topology, machines, NODES - 1)?;
    machines[LOST].spawn()?;
    wait_ready(machines[LOST].as_mut())?;
    wait_nodes_ready(machines, 0, NODES)?;
    answer_everywhere(topology, machines, NODES)
}

/// Waits until the published port answers from exactly the running tasks, `count` of them, at each
/// node that has one.
fn answer_everywhere(topology: &dyn Topology, machines: &Machines, count: usize) -> Result<()> {
    for task in wait_running(machines, 0, "echo", count)? {
        let to = format!("{}:{PUBLISHED}", machines[task.node].address());
        wait_for(CONVERGE_MAX, &format!("{to} to answer from {count} tasks"), || {
            let backends = wait_running(machines, 0, "echo", count)?;
            ensure_all_answer(&ask_outside(topology, &to, CALLS)?, &backends)
        })?;
    }
    Ok(())
}
