//! What a scenario asks a cluster of any machines: join it, run services, find tasks.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::lab::cluster::{CONVERGE_MAX, Task, list, percent_encode, read_task, text};
use crate::lab::command::{Output, run};
use crate::lab::http;
use crate::lab::topology::Machine;
use crate::lab::wait::wait_for;

/// The machines of a topology, in order.
pub type Machines = [Box<dyn Machine>];

/// How long a daemon may take until it answers, the start of its machine included.
const READY_MAX: Duration = Duration::from_secs(30);
/// Limit for one command.
const COMMAND_SECONDS: u32 = 60;
/// Lines of a daemon's log that a failure shows.
const LOG_TAIL_LINES: usize = 12;

/// Runs a program on a machine.
///
/// # Errors
/// When it cannot be started.
pub fn run_on(machine: &dyn Machine, words: &[&str]) -> Result<Output> {
    run(COMMAND_SECONDS, &machine.line(words))
}

/// `docker -H <this node>` with these words.
///
/// # Errors
/// When docker cannot be started.
pub fn docker(machine: &dyn Machine, words: &[&str]) -> Result<Output> {
    let url = format!("unix://{}", machine.socket().display());
    run(COMMAND_SECONDS, &[&["docker", "-H", &url], words].concat())
}

/// A GET of the node's API that must succeed, as JSON.
///
/// # Errors
/// When the daemon does not answer with 2xx.
pub fn get(machine: &dyn Machine, path: &str) -> Result<Value> {
    let answer = http::over_unix(&machine.socket(), "GET", path, &Value::Null)?;
    answer.json().with_context(|| format!("GET {path} of {}", machine.name()))
}

/// Waits until the daemon's API answers.
///
/// # Errors
/// When it does not, or the daemon has ended; the error shows the end of its log.
pub fn wait_ready(machine: &mut dyn Machine) -> Result<()> {
    let what = format!("the daemon of {} to answer", machine.name());
    let result = wait_for(READY_MAX, &what, || match get(machine, "/info") {
        Ok(_) => Ok(true),
        Err(_) if !machine.is_running()? => Ok(false),
        Err(error) => Err(error),
    });
    match result {
        Ok(true) => Ok(()),
        Ok(false) => bail!("the daemon of {} ended\n{}", machine.name(), log_tail(machine)),
        Err(error) => Err(error.context(log_tail(machine))),
    }
}

/// The last lines of a daemon's log, under a line that names the node.
#[must_use]
pub fn log_tail(machine: &dyn Machine) -> String {
    let log = machine.log();
    let lines: Vec<_> = log.lines().collect();
    let from = lines.len().saturating_sub(LOG_TAIL_LINES);
    format!("--- log of {}:\n{}\n", machine.name(), lines[from..].join("\n"))
}

/// Switches all machines on and waits until their daemons answer.
///
/// # Errors
/// When one does not.
pub fn start_all(machines: &mut Machines) -> Result<()> {
    for machine in machines.iter_mut() {
        if !machine.is_running()? {
            machine.spawn()?;
        }
    }
    machines.iter_mut().try_for_each(|machine| wait_ready(machine.as_mut()))
}

/// Makes a cluster: the first `managers` machines are managers, the rest workers. Daemons that do
/// not run are started. Done by docker's own client.
///
/// # Errors
/// When a step is refused, or not all nodes become ready.
pub fn make_cluster(machines: &mut Machines, managers: usize) -> Result<()> {
    start_all(machines)?;
    let first = machines[0].as_ref();
    let address = first.address().to_string();
    docker(first, &["swarm", "init", "--advertise-addr", &address])?.ok()?;
    let manager = format!("{address}:2377");
    for (index, machine) in machines.iter().enumerate().skip(1) {
        let role = if index < managers { "manager" } else { "worker" };
        let token = docker(first, &["swarm", "join-token", "-q", role])?.ok()?;
        docker(machine.as_ref(), &["swarm", "join", "--token", &token, &manager])?.ok()?;
    }
    wait_nodes_ready(machines, 0, machines.len())
}

/// Waits until the machine `asked` lists exactly `count` ready nodes.
///
/// # Errors
/// When it does not in time.
pub fn wait_nodes_ready(machines: &Machines, asked: usize, count: usize) -> Result<()> {
    wait_for(CONVERGE_MAX, &format!("{count} ready nodes"), || {
        let nodes = get(machines[asked].as_ref(), "/nodes")?;
        let states: Vec<_> = list(&nodes).map(|node| text(&node["Status"]["State"])).collect();
        let ready = states.iter().filter(|state| *state == "ready").count();
        ensure!(ready == count, "states are {states:?}");
        Ok(())
    })
}

/// The node's own id in its cluster; empty outside of one.
///
/// # Errors
/// When the daemon does not answer.
pub fn cluster_id(machine: &dyn Machine) -> Result<String> {
    Ok(text(&get(machine, "/info")?["Swarm"]["NodeID"]))
}

/// The tasks of a service that run and are to run, by slot and node, as machine `asked` tells them.
///
/// # Errors
/// When the API does not answer.
pub fn running(machines: &Machines, asked: usize, service: &str) -> Result<Vec<Task>> {
    let mut tasks = all_tasks(machines, asked, service)?;
    tasks.retain(|task| task.state == "running" && task.desired == "running");
    tasks.sort_by_key(|task| (task.slot, task.node));
    Ok(tasks)
}

fn all_tasks(machines: &Machines, asked: usize, service: &str) -> Result<Vec<Task>> {
    let asked = machines[asked].as_ref();
    let filter = json!({"service": {service: true}}).to_string();
    let answer = get(asked, &format!("/tasks?filters={}", percent_encode(&filter)))?;
    let nodes = get(asked, "/nodes")?;
    let index = |name: &str| machines.iter().position(|machine| machine.name() == name);
    let ids: Vec<_> = list(&nodes)
        .filter_map(|node| {
            let name = text(&node["Description"]["Hostname"]);
            index(&name).map(|index| (text(&node["ID"]), index))
        })
        .collect();
    list(&answer).map(|task| read_task(task, &ids)).collect()
}

/// Waits until exactly `count` tasks of a service run, and gives them.
///
/// # Errors
/// When they do not in time.
pub fn wait_running(
    machines: &Machines,
    asked: usize,
    service: &str,
    count: usize,
) -> Result<Vec<Task>> {
    wait_for(CONVERGE_MAX, &format!("{count} running tasks of {service}"), || {
        let running = running(machines, asked, service)?;
        if running.len() == count {
            return Ok(running);
        }
        let told = |task: &Task| {
            let (slot, node, state) = (task.slot, task.node + 1, &task.state);
            format!("slot {slot} on node{node}: {state} {}", task.message)
        };
        let all = all_tasks(machines, asked, service)?;
        bail!("{:?}", all.iter().map(told).collect::<Vec<_>>())
    })
}

/// Runs a service detached. `words` follow `service create -d`.
///
/// # Errors
/// When it is refused.
pub fn create_service(asked: &dyn Machine, words: &[&str]) -> Result<()> {
    let line = [&["service", "create", "-d", "--no-resolve-image"], words].concat();
    docker(asked, &line)?.ok()?;
    Ok(())
}

/// Runs a program in the sandbox of a task, on the task's machine.
///
/// # Errors
/// When the machine cannot be asked.
pub fn exec(machines: &Machines, task: &Task, words: &[&str]) -> Result<Output> {
    let machine = machines[task.node].as_ref();
    let skein = machine.program("skein")?;
    run_on(machine, &[&[skein.as_str(), "exec", &task.id, "--"], words].concat())
}
