//! What is said on a supervisor's socket: one request a line, one answer a line; a subscriber
//! gets every further change of the report as well.
//!
//! A daemon speaks to supervisors that an older one has started, and reads their files: what is
//! here and in [`crate::spec::LaunchSpec`] only grows, by fields with a default and by new
//! requests that an old supervisor answers by closing the connection.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::spec::StartSpec;

/// What a client asks of a supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Answered by [`Message::Report`], now and after every change.
    Subscribe,
    /// Answered by [`Message::Report`].
    Report,
    /// What to run is in the file `spec.json`: get ready for it. Once.
    Launch,
    /// The sandbox is wired: run the command.
    Start(StartSpec),
    /// Send the signal, and SIGKILL after the grace. `None` is what the launch spec says.
    Stop { signal: Option<i32>, grace: Option<Duration> },
    /// SIGKILL, to all processes of the task.
    Kill,
    /// Answered by [`Message::Descriptors`]: namespace, DNS over UDP, DNS over TCP.
    Descriptors,
    /// The end has been noted: remove everything but the logs, and exit.
    Release,
}

/// What a supervisor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The state of the task.
    Report(TaskReport),
    /// The request has been carried out.
    Done,
    /// The request cannot be carried out in this phase.
    Refused { reason: String },
    /// Sent with the descriptors themselves.
    Descriptors,
}

/// What is known of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// How far it is. Only rises.
    pub phase: Phase,
    /// `None` while the task is not running and where it has no health check.
    pub health: Option<HealthReport>,
    /// The port of 127.0.0.11 at which the sandbox's DNS sockets are bound, UDP and TCP alike.
    pub dns_port: u16,
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The sandbox exists; the task waits to be started.
    Prepared,
    /// The task's namespaces and root are being made.
    Starting,
    /// The command has been executed.
    Running {
        /// Pid 1 of the task as the node sees it: the command, or the reaper where `init` is set.
        pid: i32,
        /// When, by the wall clock.
        started_at: SystemTime,
    },
    /// No process of the task is left.
    Exited(Exit),
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 + signal for a task that a signal ended; 127 or 126 for a program that
    /// cannot be found or executed, as a shell and Docker say it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why it never ran, or why nothing is known of its end.
    pub error: Option<String>,
    /// Whether the kernel killed it for its memory limit.
    pub out_of_memory: bool,
    /// When it was executed, if ever.
    pub started_at: Option<SystemTime>,
    /// When its end was seen.
    pub finished_at: SystemTime,
}

/// What the health check says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// The verdict.
    pub state: HealthState,
    /// Failed probes in a row.
    pub failing_streak: u32,
    /// The last probe's output or the reason why it failed, at most
    /// [`PROBE_OUTPUT_BYTES_MAX`](crate::PROBE_OUTPUT_BYTES_MAX) bytes.
    pub output: String,
}

/// The verdict of a health check, in Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthState {
    /// No verdict yet: neither a success nor enough failures.
    Starting,
    /// The last probe succeeded, or too few have failed since.
    Healthy,
    /// Too many probes in a row have failed.
    Unhealthy,
}

#[cfg(test)]
mod tests;
