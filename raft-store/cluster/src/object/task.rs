//! A task: one run of one slot of a service. Its state only rises; a new run is a new task.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Attachment, Meta, PublishedPort, Slot};
use crate::generic::GenericResource;
use crate::id::{NodeId, ServiceId, TaskId};
use crate::spec::{CheckedTask, Labels, PublishMode};
use crate::time::{Revision, Timestamp};

/// One run of one slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Version and times.
    pub meta: Meta,
    /// The service it belongs to.
    pub service: ServiceId,
    /// Name of that service, kept so that the task can be named after the service is gone.
    pub service_name: String,
    /// Labels of that service.
    pub service_labels: Labels,
    /// Which slot.
    pub slot: Slot,
    /// Where it runs; `None` while nobody can take it.
    pub node: Option<NodeId>,
    /// What it runs.
    pub spec: CheckedTask,
    /// The service's `spec_version` that it was made from.
    pub spec_version: Revision,
    /// Published ports of that spec. Their ports towards the ingress VIP are the service's to
    /// give, and not here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PublishedPort>,
    /// Its attachments in the order of the spec's networks, the ingress network last.
    pub attachments: Vec<Attachment>,
    /// What is wanted of it.
    pub desired: TaskState,
    /// What is known of it.
    pub status: TaskStatus,
    /// Not to be started before this moment (restart delay). A worker whose clock is off waits at
    /// most from first sight for as long as the longest delay that policy and backoff can give.
    pub start_after: Option<Timestamp>,
    /// Its node was declared down or left: its addresses may be given to another, and only its own
    /// node still knows of it.
    #[serde(default)]
    pub released: bool,
    /// The runs of its slot before it.
    #[serde(default)]
    pub restarts: Restarts,
    /// When it was seen to run, by the leader's clock; `None` if it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_at: Option<Timestamp>,
    /// What it was given of its node's generic resources: its own until it is seen to have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generic_resources: Vec<GenericResource>,
}

/// What the restart policy needs to know of the runs before a task, kept in the task because
/// history is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Restarts {
    /// Runs of this slot with this spec that ended by themselves, within the policy's window.
    pub attempts: u64,
    /// When that window began.
    pub window_start: Timestamp,
    /// Runs in a row that ended soon after their start: they make the delay grow.
    pub streak: u32,
    /// The first run of this slot with this spec, once it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<FirstRun>,
}

/// The first run of a slot with a spec, which ended by itself: what an update is judged by, as in
/// Docker. The runs that the restart policy adds are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstRun {
    /// Its task.
    pub task: TaskId,
    /// When that was made.
    pub made_at: Timestamp,
    /// When it was seen to run; `None` if it never was.
    pub ran_at: Option<Timestamp>,
    /// When it was seen to have ended.
    pub ended_at: Timestamp,
}

impl Task {
    /// `<service>.<slot>.<task id>`, Docker's name of a task.
    #[must_use]
    pub fn name(&self) -> String {
        match self.slot {
            Slot::Replica(number) => format!("{}.{number}.{}", self.service_name, self.id),
            Slot::Node(node) => format!("{}.{node}.{}", self.service_name, self.id),
        }
    }

    /// Ports that it binds on its node.
    pub fn host_ports(&self) -> impl Iterator<Item = &PublishedPort> {
        self.ports.iter().filter(|port| port.mode == PublishMode::Host)
    }

    /// Whether it is on the ingress network: some port of it is published on every node.
    #[must_use]
    pub fn is_on_ingress(&self) -> bool {
        self.ports.iter().any(|port| port.mode == PublishMode::Ingress)
    }

    /// Whether it should run and may still do so.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.desired <= TaskState::Running && !self.status.state.is_terminal()
    }

    /// Whether its addresses are still in use: until it is seen to have ended, or its node is gone.
    #[must_use]
    pub fn holds_addresses(&self) -> bool {
        !self.status.state.is_terminal() && !self.released
    }

    /// Whether nothing more will come of it: it ended, or its node is gone.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.status.state.is_terminal() || self.released
    }

    /// The first run of its slot with its spec if that ended by itself: its own, or one before it.
    #[must_use]
    pub fn first_run(&self) -> Option<FirstRun> {
        let own = FirstRun {
            task: self.id,
            made_at: self.meta.created_at,
            ran_at: self.ran_at,
            ended_at: self.status.at,
        };
        self.restarts.first.or(self.status.state.is_own_end().then_some(own))
    }

    /// The desired state as Docker shows it: a task that ended and is not replaced is kept here as
    /// `Complete`, and there as `shutdown`; one whose restart delay is not over is to be `ready`.
    #[must_use]
    pub fn shown_desired(&self, now: Timestamp) -> TaskState {
        match self.desired {
            TaskState::Complete => TaskState::Shutdown,
            TaskState::Running if self.delayed_until(now).is_some() => TaskState::Ready,
            other => other,
        }
    }

    /// When its restart delay is over, if it still waits for that. One that was started does not,
    /// whatever the clock was set to since.
    #[must_use]
    pub fn delayed_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.start_after.filter(|at| self.status.state <= TaskState::Ready && now < *at)
    }
}

/// What is known of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// How far it came.
    pub state: TaskState,
    /// When that was seen.
    pub at: Timestamp,
    /// In words.
    pub message: String,
    /// What went wrong, empty if nothing.
    pub error: String,
    /// Process id on its node.
    pub pid: Option<u32>,
    /// Exit status once it ended.
    pub exit_code: Option<i32>,
    /// False while its health check has not passed, or fails.
    pub healthy: bool,
}

/// How far a task came; the order is Docker's and a task only moves up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Created.
    New,
    /// Has its addresses, waits for a node.
    Pending,
    /// Has a node.
    Assigned,
    /// Its node knows.
    Accepted,
    /// Its node makes the sandbox.
    Preparing,
    /// Sandbox and network are programmed.
    Ready,
    /// The program is being started.
    Starting,
    /// The program runs.
    Running,
    /// Ended by itself with status 0.
    Complete,
    /// Was stopped.
    Shutdown,
    /// Ended with an error.
    Failed,
    /// Could not be run at all.
    Rejected,
    /// Only a desired state: to be stopped and forgotten.
    Remove,
    /// Its node has been down for too long to know.
    Orphaned,
}

impl TaskState {
    /// Whether nothing can follow.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }

    /// Whether it ended without being asked to: its program did, or could not be run.
    #[must_use]
    pub fn is_own_end(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Rejected)
    }

    /// The one way a state changes: upwards.
    #[must_use]
    pub fn advance(self, next: Self) -> Option<Self> {
        (next > self && !self.is_terminal()).then_some(next)
    }

    /// Docker's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[test]
fn a_task_that_runs_is_not_shown_as_waiting() {
    let mut task = crate::fixture::task(1, 2, Vec::new());
    task.start_after = Some(Timestamp(10));
    for (state, now, shown) in [
        (TaskState::Assigned, 9, TaskState::Ready),
        (TaskState::Ready, 9, TaskState::Ready),
        (TaskState::Ready, 10, TaskState::Running),
        // The clock was set back.
        (TaskState::Running, 9, TaskState::Running),
        (TaskState::Starting, 9, TaskState::Running),
    ] {
        task.status.state = state;
        assert_eq!(task.shown_desired(Timestamp(now)), shown, "{state:?} at {now}");
    }
}
