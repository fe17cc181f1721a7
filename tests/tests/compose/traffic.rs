//! Packets of services: a VIP between tasks, a published port from outside.

use anyhow::{Result, ensure};
use tests::containers::cluster::{Machines, create_service, docker, exec, running, wait_running};
use tests::lab::cluster::{CONVERGE_MAX, Task};
use tests::lab::topology::Topology;
use tests::lab::wait::wait_for;

use crate::stage::{CALLS, NETWORK, Told, ask_outside, ensure_all_answer, read_told};

/// Where the service is published.
pub(crate) const PUBLISHED: u16 = 8080;

/// Replicas of the service that moves: two for each node, so that every node has some to lose.
pub(crate) const MOVERS: usize = 10;

/// One probe behind a VIP and a published port, and a client, on each of the five nodes; and a
/// service that is to have its replicas wherever there are nodes.
pub(crate) fn start(_: &mut dyn Topology, machines: &mut Machines) -> Result<()> {
    let first = machines[0].as_ref();
    docker(first, &["network", "create", "-d", "overlay", NETWORK])?.ok()?;
    let probe = first.program("skein-lab-probe")?;
    let publish = format!("{PUBLISHED}:7000");
    let movers = MOVERS.to_string();
    let serve = |name: &str, flags: &[&str], port: &str| {
        let common = ["--name", name, "--network", NETWORK];
        create_service(first, &[&common, flags, &["host", &probe, "serve", port]].concat())
    };
    serve("echo", &["--mode", "global", "-p", &publish], "7000")?;
    serve("client", &["--mode", "global"], "9")?;
    serve("mover", &["--replicas", &movers], "9")?;
    let nodes = machines.len();
    for (service, count) in [("echo", nodes), ("client", nodes), ("mover", MOVERS)] {
        let tasks = wait_running(machines, 0, service, count)?;
        for index in 0..nodes {
            ensure!(
                tasks.iter().any(|task| task.node == index),
                "{service} is not spread: {tasks:?}"
            );
        }
    }
    Ok(())
}

/// Asks `echo` by its name from a task.
pub(crate) fn ask(machines: &Machines, from: &Task, times: usize) -> Result<Vec<Told>> {
    let words = ["skein-lab-probe", "ask", "tcp", "echo:7000", &times.to_string()];
    read_told(&exec(machines, from, &words)?.ok()?)
}

pub(crate) fn vip(_: &mut dyn Topology, machines: &mut Machines) -> Result<()> {
    let backends = running(machines, 0, "echo")?;
    for client in running(machines, 0, "client")? {
        let own = client.address(NETWORK)?.to_string();
        let told = wait_for(CONVERGE_MAX, "all backends to answer", || {
            let told = ask(machines, &client, CALLS)?;
            ensure_all_answer(&told, &backends)?;
            Ok(told)
        })?;
        let wrong = told.iter().find(|told| told.client != own);
        ensure!(wrong.is_none(), "from {own}: {wrong:?}");
    }
    Ok(())
}

pub(crate) fn published(topology: &mut dyn Topology, machines: &mut Machines) -> Result<()> {
    let backends = running(machines, 0, "echo")?;
    let own = topology.client_address().to_string();
    for machine in machines.iter() {
        let to = format!("{}:{PUBLISHED}", machine.address());
        let told = wait_for(CONVERGE_MAX, &format!("{to} to answer"), || {
            let told = ask_outside(topology, &to, CALLS)?;
            ensure_all_answer(&told, &backends)?;
            Ok(told)
        })?;
        let wrong = told.iter().find(|told| told.client != own);
        ensure!(wrong.is_none(), "{to} from {own}: {wrong:?}");
    }
    Ok(())
}
