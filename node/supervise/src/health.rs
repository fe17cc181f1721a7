//! When to probe a task and what the results mean: Docker's rules (moby `daemon/health.go`).

use std::time::Duration;

use crate::protocol::{HealthReport, HealthState};
use crate::spec::HealthCheck;

/// How much of a probe's output is kept (moby's `maxOutputLen`).
pub const PROBE_OUTPUT_BYTES_MAX: usize = 4096;

/// How a probe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProbeResult {
    /// It exited with this code and this output.
    Exited { code: i32, output: String },
    /// It was still running after the check's timeout.
    TimedOut,
    /// It could not be run.
    Failed { error: String },
}

/// The health of one running task.
pub(crate) struct Monitor {
    check: HealthCheck,
    started: Duration,
    probe: ProbePhase,
    report: HealthReport,
}

enum ProbePhase {
    Idle { next: Duration },
    Running { deadline: Duration },
}

/// What is due now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Start a probe.
    Probe,
    /// The running probe has taken too long: end it, and report [`ProbeResult::TimedOut`].
    Abort,
}

impl Monitor {
    /// A monitor for a task that has been executed at `now`.
    pub(crate) fn new(check: HealthCheck, now: Duration) -> Self {
        let report =
            HealthReport { state: HealthState::Starting, failing_streak: 0, output: String::new() };
        let probe = ProbePhase::Idle { next: now };
        let mut monitor = Monitor { check, started: now, probe, report };
        monitor.schedule(now);
        monitor
    }

    /// What is known.
    pub(crate) fn report(&self) -> &HealthReport {
        &self.report
    }

    /// When [`step`](Self::step) has something to do next.
    pub(crate) fn deadline(&self) -> Duration {
        match self.probe {
            ProbePhase::Idle { next } => next,
            ProbePhase::Running { deadline } => deadline,
        }
    }

    /// What to do at `now`.
    pub(crate) fn step(&mut self, now: Duration) -> Option<Due> {
        if now < self.deadline() {
            return None;
        }
        match self.probe {
            ProbePhase::Idle { .. } => {
                self.probe = ProbePhase::Running { deadline: now + self.check.timeout };
                Some(Due::Probe)
            }
            ProbePhase::Running { .. } => {
                // Asked once only: the result follows, however long ending the probe takes.
                self.probe = ProbePhase::Running { deadline: Duration::MAX };
                Some(Due::Abort)
            }
        }
    }

    /// Takes the result of the running probe.
    pub(crate) fn finished(&mut self, result: ProbeResult, now: Duration) {
        let (healthy, output) = match result {
            ProbeResult::Exited { code, output } => (code == 0, output),
            ProbeResult::TimedOut => {
                (false, format!("health check took longer than {:?}", self.check.timeout))
            }
            ProbeResult::Failed { error } => (false, error),
        };
        self.report.output = output;
        if healthy {
            self.report.failing_streak = 0;
            self.report.state = HealthState::Healthy;
        } else if !self.in_start_period(now) {
            self.report.failing_streak += 1;
            if self.report.failing_streak >= self.check.retries.max(1) {
                self.report.state = HealthState::Unhealthy;
            }
        }
        self.schedule(now);
    }

    fn in_start_period(&self, now: Duration) -> bool {
        self.report.state == HealthState::Starting && now < self.started + self.check.start_period
    }

    fn schedule(&mut self, now: Duration) {
        let wait =
            if self.in_start_period(now) { self.check.start_interval } else { self.check.interval };
        self.probe = ProbePhase::Idle { next: now + wait };
    }
}

#[cfg(test)]
mod tests;
