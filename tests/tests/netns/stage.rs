//! What the scenarios share: one lab at a time, checks with names, and the usual services.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use tests::lab::cluster::Task;
use tests::lab::command::{Output, run};
use tests::lab::{Lab, Node, sweep_dead};

/// The lab's own server and client.
pub(crate) const PROBE: &str = env!("CARGO_BIN_EXE_skein-lab-probe");
/// The network that most scenarios use.
pub(crate) const NETWORK: &str = "vote";
/// Where the probe listens as service `echo`.
pub(crate) const ECHO_PORT: u16 = 7000;
/// Enough calls that each of three backends is met: one is missed with (2/3)^60, about 3e-11.
pub(crate) const CALLS: usize = 60;

/// Scenarios take turns: clusters side by side on two cores would time each other out.
static TURN: Mutex<()> = Mutex::new(());

/// A lab and the right to be the only one.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    _turn: MutexGuard<'static, ()>,
}

/// One named check.
pub(crate) type Check = (&'static str, fn(&mut Lab) -> Result<()>);

impl Stage {
    /// A lab without a running daemon.
    pub(crate) fn empty(what: &str, nodes: usize) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        sweep_dead().expect("leftovers of dead runs can be removed");
        let lab = Lab::for_test(what, nodes).unwrap_or_else(|error| panic!("{error:#}"));
        Self { lab, _turn: turn }
    }

    /// A lab whose nodes form a cluster; the first `managers` are managers.
    pub(crate) fn cluster(what: &str, nodes: usize, managers: usize) -> Self {
        let mut stage = Self::empty(what, nodes);
        stage.lab.make_cluster(managers).unwrap_or_else(|error| panic!("{error:#}"));
        stage
    }

    /// Runs all checks in order, also after one failed, and fails with all complaints.
    pub(crate) fn check(&mut self, checks: &[Check]) {
        let mut complaints = Vec::new();
        for (name, check) in checks {
            let result = check(&mut self.lab);
            let verdict = if result.is_ok() { "ok" } else { "FAILED" };
            let lab = self.lab.name.splitn(3, '-').last().unwrap_or_default();
            // Not println: what a scenario has reached is to be seen while it runs.
            let _ = writeln!(std::io::stdout(), "    {lab}: {name} ... {verdict}");
            complaints.extend(result.err().map(|error| format!("{name}: {error:?}")));
        }
        let logs: String = self.lab.nodes.iter().map(Node::log_tail).collect();
        assert!(complaints.is_empty(), "{}\n{logs}", complaints.join("\n"));
    }
}

/// Makes the overlay network of the scenarios.
pub(crate) fn make_network(lab: &mut Lab) -> Result<()> {
    let node = &lab.nodes[0];
    node.docker(&["network", "create", "-d", "overlay", "--attachable", NETWORK])?.ok()?;
    Ok(())
}

/// Creates a service of the network from a program of this machine, and gives its tasks once
/// `count` of them run. `flags` come before the image.
pub(crate) fn serve(
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

/// The service `echo` on three replicas.
pub(crate) fn serve_echo(lab: &Lab, replicas: usize) -> Result<Vec<Task>> {
    let port = ECHO_PORT.to_string();
    serve(lab, "echo", &["--replicas", &replicas.to_string()], &[PROBE, "serve", &port], replicas)
}

/// A task on every node that others may be asked from.
pub(crate) fn serve_client(lab: &Lab) -> Result<Vec<Task>> {
    let nodes = lab.nodes.len();
    serve(lab, "client", &["--mode", "global"], &[PROBE, "serve", "9"], nodes)
}

/// Real redis, three replicas.
pub(crate) fn serve_redis(lab: &Lab) -> Result<Vec<Task>> {
    let program = ["redis-server", "--port", "6379", "--protected-mode", "no", "--save", ""];
    serve(lab, "redis", &["--replicas", "3"], &program, 3)
}

/// Runs a program in a task's namespaces, without asking any daemon.
pub(crate) fn in_task(task: &Task, words: &[&str]) -> Result<Output> {
    let pid = task.pid.to_string();
    let mut line = vec!["nsenter", "-t", &pid, "-n", "-m", "-u", "--"];
    line.extend(words);
    run(60, &line)
}

/// What the probe told: who answered, and the client that it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) server: String,
    pub(crate) client: String,
    pub(crate) client_port: u16,
}

/// Reads the lines of `skein-lab-probe ask`.
pub(crate) fn read_told(text: &str) -> Result<Vec<Told>> {
    let read = |line: &str| {
        let mut words = line.split(' ');
        let (server, client) = (words.next()?, words.next()?);
        let (address, port) = client.rsplit_once(':')?;
        let client_port = port.parse().ok()?;
        Some(Told { server: server.to_owned(), client: address.to_owned(), client_port })
    };
    text.lines().map(|line| read(line).with_context(|| format!("reading {line:?}"))).collect()
}

/// Asks a probe from a task, `times` times by new connections.
pub(crate) fn ask(from: &Task, protocol: &str, to: &str, times: usize) -> Result<Vec<Told>> {
    let words = [PROBE, "ask", protocol, to, &times.to_string()];
    read_told(&in_task(from, &words)?.ok()?)
}

/// The host name that a task has: the first 12 characters of its id.
pub(crate) fn hostname(task: &Task) -> String {
    task.id.chars().take(12).collect()
}

/// Fails unless the answers came from exactly these tasks.
pub(crate) fn ensure_all_answer(told: &[Told], tasks: &[Task]) -> Result<()> {
    let answered: BTreeSet<_> = told.iter().map(|told| told.server.clone()).collect();
    let expected: BTreeSet<_> = tasks.iter().map(hostname).collect();
    ensure!(answered == expected, "answers came from {answered:?}, backends are {expected:?}");
    Ok(())
}

/// One TCP connection from a task that counts, every 5 ms, until it is asked for the result.
pub(crate) struct Counter {
    child: Child,
}

impl Counter {
    pub(crate) fn start(from: &Task, to: &str) -> Result<Self> {
        let child = Command::new("nsenter")
            .args(["-t", &from.pid.to_string(), "-n", "-m", "--", PROBE, "count", to])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting the counter")?;
        Ok(Self { child })
    }

    /// Ends the count. Fails unless every number came back, in order; gives the longest silence
    /// in milliseconds.
    pub(crate) fn finish(mut self) -> Result<u64> {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output().context("awaiting the counter")?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "the connection broke: {text} {errors}");
        let number = |key: &str| {
            let word = text.split(' ').find_map(|word| word.strip_prefix(key));
            word.and_then(|word| word.parse::<u64>().ok()).context("reading the counter")
        };
        let (sent, received) = (number("sent=")?, number("received=")?);
        ensure!(sent > 0 && sent == received, "not all numbers came back: {text}");
        number("gap_ms=")
    }
}

/// Removes services and waits until their tasks have ended on all nodes.
pub(crate) fn remove_services(lab: &Lab, names: &[&str]) -> Result<()> {
    let mut words = vec!["service", "rm"];
    words.extend(names);
    lab.nodes[0].docker(&words)?.ok()?;
    lab.wait_for(tests::lab::cluster::CONVERGE_MAX, "removed services' tasks to end", || {
        let tasks = lab.nodes[0].get("/tasks")?;
        let left: Vec<_> = tests::lab::cluster::list(&tasks)
            .map(|task| format!("{} {} {}", task["ID"], task["DesiredState"], task["Status"]))
            .collect();
        ensure!(left.is_empty(), "{} tasks are left: {left:?}", left.len());
        Ok(())
    })
}
