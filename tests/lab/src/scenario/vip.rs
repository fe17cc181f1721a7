//! The internal VIP across nodes: every replica, the client's address, a backend that calls itself.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::Scenario;
use super::background::Counter;
use super::calls::{CALLS, ask, ask_with, ensure_all_answer, ensure_fragments, wait_all_answer};
use super::services::{NETWORK, make_network, serve, serve_client, serve_echo, serve_redis};
use crate::Lab;
use crate::cluster::{CONVERGE_MAX, Task};

/// Goal: a VIP balances over all nodes without touching addresses. Method: real redis and the
/// probe, asked from a task on every node.
pub const SCENARIO: Scenario = Scenario {
    name: "vip",
    nodes: 3,
    managers: 1,
    checks: &[
        ("a network is made", make_network),
        ("services start on all nodes", start),
        ("the VIP of redis reaches every replica from every node", redis_answers),
        ("redis sees the client's address", redis_sees_the_client),
        ("TCP and UDP keep the client's address", echo_sees_the_client),
        ("a backend reaches itself and its siblings", backend_reaches_itself),
        ("datagrams that fragment come through", fragments_come_through),
        ("an open connection stays on its backend", open_connection_stays),
        ("the demo's worker counts all replicas", worker_counts),
    ],
};

fn start(lab: &mut Lab) -> Result<()> {
    let spread = |tasks: &[Task]| tasks.iter().map(|task| task.node).collect::<BTreeSet<_>>().len();
    let redis = serve_redis(lab)?;
    ensure!(spread(&redis) == 3, "redis is not spread: {redis:?}");
    let echo = serve_echo(lab, 3)?;
    ensure!(spread(&echo) == 3, "echo is not spread: {echo:?}");
    serve_client(lab)?;
    // A program runs a moment before it listens, and a backend a moment before all know it.
    wait_all_answer(lab, 3, 3)
}

fn redis_answers(lab: &mut Lab) -> Result<()> {
    for client in lab.running(0, "client")? {
        let script = format!(
            "for i in $(seq {CALLS}); do redis-cli -h redis info server || exit 1; done \
             | grep run_id | sort -u | wc -l"
        );
        lab.wait_for(CONVERGE_MAX, "every replica to be met", || {
            let replicas = lab.in_task(&client, &["sh", "-c", &script])?.ok()?;
            ensure!(replicas == "3", "node{} met {replicas} replicas", client.node + 1);
            Ok(())
        })?;
    }
    Ok(())
}

fn redis_sees_the_client(lab: &mut Lab) -> Result<()> {
    for client in lab.running(0, "client")? {
        let own = client.address(NETWORK)?;
        let told = lab.in_task(&client, &["redis-cli", "-h", "redis", "client", "info"])?.ok()?;
        ensure!(told.contains(&format!(" addr={own}:")), "{own} was seen as {told}");
    }
    Ok(())
}

fn echo_sees_the_client(lab: &mut Lab) -> Result<()> {
    let backends = lab.running(0, "echo")?;
    for client in lab.running(0, "client")? {
        let own = client.address(NETWORK)?.to_string();
        for protocol in ["tcp", "udp"] {
            let told = ask(lab, &client, protocol, "echo:7000", CALLS)?;
            ensure_all_answer(&told, &backends)?;
            let wrong = told.iter().find(|told| told.client != own);
            ensure!(wrong.is_none(), "{protocol} from {own}: {wrong:?}");
        }
    }
    Ok(())
}

fn backend_reaches_itself(lab: &mut Lab) -> Result<()> {
    let backends = lab.running(0, "echo")?;
    for backend in &backends {
        for protocol in ["tcp", "udp"] {
            let told = ask(lab, backend, protocol, "echo:7000", CALLS)?;
            ensure_all_answer(&told, &backends)?;
        }
    }
    Ok(())
}

fn fragments_come_through(lab: &mut Lab) -> Result<()> {
    for client in lab.running(0, "client")? {
        ensure_fragments(|rest| ask_with(lab, &client, "udp", "echo:7000", rest))?;
    }
    Ok(())
}

fn open_connection_stays(lab: &mut Lab) -> Result<()> {
    let client = &lab.running(0, "client")?[0];
    let counter = Counter::start(lab, client, "echo:7000")?;
    lab.nodes[0].docker(&["service", "scale", "-d", "echo=5"])?.ok()?;
    let more = lab.wait_running(0, "echo", 5)?;
    lab.wait_for(CONVERGE_MAX, "the new backends to answer", || {
        ensure_all_answer(&ask(lab, client, "tcp", "echo:7000", CALLS * 2)?, &more)
    })?;
    counter.finish()?;
    lab.nodes[0].docker(&["service", "scale", "-d", "echo=3"])?.ok()?;
    lab.wait_running(0, "echo", 3)?;
    Ok(())
}

fn worker_counts(lab: &mut Lab) -> Result<()> {
    let program = [&lab.program("skein-demo-worker")?, "redis:6379"];
    serve(lab, "worker", &[], &program, 1)?;
    lab.wait_for(CONVERGE_MAX, "a report of three replicas", || {
        let logs = lab.nodes[0].docker(&["service", "logs", "--raw", "worker"])?.ok()?;
        let last = logs.lines().last().unwrap_or_default();
        let replicas = last.split(' ').filter(|word| word.starts_with("10.")).count();
        ensure!(replicas == 3 && last.contains("errors=0"), "{last:?}");
        Ok(())
    })
}
