//! What the checks share: the project, named checks, and the usual questions.

use std::collections::BTreeSet;
use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use tests::containers::cluster::{Machines, log_tail};
use tests::containers::{Containers, Restart, sweep_dead};
use tests::lab::cluster::Task;
use tests::lab::command::run;
use tests::lab::topology::{Machine, Topology};

/// The overlay network of the services.
pub(crate) const NETWORK: &str = "vote";
/// Enough calls that each of five backends is met: one is missed with 5 (4/5)^100, about 1e-9.
pub(crate) const CALLS: usize = 100;
/// Limit for one program on the client.
const CLIENT_SECONDS: u32 = 60;

/// A project and its machines.
pub(crate) struct Stage {
    pub(crate) topology: Containers,
    machines: Vec<Box<dyn Machine>>,
    is_down: bool,
}

/// One named check.
pub(crate) type Check = (&'static str, fn(&mut dyn Topology, &mut Machines) -> Result<()>);

impl Stage {
    pub(crate) fn new(what: &str) -> Self {
        sweep_dead().unwrap_or_else(|error| panic!("leftovers of dead runs stay: {error:#}"));
        // As users have it: pid 1 starts a daemon that was killed.
        let topology =
            Containers::for_test(what, Restart::Always).unwrap_or_else(|error| panic!("{error:#}"));
        let machines = topology.machines().unwrap_or_else(|error| panic!("{error:#}"));
        Self { topology, machines, is_down: false }
    }

    /// Runs all checks in order, also after one failed, and fails with all complaints.
    pub(crate) fn check(&mut self, checks: &[Check]) {
        let mut complaints = Vec::new();
        for (name, check) in checks {
            let result = check(&mut self.topology, &mut self.machines);
            let verdict = if result.is_ok() { "ok" } else { "FAILED" };
            // Not println: what a scenario has reached is to be seen while it runs.
            let _ = writeln!(std::io::stdout(), "    {name} ... {verdict}");
            complaints.extend(result.err().map(|error| format!("{name}: {error:?}")));
        }
        let logs: String = self.machines.iter().map(|machine| log_tail(machine.as_ref())).collect();
        assert!(complaints.is_empty(), "{}\n{logs}", complaints.join("\n"));
    }

    /// docker-compose, on the project.
    pub(crate) fn compose(&self, words: &[&str]) {
        let done = self.topology.compose(words).and_then(|output| output.ok());
        done.unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Takes the project down, twice, and looks for what stays.
    pub(crate) fn leaves_nothing(mut self) {
        self.is_down = true;
        let name = self.topology.name().to_owned();
        for time in ["once", "twice"] {
            let down = self.topology.tear_down();
            assert!(down.is_ok(), "taking it down {time}: {down:?}");
        }
        let left = Containers::attach(&name, &std::env::temp_dir().join(&name));
        assert!(left.is_err(), "the project is still there");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.is_down {
            return;
        }
        let result = self.topology.tear_down();
        // A second panic while one unwinds would abort and hide the first one's words.
        if !std::thread::panicking() {
            assert!(result.is_ok(), "the project leaves something behind: {result:?}");
        }
    }
}

/// The line that runs a program in a task's namespaces on its machine, without asking any daemon.
pub(crate) fn task_line(machine: &dyn Machine, task: &Task, words: &[&str]) -> Vec<String> {
    let pid = task.pid.to_string();
    machine.line(&[&["nsenter", "-t", &pid, "-n", "-m", "-u", "--"], words].concat())
}

/// What the probe told: who answered, and the client that it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) server: String,
    pub(crate) client: String,
}

/// Reads the lines of `skein-lab-probe ask`.
pub(crate) fn read_told(text: &str) -> Result<Vec<Told>> {
    let read = |line: &str| {
        let mut words = line.split(' ');
        let (server, client) = (words.next()?, words.next()?.rsplit_once(':')?.0);
        Some(Told { server: server.to_owned(), client: client.to_owned() })
    };
    text.lines().map(|line| read(line).with_context(|| format!("reading {line:?}"))).collect()
}

/// Asks a probe from the external client, by new connections.
pub(crate) fn ask_outside(topology: &dyn Topology, to: &str, times: usize) -> Result<Vec<Told>> {
    let words = ["skein-lab-probe", "ask", "tcp", to, &times.to_string()];
    read_told(&run(CLIENT_SECONDS, &topology.client_line(&words))?.ok()?)
}

/// Fails unless the answers came from exactly these tasks. A task's host name is the first 12
/// characters of its id.
pub(crate) fn ensure_all_answer(told: &[Told], tasks: &[Task]) -> Result<()> {
    let answered: BTreeSet<_> = told.iter().map(|told| told.server.clone()).collect();
    let expected: BTreeSet<String> =
        tasks.iter().map(|task| task.id.chars().take(12).collect()).collect();
    ensure!(answered == expected, "answers came from {answered:?}, backends are {expected:?}");
    Ok(())
}
