//! The agent: what a node does as a worker, decided without a clock, a socket or a thread.
//!
//! [`Agent`] owns the role: the node's tasks ([`Worker`]), the worker's side of its session with
//! the leader, when the kernel is looked at and how thoroughly, what a restart needs on disk
//! before what depends on it, and what gossip and the rest of the daemon are told. Its shell waits,
//! moves bytes and brings back what came of it.
//!
//! A call to the leader is put to one manager after the other as [`Search`] says.
//!
//! Deliberately absent: gossip's engine, a core of its own in a task of its own, which must answer
//! within milliseconds whatever the agent does.

mod agent;
mod disk;
pub mod lateness;
mod listeners;
mod passes;
mod publish;
mod search;
mod session;
#[cfg(test)]
mod tests;
pub mod worker;

use std::time::Duration;

use cluster::time::Timestamp;

pub use crate::agent::{Agent, Config, Input, Output};
pub use crate::disk::{Files, OnDisk, WRITE_LIMIT};
pub use crate::listeners::Young;
pub use crate::passes::{Disturbed, Facts, Pass, Passed};
pub use crate::publish::gossip_peers;
pub use crate::search::{ASKED_MAX, Search};
pub use crate::session::{Answer, Missed, REPORT_INTERVAL, Report, Watch};
pub use crate::worker::{Adopted, Command, Ended, Event, Health, LocalTask, Phase, Worker};

/// Both clocks at one moment: the monotonic one decides what is due; the wall's is for statuses,
/// and for delays that the leader's clock counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// Monotonic.
    pub now: Duration,
    /// Wall.
    pub wall: Timestamp,
}
