//! A daemon is killed and comes back: its tasks and their traffic do not notice.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Scenario;
use super::background::{Counter, Ping};
use super::calls::{CALLS, ask, wait_all_answer};
use super::services::{NETWORK, make_network, processes, serve_client_and_echo};
use crate::Lab;
use crate::cluster::{CONVERGE_MAX, Task, list};
use crate::wait::{Pace, now};

/// Whether packets got lost is what the ping counts. A connection may be silent while a busy
/// machine runs others, but not for longer than this.
const SILENCE_MS_MAX: u64 = 3_000;

/// How long a daemon is away that has said so: twice the lease of a node that says nothing.
const AWAY: Duration = Duration::from_secs(5);
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// What a daemon's log says when it has found what ran before it (node/src/worker/shell/tasks.rs).
const ADOPTED: &str = "tasks adopted";

/// Goal: restarting the agent drops no packet. Method: a counter over TCP and a ping, both across
/// kill -9 and restart, on the client's node and on the backend's.
pub const SCENARIO: Scenario = Scenario {
    name: "restart",
    nodes: 3,
    managers: 1,
    checks: &[
        ("a network is made", make_network),
        ("services start", serve_client_and_echo),
        ("kill -9 of the client's daemon", |lab| kill_and_restart(lab, 1)),
        ("kill -9 of the backend's daemon", |lab| kill_and_restart(lab, 2)),
        ("kill -9 of the only manager", |lab| kill_and_restart(lab, 0)),
        ("SIGTERM and a new start", stop_and_start),
        ("a daemon that pauses is avoided, and found again", pause_and_go_on),
        ("the planner has nothing to do afterwards", plan_is_empty),
        ("new tasks can be made afterwards", scale_up),
    ],
};

/// Traffic from the client on node 2 to the backend on node 3, and through the VIP.
#[derive(Debug)]
pub struct Traffic {
    counters: Vec<Counter>,
    ping: Ping,
}

impl Traffic {
    /// Begins it, once all of it is answered.
    ///
    /// # Errors
    /// When it is not.
    pub fn start(lab: &Lab) -> Result<Self> {
        let clients = lab.running(0, "client")?;
        let client = clients.iter().find(|task| task.node == 1).context("a client on node2")?;
        let backends = lab.running(0, "echo")?;
        let backend = backends.iter().find(|task| task.node == 2).context("one on node3")?;
        let direct = format!("{}:7000", backend.address(NETWORK)?);
        // A program runs a moment before it listens, and a backend a moment before all know it.
        lab.wait_for(CONVERGE_MAX, "the backends to answer", || {
            ask(lab, client, "tcp", &direct, 1)?;
            ask(lab, client, "tcp", "echo:7000", CALLS)
        })?;
        let mut counters = vec![Counter::start(lab, client, &direct)?];
        for _ in 0..4 {
            counters.push(Counter::start(lab, client, "echo:7000")?);
        }
        let ping = Ping::start(lab, client, &backend.address(NETWORK)?.to_string())?;
        Ok(Self { counters, ping })
    }

    /// Ends it.
    ///
    /// # Errors
    /// When a packet was lost, or a connection broke or was silent for long.
    pub fn finish(self) -> Result<()> {
        self.ping.finish()?;
        for counter in self.counters {
            let silence = counter.finish()?;
            ensure!(silence <= SILENCE_MS_MAX, "a connection was silent for {silence} ms");
        }
        Ok(())
    }
}

/// The daemon is started again at once: a node that is away for longer than its lease (2.5 s) loses
/// its tasks, and on a guest each step takes a while. One that is away for longer than gossip's
/// suspicion is what a paused daemon is.
fn kill_and_restart(lab: &mut Lab, index: usize) -> Result<()> {
    let before = processes(lab)?;
    let traffic = Traffic::start(lab)?;
    let adoptions = |lab: &Lab| lab.nodes[index].log().matches(ADOPTED).count();
    let earlier = adoptions(lab);
    lab.nodes[index].kill_daemon()?;
    lab.nodes[index].start()?;
    lab.wait_for(CONVERGE_MAX, "the new daemon to adopt its tasks", || {
        ensure!(adoptions(lab) > earlier, "it has not");
        Ok(())
    })?;
    adopted(lab, &before)?;
    traffic.finish()
}

/// Waits until the other nodes hide what the silent node runs: the daemon is away for longer than
/// gossip's suspicion, so that no packet is lost is no matter of being quick.
fn wait_suspected(lab: &Lab, asked: &Task) -> Result<()> {
    lab.wait_for(CONVERGE_MAX, "the silent node's tasks to be hidden", || {
        let names = lab.in_task(asked, &["dig", "+short", "+tries=1", "tasks.echo"])?.ok()?;
        ensure!(names.lines().count() == 2, "{names:?}");
        Ok(())
    })
}

/// Waits until the cluster is whole again, with the very same processes.
fn adopted(lab: &Lab, before: &[(String, usize, i64)]) -> Result<()> {
    lab.wait_nodes_ready(3)?;
    lab.wait_for(CONVERGE_MAX, "every task to be adopted", || {
        let after = processes(lab)?;
        ensure!(after == before, "before {before:?}, after {after:?}");
        Ok(())
    })?;
    // Peers that had hidden the node have yet to hear from it again.
    wait_all_answer(lab, 3, 3)
}

/// A node whose daemon said that it restarts keeps its place and its tasks.
fn is_awaited(lab: &Lab) -> Result<()> {
    let begin = now();
    let mut pace = Pace::new(LOOK_PERIOD);
    while begin.elapsed() < AWAY {
        let nodes = lab.nodes[0].get("/nodes")?;
        let ready = list(&nodes).filter(|node| node["Status"]["State"] == "ready").count();
        ensure!(ready == 3, "after {:?}: {nodes}", begin.elapsed());
        pace.wait();
    }
    Ok(())
}

fn stop_and_start(lab: &mut Lab) -> Result<()> {
    let before = processes(lab)?;
    let traffic = Traffic::start(lab)?;
    for index in 0..3 {
        lab.nodes[index].stop()?;
        if index == 2 {
            is_awaited(lab)?;
        }
        lab.nodes[index].start()?;
        adopted(lab, &before)?;
    }
    traffic.finish()
}

fn pause_and_go_on(lab: &mut Lab) -> Result<()> {
    let before = processes(lab)?;
    let traffic = Traffic::start(lab)?;
    let clients = lab.running(0, "client")?;
    let asked = clients.iter().find(|task| task.node == 1).context("a client on node2")?;
    lab.nodes[2].pause(true)?;
    let suspected = wait_suspected(lab, asked);
    lab.nodes[2].pause(false)?;
    suspected?;
    adopted(lab, &before)?;
    traffic.finish()
}

fn plan_is_empty(lab: &mut Lab) -> Result<()> {
    for node in &lab.nodes {
        lab.wait_for(CONVERGE_MAX, "an empty plan", || {
            let plan = node.get("/skein/v1/plan")?;
            let listed = plan.as_array().or_else(|| plan["operations"].as_array());
            let count = listed.with_context(|| format!("reading the plan {plan}"))?.len();
            ensure!(count == 0, "{} would do {plan}", node.name);
            Ok(())
        })?;
    }
    Ok(())
}

fn scale_up(lab: &mut Lab) -> Result<()> {
    lab.nodes[0].docker(&["service", "scale", "-d", "echo=6"])?.ok()?;
    wait_all_answer(lab, 3, 6)
}
