//! The usual services of the scenarios.

use anyhow::{Result, ensure};

use crate::Lab;
use crate::cluster::{CONVERGE_MAX, Task, list};

/// The network that most scenarios use.
pub const NETWORK: &str = "vote";
/// Where the probe listens as service `echo`.
pub const ECHO_PORT: u16 = 7000;

/// Where the lab's own server and client lies on every node.
///
/// # Errors
/// When it was not built, or is not there.
pub fn probe(lab: &Lab) -> Result<String> {
    lab.program("skein-lab-probe")
}

/// Makes the overlay network of the scenarios.
///
/// # Errors
/// When it is refused.
pub fn make_network(lab: &mut Lab) -> Result<()> {
    let node = &lab.nodes[0];
    node.docker(&["network", "create", "-d", "overlay", "--attachable", NETWORK])?.ok()?;
    Ok(())
}

/// Creates a service of the network from a program of the nodes, and gives its tasks once
/// `count` of them run. `flags` come before the image.
///
/// # Errors
/// When it is refused, or the tasks do not run in time.
pub fn serve(
    lab: &Lab,
    name: &str,
    flags: &[&str],
    program: &[&str],
    count: usize,
) -> Result<Vec<Task>> {
    let mut words = vec!["--name", name, "--network", NETWORK];
    words.extend(flags);
    words.push("host");
    words.extend(program);
    lab.create_service(0, &words)?;
    lab.wait_running(0, name, count)
}

/// The service `echo`.
///
/// # Errors
/// As [`serve`].
pub fn serve_echo(lab: &Lab, replicas: usize) -> Result<Vec<Task>> {
    let (probe, port) = (probe(lab)?, ECHO_PORT.to_string());
    serve(lab, "echo", &["--replicas", &replicas.to_string()], &[&probe, "serve", &port], replicas)
}

/// A task on every node that others may be asked from.
///
/// # Errors
/// As [`serve`].
pub fn serve_client(lab: &Lab) -> Result<Vec<Task>> {
    let nodes = lab.nodes.len();
    serve(lab, "client", &["--mode", "global"], &[&probe(lab)?, "serve", "9"], nodes)
}

/// Both, as most scenarios begin: a client on every node and three replicas of `echo`.
///
/// # Errors
/// As [`serve`].
pub fn serve_client_and_echo(lab: &mut Lab) -> Result<()> {
    serve_client(lab)?;
    serve_echo(lab, 3)?;
    Ok(())
}

/// The tasks of `client` and `echo` as processes (id, node, process id): what must stay the same
/// where a daemon comes and goes.
///
/// # Errors
/// When the API does not answer.
pub fn processes(lab: &Lab) -> Result<Vec<(String, usize, i64)>> {
    let mut found = Vec::new();
    for service in ["client", "echo"] {
        let tasks = lab.running(0, service)?.into_iter();
        found.extend(tasks.map(|task| (task.id, task.node, task.pid)));
    }
    found.sort();
    Ok(found)
}

/// Real redis, three replicas.
///
/// # Errors
/// As [`serve`].
pub fn serve_redis(lab: &Lab) -> Result<Vec<Task>> {
    let program = ["redis-server", "--port", "6379", "--protected-mode", "no", "--save", ""];
    serve(lab, "redis", &["--replicas", "3"], &program, 3)
}

/// The host name that a task has: the first 12 characters of its id.
#[must_use]
pub fn hostname(task: &Task) -> String {
    task.id.chars().take(12).collect()
}

/// Removes services and waits until their tasks have ended on all nodes.
///
/// # Errors
/// When it is refused, or a task is left.
pub fn remove_services(lab: &Lab, names: &[&str]) -> Result<()> {
    let mut words = vec!["service", "rm"];
    words.extend(names);
    lab.nodes[0].docker(&words)?.ok()?;
    lab.wait_for(CONVERGE_MAX, "removed services' tasks to end", || {
        let tasks = lab.nodes[0].get("/tasks")?;
        let left: Vec<_> = list(&tasks)
            .map(|task| format!("{} {} {}", task["ID"], task["DesiredState"], task["Status"]))
            .collect();
        ensure!(left.is_empty(), "{} tasks are left: {left:?}", left.len());
        Ok(())
    })
}
