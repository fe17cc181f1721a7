//! The life of one task as a pure machine: what a request or an event means in which phase.

use std::time::{Duration, SystemTime};

use crate::failure::Failure;
use crate::health::{Due, Monitor, ProbeResult};
use crate::protocol::HealthState;
use crate::protocol::{Exit, Phase, TaskReport};
use crate::spec::{HealthCheck, StartSpec, StopPolicy};
use crate::sys::Ended;

/// `SIGKILL`.
const KILL: i32 = 9;

/// How a sandbox without a task is stopped: there is nothing to signal.
const NO_TASK: StopPolicy = StopPolicy { signal: KILL, grace: Duration::ZERO };

/// Both clocks: one to decide by, one to show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) monotonic: Duration,
    pub(crate) wall: SystemTime,
}

/// What happens to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// What is to run is known.
    Launch { stop: StopPolicy, check: Option<HealthCheck> },
    /// The network is wired.
    Start(StartSpec),
    /// Pid 1 has been forked.
    Forked { pid: i32 },
    /// The command has been executed.
    Executed,
    /// The command could not be executed; pid 1 is about to end.
    ExecFailed(Failure),
    /// Someone wants it to stop.
    Stop { signal: Option<i32>, grace: Option<Duration> },
    /// Someone wants it gone.
    Kill,
    /// Pid 1 has ended, and with it every process of the task.
    Ended { ended: Ended, out_of_memory: bool },
    /// The probe that was asked for has ended.
    Probed(ProbeResult),
    /// The deadline has come.
    Tick,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// Fork pid 1 with these late facts.
    Fork(StartSpec),
    /// Send a signal to pid 1. SIGKILL ends every process of the task.
    Signal(i32),
    /// Run the health check's command.
    Probe,
    /// Kill the running probe.
    AbortProbe,
    /// The report has changed.
    Report,
}

/// One task's life.
pub(crate) struct Lifecycle {
    /// None while the sandbox waits for a task.
    stop: Option<StopPolicy>,
    check: Option<HealthCheck>,
    report: TaskReport,
    pid: Option<i32>,
    failure: Option<Failure>,
    /// A stop signal that came before the command could have a handler for it.
    pending_signal: Option<i32>,
    kill_at: Option<Duration>,
    monitor: Option<Monitor>,
}

impl Lifecycle {
    /// A sandbox for a task.
    pub(crate) fn new(dns_port: u16) -> Self {
        Lifecycle {
            stop: None,
            check: None,
            report: TaskReport { phase: Phase::Prepared, health: None, dns_port },
            pid: None,
            failure: None,
            pending_signal: None,
            kill_at: None,
            monitor: None,
        }
    }

    /// What is known of the task.
    pub(crate) fn report(&self) -> &TaskReport {
        &self.report
    }

    /// Pid 1 as the node sees it, while it lives.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// When a [`Input::Tick`] is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let probe = self.monitor.as_ref().map(Monitor::deadline);
        self.kill_at.into_iter().chain(probe).min()
    }

    /// Applies one input. `Err` is a refusal that changes nothing.
    pub(crate) fn step(&mut self, input: Input, now: Now) -> Result<Vec<Output>, String> {
        match input {
            Input::Launch { stop, check } => self.launch(stop, check),
            Input::Start(start) => self.start(start),
            Input::Forked { pid } => {
                self.pid = Some(pid);
                Ok(Vec::new())
            }
            Input::Executed => Ok(self.executed(now)),
            Input::ExecFailed(failure) => {
                self.failure = Some(failure);
                Ok(Vec::new())
            }
            Input::Stop { signal, grace } => Ok(self.stop(signal, grace, now)),
            Input::Kill => Ok(self.kill(now)),
            Input::Ended { ended, out_of_memory } => Ok(self.ended(ended, out_of_memory, now)),
            Input::Probed(result) => Ok(self.probed(result, now)),
            Input::Tick => Ok(self.tick(now)),
        }
    }

    /// Why no task may be launched in the sandbox: it is for one, once.
    pub(crate) fn launch_refusal(&self) -> Option<String> {
        match self.report.phase {
            Phase::Prepared if self.stop.is_none() => None,
            Phase::Prepared | Phase::Starting | Phase::Running { .. } | Phase::Exited(_) => {
                Some("task has already been launched".to_owned())
            }
        }
    }

    /// Why the task may not be released now.
    pub(crate) fn release_refusal(&self) -> Option<String> {
        match self.report.phase {
            Phase::Prepared | Phase::Exited(_) => None,
            Phase::Starting | Phase::Running { .. } => {
                Some("task is running: stop it first".to_owned())
            }
        }
    }

    fn launch(
        &mut self,
        stop: StopPolicy,
        check: Option<HealthCheck>,
    ) -> Result<Vec<Output>, String> {
        self.launch_refusal().map_or(Ok(()), Err)?;
        (self.stop, self.check) = (Some(stop), check);
        Ok(Vec::new())
    }

    fn start(&mut self, start: StartSpec) -> Result<Vec<Output>, String> {
        match self.report.phase {
            Phase::Prepared if self.stop.is_none() => {
                Err("no task has been launched in the sandbox".to_owned())
            }
            Phase::Prepared => {
                self.report.phase = Phase::Starting;
                Ok(vec![Output::Report, Output::Fork(start)])
            }
            Phase::Starting | Phase::Running { .. } => {
                Err("task has already been started".to_owned())
            }
            Phase::Exited(_) => Err("task has already ended".to_owned()),
        }
    }

    fn executed(&mut self, now: Now) -> Vec<Output> {
        let (Phase::Starting, Some(pid)) = (&self.report.phase, self.pid) else {
            return Vec::new();
        };
        self.report.phase = Phase::Running { pid, started_at: now.wall };
        let check = self.check.take();
        self.monitor = check.map(|check| Monitor::new(check, now.monotonic));
        self.report.health = self.monitor.as_ref().map(|monitor| monitor.report().clone());
        let pending = self.pending_signal.take().map(Output::Signal);
        pending.into_iter().chain([Output::Report]).collect()
    }

    fn stop(&mut self, signal: Option<i32>, grace: Option<Duration>, now: Now) -> Vec<Output> {
        let policy = self.stop.unwrap_or(NO_TASK);
        let signal = signal.unwrap_or(policy.signal);
        let kill_at = now.monotonic.saturating_add(grace.unwrap_or(policy.grace));
        match self.report.phase {
            Phase::Prepared => self.end_unstarted(now),
            Phase::Starting => {
                self.pending_signal = Some(signal);
                self.kill_by(kill_at);
                Vec::new()
            }
            Phase::Running { .. } => {
                self.kill_by(kill_at);
                vec![Output::Signal(signal)]
            }
            Phase::Exited(_) => Vec::new(),
        }
    }

    /// A second stop may shorten the wait, never lengthen it.
    fn kill_by(&mut self, at: Duration) {
        self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn kill(&mut self, now: Now) -> Vec<Output> {
        match self.report.phase {
            Phase::Prepared => self.end_unstarted(now),
            Phase::Starting | Phase::Running { .. } => {
                self.kill_at = None;
                vec![Output::Signal(KILL)]
            }
            Phase::Exited(_) => Vec::new(),
        }
    }

    fn end_unstarted(&mut self, now: Now) -> Vec<Output> {
        self.report.phase = Phase::Exited(Exit {
            code: 0,
            signal: None,
            error: Some("stopped before it was started".to_owned()),
            out_of_memory: false,
            started_at: None,
            finished_at: now.wall,
        });
        vec![Output::Report]
    }

    fn ended(&mut self, ended: Ended, out_of_memory: bool, now: Now) -> Vec<Output> {
        let (code, signal) = match ended {
            Ended::Code(code) => (code, None),
            Ended::Signal(signal) => (128 + signal, Some(signal)),
        };
        let started_at = match self.report.phase {
            Phase::Running { started_at, .. } => Some(started_at),
            Phase::Prepared | Phase::Starting | Phase::Exited(_) => None,
        };
        let health = self.report.health.take();
        let unhealthy = health.filter(|health| health.state == HealthState::Unhealthy);
        let (code, error) = match self.failure.take() {
            Some(failure) => (failure.code, Some(failure.error)),
            // Whatever its exit status; a daemon that was away meanwhile learns it from here.
            None => (code, unhealthy.map(|health| format!("task: unhealthy: {}", health.output))),
        };
        let finished_at = now.wall;
        let exit = Exit { code, signal, error, out_of_memory, started_at, finished_at };
        self.report.phase = Phase::Exited(exit);
        self.monitor = None;
        self.kill_at = None;
        self.pid = None;
        vec![Output::AbortProbe, Output::Report]
    }

    fn probed(&mut self, result: ProbeResult, now: Now) -> Vec<Output> {
        let Some(monitor) = &mut self.monitor else { return Vec::new() };
        monitor.finished(result, now.monotonic);
        let report = Some(monitor.report().clone());
        if report == self.report.health {
            return Vec::new();
        }
        self.report.health = report;
        vec![Output::Report]
    }

    fn tick(&mut self, now: Now) -> Vec<Output> {
        let mut outputs = Vec::new();
        if self.kill_at.is_some_and(|at| now.monotonic >= at) {
            self.kill_at = None;
            outputs.push(Output::Signal(KILL));
        }
        match self.monitor.as_mut().and_then(|monitor| monitor.step(now.monotonic)) {
            Some(Due::Probe) => outputs.push(Output::Probe),
            Some(Due::Abort) => outputs.push(Output::AbortProbe),
            None => {}
        }
        outputs
    }
}

#[cfg(test)]
mod tests;
