//! The demo in containers: three managers and two workers by `deploy/compose/`, redis behind a VIP,
//! and a web front on every node.
//!
//! `skein-compose up` starts it and shows it, `status` shows it again, `down` removes all of it.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::containers::cluster::{
    Machines, create_service, docker, exec, make_cluster, run_on, running, wait_running,
};
use tests::containers::{Containers, NODES, Restart, remove};
use tests::lab::cluster::CONVERGE_MAX;
use tests::lab::command::run;
use tests::lab::topology::Topology;
use tests::lab::wait::{now, wait_for};

const NAME: &str = "skein-compose";
const FOLDER: &str = "/var/lib/skein-compose";
const MANAGERS: usize = 3;
const NETWORK: &str = "vote";
const FRONT_PORT: u16 = 3000;
/// Limit for one call from the client.
const CALL_SECONDS: u32 = 10;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["up"] => up(),
        ["status"] => attach().and_then(|(topology, machines)| show(&topology, &machines)),
        ["down"] => down(),
        _ => {
            say("usage: skein-compose up | status | down");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "skein-compose: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    // Nobody to tell is no reason to stop.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn title(text: &str) {
    say(&format!("\n== {text}"));
}

fn up() -> Result<()> {
    say("Five containers are made; a real daemon starts in each.");
    let topology = Containers::create(NAME, Path::new(FOLDER), Restart::Always)?;
    let mut machines = topology.machines()?;
    let result = start(&mut machines).and_then(|()| show(&topology, &machines));
    // A demo that failed half-way is left for a look too: `down` removes it.
    result.context("the demo did not come up; look around, then run `make demo-compose-down`")?;
    farewell(&topology, &machines);
    Ok(())
}

fn attach() -> Result<(Containers, Vec<Box<dyn tests::lab::topology::Machine>>)> {
    let topology =
        Containers::attach(NAME, Path::new(FOLDER)).context("run `make demo-compose`")?;
    let machines = topology.machines()?;
    Ok((topology, machines))
}

fn down() -> Result<()> {
    remove(NAME, Path::new(FOLDER))?;
    say("The demo is gone: its containers, network, volumes and files.");
    Ok(())
}

fn start(machines: &mut Machines) -> Result<()> {
    let begin = now();
    make_cluster(machines, MANAGERS)?;
    say(&format!("From containers that are off to {NODES} ready nodes: {:.1?}", begin.elapsed()));
    let first = machines[0].as_ref();
    docker(first, &["network", "create", "-d", "overlay", NETWORK])?.ok()?;
    let (worker, vote) = (first.program("skein-demo-worker")?, first.program("skein-demo-vote")?);
    let create = |name: &str, flags: &[&str], program: &[&str]| {
        let common = ["--network", NETWORK, "--name", name];
        create_service(first, &[&common, flags, &["host"], program].concat())
    };
    let redis = ["redis-server", "--port", "6379", "--protected-mode", "no", "--save", ""];
    create("redis", &["--replicas", "3"], &redis)?;
    wait_running(machines, 0, "redis", 3)?;
    create("worker", &[], &[&worker, "redis:6379"])?;
    create("vote", &["-p", &format!("{FRONT_PORT}:80")], &[&vote])?;
    wait_running(machines, 0, "worker", 1)?;
    wait_running(machines, 0, "vote", 1)?;
    Ok(())
}

fn show(topology: &Containers, machines: &Machines) -> Result<()> {
    let first = machines[0].as_ref();
    title("The nodes (docker node ls)");
    say(&docker(first, &["node", "ls"])?.ok()?);
    title("The tasks");
    for service in ["redis", "worker", "vote"] {
        for task in running(machines, 0, service)? {
            let name = format!("{service}.{}", task.slot);
            say(&format!("{name:<10} node{} {}", task.node + 1, task.address(NETWORK)?));
        }
    }
    let worker = wait_running(machines, 0, "worker", 1)?.remove(0);
    title("What the worker resolves in its sandbox");
    for name in ["redis", "tasks.redis"] {
        let output = exec(machines, &worker, &["getent", "ahostsv4", name])?.ok()?;
        let mut found: Vec<_> = output.lines().filter_map(|line| line.split(' ').next()).collect();
        found.sort_unstable();
        found.dedup();
        say(&format!("{name:<12} {}", found.join(" ")));
    }
    title("Which replica answered the worker's calls to the VIP (docker service logs worker)");
    let report = wait_for(CONVERGE_MAX, "the worker's report", || {
        let words = ["service", "logs", "--raw", "--tail", "1", "worker"];
        let line = docker(first, &words)?.ok()?;
        ensure!(line.matches("10.").count() > 3, "it says {line:?}");
        Ok(line)
    })?;
    say(&report);
    title("The path of one packet (skein explain)");
    let words = ["skein", "explain", &worker.id, "redis", "6379"];
    say(&run_on(machines[worker.node].as_ref(), &words)?.ok()?);
    title(&format!("A vote through port {FRONT_PORT} of each node, from outside"));
    votes(topology, machines)
}

fn votes(topology: &Containers, machines: &Machines) -> Result<()> {
    say(&format!("calling from {}", topology.client_address()));
    for (index, machine) in machines.iter().enumerate() {
        let choice = if index == 1 { "dogs" } else { "cats" };
        let url = format!("http://{}:{FRONT_PORT}/vote?for={choice}", machine.address());
        let line = topology.client_line(&["curl", "-sSf", "--max-time", "5", &url]);
        let answer =
            wait_for(CONVERGE_MAX, "the front to answer", || run(CALL_SECONDS, &line)?.ok())?;
        let answer: Value = serde_json::from_str(&answer).context("reading the front's answer")?;
        let (client, votes) = (&answer["client"], &answer["votes"]);
        say(&format!("{url}: votes {votes}, the task saw client {client}"));
        let own = topology.client_address().to_string();
        ensure!(client == &Value::String(own), "the task saw {client} for the client");
    }
    Ok(())
}

fn farewell(topology: &Containers, machines: &Machines) {
    let socket = machines[0].socket();
    let engine = topology.engine().docker_line(&[]).join(" ");
    title("It all keeps running. Look around:");
    say(&format!("  docker -H unix://{} service ls", socket.display()));
    say(&format!("  {engine} ps"));
    say(&format!("  {engine} exec -it {NAME}_node1_1 skein doctor"));
    let front = format!("{}:{FRONT_PORT}/vote?for=cats", machines[0].address());
    say(&format!("  {engine} exec {NAME}_client_1 curl -s '{front}'"));
    say("  make demo-compose-down     stops it; nothing stays behind");
}
