//! The virtual executor: supervisors and their tasks, which outlive the daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use agent::{Command, Ended, Event as TaskEvent, Health, Input};
use cluster::id::{NodeId, TaskId};
use rand::RngExt as _;

use super::world::{Event, World};

/// How long a program that will end by itself runs at most.
const LIFE_MS_MAX: u64 = 20_000;
/// First port of DNS servers; only its being the same across adoption matters.
const DNS_PORT_FIRST: u16 = 20_000;

/// What the executor does next for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The supervisor made the sandbox; or could not.
    Prepared { possible: bool },
    /// The program runs.
    Running { checked: bool },
    /// A health check passed.
    Passed,
    /// Health checks failed as often as the spec allows.
    Failing,
    /// The program ended by itself.
    Exit { code: i32 },
    /// The program ended because it was asked to.
    Stopped,
}

/// How a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Launching,
    Prepared,
    Running(Health),
    Ended { code: i32 },
}

/// A task with its supervisor.
#[derive(Debug)]
pub(super) struct Supervised {
    pub(super) stage: Stage,
    dns_port: u16,
}

/// All tasks of a machine.
#[derive(Debug, Default)]
pub(super) struct Executor {
    pub(super) tasks: BTreeMap<TaskId, Supervised>,
    launched: u16,
}

impl Executor {
    /// What a new daemon finds.
    pub(super) fn reports(&self) -> BTreeMap<TaskId, TaskEvent> {
        self.tasks.iter().filter_map(|(id, task)| Some((*id, task.report()?))).collect()
    }

    /// The machine died; records of its tasks may be on the disk.
    pub(super) fn lose_all(&mut self, records_stay: bool) {
        self.tasks.retain(|_, task| records_stay && task.stage != Stage::Launching);
        for task in self.tasks.values_mut() {
            if !matches!(task.stage, Stage::Ended { .. }) {
                task.stage = Stage::Ended { code: 137 };
            }
        }
    }

    /// The daemon died: launches that were under way happened, or did not. Returns those that did.
    pub(super) fn settle_launches(&mut self, mut happened: impl FnMut() -> bool) -> Vec<TaskId> {
        let mut made = Vec::new();
        self.tasks.retain(|id, task| {
            if task.stage != Stage::Launching {
                return true;
            }
            let is_made = happened();
            if is_made {
                task.stage = Stage::Prepared;
                made.push(*id);
            }
            is_made
        });
        made
    }
}

impl Supervised {
    /// Whether its program runs.
    pub(super) fn runs(&self) -> bool {
        matches!(self.stage, Stage::Running(_))
    }

    fn report(&self) -> Option<TaskEvent> {
        let (dns_udp_port, dns_tcp_port) = (self.dns_port, self.dns_port);
        match self.stage {
            Stage::Launching => None,
            Stage::Prepared => Some(TaskEvent::Prepared { dns_udp_port, dns_tcp_port }),
            Stage::Running(health) => Some(TaskEvent::Running {
                dns_udp_port,
                dns_tcp_port,
                pid: u32::from(self.dns_port),
                health,
                detail: String::new(),
            }),
            Stage::Ended { code } => Some(TaskEvent::Ended(Ended {
                exit_code: Some(code),
                error: String::new(),
                rejected: false,
            })),
        }
    }
}

impl World {
    pub(super) fn command(&mut self, node: NodeId, command: Command) {
        let rejected = !self.calm && self.chance.random_bool(self.swarm.reject);
        let checked = self.chance.random_bool(self.swarm.checked);
        let (task, delay, step) = match command {
            Command::Launch(task) => {
                (task, self.ms_between(5, 60), Step::Prepared { possible: !rejected })
            }
            Command::Start(task) => (task, self.ms_between(1, 40), Step::Running { checked }),
            Command::Stop(task) => (task, self.ms_between(1, 300), Step::Stopped),
            Command::Forget(task) => return self.forget(node, task),
        };
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if let Command::Launch(task) = command {
            let disk = &host.disk;
            let has_task =
                disk.assignment.as_ref().is_some_and(|on| on.assignment.own.contains_key(&task));
            if !disk.holds_nothing_back(self.now) && (!has_task || !disk.egress.contains_key(&task))
            {
                let found = format!("node {}: {task} is launched before it is on disk", node.0);
                self.problems.push(found);
            }
            if disk.is_outdated {
                self.leader.let_go.insert(task);
            }
            host.executor.launched += 1;
            let dns_port = DNS_PORT_FIRST + host.executor.launched;
            let launching = Supervised { stage: Stage::Launching, dns_port };
            if let Some(before) = host.executor.tasks.insert(task, launching) {
                let found = format!("task {task} is launched on top of itself: {:?}", before.stage);
                self.problems.push(found);
            }
        }
        let Some(boot) = self.hosts.get(&node).map(|host| host.boot) else { return };
        self.after(delay, Event::Task { node, boot, task, step });
    }

    fn forget(&mut self, node: NodeId, task: TaskId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        // A task that was rejected at once has no supervisor, and one whose program never ran has
        // one that goes.
        let known = host.executor.tasks.remove(&task);
        if known.is_some_and(|known| known.runs()) {
            self.problems.push(format!("node {}: task {task} is forgotten alive", node.0));
        }
        host.kernel.delete_sandbox(task);
    }

    pub(super) fn serve_task(&mut self, node: NodeId, boot: u64, task: TaskId, step: Step) {
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.boot == boot) else { return };
        let Some(known) = host.executor.tasks.get_mut(&task) else { return };
        let stage = match (known.stage, step) {
            (Stage::Launching, Step::Prepared { possible: true }) => {
                host.kernel.create_sandbox(task);
                Stage::Prepared
            }
            (Stage::Launching, Step::Prepared { possible: false }) => {
                host.executor.tasks.remove(&task);
                let error = "it cannot be made".to_owned();
                // Half of the tasks for a reason that passes.
                let input = if task.0.is_multiple_of(2) {
                    Input::NotDone { command: Command::Launch(task), error }
                } else {
                    Input::Task(task, TaskEvent::Ended(Ended::rejected(error)))
                };
                return self.agent_input(node, input);
            }
            (Stage::Prepared, Step::Running { checked: true }) => Stage::Running(Health::Starting),
            (Stage::Prepared, Step::Running { checked: false }) => {
                Stage::Running(Health::Unchecked)
            }
            (Stage::Running(_), Step::Passed) => Stage::Running(Health::Healthy),
            (Stage::Running(_), Step::Failing) if !self.calm => Stage::Running(Health::Unhealthy),
            (Stage::Running(_), Step::Exit { code }) if !self.calm => Stage::Ended { code },
            (Stage::Prepared | Stage::Running(_), Step::Stopped) => Stage::Ended { code: 143 },
            (Stage::Launching | Stage::Prepared | Stage::Running(_) | Stage::Ended { .. }, _) => {
                return;
            }
        };
        known.stage = stage;
        let Some(report) = known.report() else { return };
        self.what_follows(node, boot, task, stage);
        self.agent_input(node, Input::Task(task, report));
    }

    /// What a task does by itself after it reached a stage.
    fn what_follows(&mut self, node: NodeId, boot: u64, task: TaskId, stage: Stage) {
        let later = |world: &mut Self, delay: Duration, step: Step| {
            world.after(delay, Event::Task { node, boot, task, step });
        };
        match stage {
            Stage::Launching | Stage::Prepared | Stage::Running(Health::Unhealthy) => {}
            Stage::Running(Health::Starting) => {
                let delay = self.ms_between(50, 1_000);
                later(self, delay, Step::Passed);
            }
            Stage::Running(Health::Healthy | Health::Unchecked) => {
                if self.chance.random_bool(self.swarm.exit) {
                    let delay = self.ms_between(100, LIFE_MS_MAX);
                    let code = i32::from(self.chance.random_bool(0.5));
                    later(self, delay, Step::Exit { code });
                }
                if self.chance.random_bool(self.swarm.failing) {
                    let delay = self.ms_between(100, LIFE_MS_MAX);
                    later(self, delay, Step::Failing);
                }
            }
            Stage::Ended { .. } => {
                // The sandbox goes with its last process, or when its supervisor is released.
                if self.chance.random_bool(0.5)
                    && let Some(host) = self.hosts.get_mut(&node)
                {
                    host.kernel.delete_sandbox(task);
                }
            }
        }
    }
}
