//! What a restart needs on disk: who the node is, the last assignment, its tasks' addresses.
//!
//! It is written before what depends on it is done: after a restart nobody would know a task of an
//! assignment that the disk lacks, and an address that it lacks would be given out twice. Commands
//! wait for a write that is under way. One that failed holds nothing back: it is tried again until
//! the disk has everything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::assignment::Assignment;
use cluster::id::TaskId;

use crate::Output;
use crate::worker::{Command, Worker};

/// From a write that failed to the next.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What was found on disk at start.
#[derive(Debug, Clone, Default)]
pub struct OnDisk {
    /// Whether it says who the node is, as it is now.
    pub has_identity: bool,
    /// The assignment that was in force last.
    pub assignment: Option<Arc<Assignment>>,
    /// The tasks' addresses that were in use last.
    pub egress: BTreeMap<TaskId, IpAddr>,
}

/// What is to be written, each whole; what is unset is on disk already.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// Who the node is.
    pub identity: bool,
    /// The assignment in force.
    pub assignment: Option<Arc<Assignment>>,
    /// The tasks' addresses on the egress bridge.
    pub egress: Option<BTreeMap<TaskId, IpAddr>>,
}

impl Files {
    fn is_empty(&self) -> bool {
        !self.identity && self.assignment.is_none() && self.egress.is_none()
    }
}

/// What is on disk, and what is on its way there.
#[derive(Debug)]
pub(crate) struct Disk {
    on_disk: OnDisk,
    writing: Option<Files>,
    /// Commands that wait for what is being written.
    held: Vec<Command>,
    /// Commands that were decided since: they may need another write.
    later: Vec<Command>,
    retry_at: Option<Duration>,
}

impl Disk {
    pub(crate) fn new(on_disk: OnDisk) -> Self {
        Self { on_disk, writing: None, held: Vec::new(), later: Vec::new(), retry_at: None }
    }

    /// The commands that nothing holds back, or what has to be on disk before them.
    pub(crate) fn before(
        &mut self,
        worker: &Worker,
        commands: Vec<Command>,
        now: Duration,
    ) -> Vec<Output> {
        self.later.extend(commands);
        if self.writing.is_some() {
            return Vec::new();
        }
        let mut outputs: Vec<Output> = self.held.drain(..).map(Output::Task).collect();
        self.retry_at.take_if(|at| *at <= now);
        let waits = self.retry_at.is_some();
        let files = if waits { Files::default() } else { self.lacks(worker) };
        if files.is_empty() {
            outputs.extend(self.later.drain(..).map(Output::Task));
            return outputs;
        }
        self.held = std::mem::take(&mut self.later);
        self.writing = Some(files.clone());
        outputs.push(Output::Write(files));
        outputs
    }

    fn lacks(&self, worker: &Worker) -> Files {
        let on_disk = &self.on_disk;
        let is_kept = |newest: &&Arc<Assignment>| {
            on_disk.assignment.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, newest))
        };
        let egress = worker.egress_addresses();
        Files {
            identity: !on_disk.has_identity,
            assignment: worker.assignment().filter(|newest| !is_kept(newest)).cloned(),
            egress: (egress != on_disk.egress).then_some(egress),
        }
    }

    /// What came of the write. What was decided meanwhile may depend on another one.
    pub(crate) fn written(&mut self, done: bool, now: Duration) {
        let Some(Files { identity, assignment, egress }) = self.writing.take() else { return };
        if !done {
            self.retry_at = Some(now + RETRY_PAUSE);
            return;
        }
        self.retry_at = None;
        self.on_disk.has_identity |= identity;
        if assignment.is_some() {
            self.on_disk.assignment = assignment;
        }
        if let Some(egress) = egress {
            self.on_disk.egress = egress;
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.retry_at
    }
}
