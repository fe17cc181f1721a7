//! What a restart needs on disk: who the node is, the last assignment, its tasks' addresses.
//!
//! It is written before what depends on it: after a restart nobody would know a task of an
//! assignment that the disk lacks, an address that it lacks would be given out twice, and a kernel
//! that is ahead of it would be taken back. So the pass over a new assignment waits for its write,
//! what gossip and the leader learn of it too, and all commands but [`Command::Stop`], which a
//! restart would give again. A write that failed, or that takes longer than [`WRITE_LIMIT`], holds
//! nothing back: it is tried again until the disk has everything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::assign::Held;
use cluster::assignment::Assignment;
use cluster::id::TaskId;

use crate::Output;
use crate::session::Session;
use crate::worker::{Command, Worker};

/// From a write that failed to the next.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// For how long a write holds back what depends on it.
pub const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// What was found on disk at start.
#[derive(Debug, Clone, Default)]
pub struct OnDisk {
    /// Whether it says who the node is, as it is now.
    pub has_identity: bool,
    /// The assignment that was in force last.
    pub assignment: Option<Arc<Held>>,
    /// The tasks' addresses that were in use last.
    pub egress: BTreeMap<TaskId, IpAddr>,
}

/// What is to be written, each whole; what is unset is on disk already.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// Who the node is.
    pub identity: bool,
    /// The assignment in force.
    pub assignment: Option<Arc<Held>>,
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
    writing: Option<Write>,
    /// Commands that wait for the write under way.
    held: Vec<Command>,
    /// Commands that were decided during it: they may need another one.
    later: Vec<Command>,
    retry_at: Option<Duration>,
}

#[derive(Debug)]
struct Write {
    files: Files,
    since: Duration,
    /// It has taken longer than [`WRITE_LIMIT`], and that was acted on.
    is_overdue: bool,
}

impl Disk {
    pub(crate) fn new(on_disk: OnDisk) -> Self {
        Self { on_disk, writing: None, held: Vec::new(), later: Vec::new(), retry_at: None }
    }

    /// Whether the newest assignment is still being written.
    pub(crate) fn is_behind(&self, worker: &Worker) -> bool {
        let is_waited_for = self.writing.as_ref().is_some_and(|write| !write.is_overdue);
        is_waited_for && worker.assignment().is_some_and(|newest| !self.has(newest))
    }

    /// Whether the write under way has just become one that holds nothing back.
    pub(crate) fn becomes_overdue(&mut self, now: Duration) -> bool {
        let Some(write) = self.writing.as_mut().filter(|write| !write.is_overdue) else {
            return false;
        };
        write.is_overdue = now >= write.since + WRITE_LIMIT;
        write.is_overdue
    }

    /// The commands whose write has ended, or is overdue.
    pub(crate) fn released(&mut self) -> Vec<Command> {
        match &self.writing {
            None => std::mem::take(&mut self.held),
            Some(write) if write.is_overdue => {
                let held = self.held.drain(..);
                held.chain(self.later.drain(..)).collect()
            }
            Some(_) => Vec::new(),
        }
    }

    /// The commands that nothing holds back, and what has to be on disk before the others.
    pub(crate) fn before(
        &mut self,
        (worker, session): (&Worker, &Session),
        commands: Vec<Command>,
        now: Duration,
    ) -> Vec<Output> {
        let (stops, others): (Vec<_>, Vec<_>) =
            commands.into_iter().partition(|command| matches!(command, Command::Stop(_)));
        let mut outputs: Vec<Output> = stops.into_iter().map(Output::Task).collect();
        self.later.extend(others);
        if let Some(write) = &self.writing {
            if write.is_overdue {
                outputs.extend(self.later.drain(..).map(Output::Task));
            }
            return outputs;
        }
        self.retry_at.take_if(|at| *at <= now);
        let waits = self.retry_at.is_some();
        let files = if waits { Files::default() } else { self.lacks(worker, session) };
        if files.is_empty() {
            outputs.extend(self.later.drain(..).map(Output::Task));
            return outputs;
        }
        self.held = std::mem::take(&mut self.later);
        self.writing = Some(Write { files: files.clone(), since: now, is_overdue: false });
        outputs.push(Output::Write(files));
        outputs
    }

    fn has(&self, assignment: &Arc<Assignment>) -> bool {
        let kept = self.on_disk.assignment.as_ref();
        kept.is_some_and(|kept| Arc::ptr_eq(&kept.assignment, assignment))
    }

    fn lacks(&self, worker: &Worker, session: &Session) -> Files {
        let on_disk = &self.on_disk;
        let egress = worker.egress_addresses();
        let newest = worker.assignment().filter(|newest| !self.has(newest));
        Files {
            identity: !on_disk.has_identity,
            assignment: newest.and_then(|newest| session.parts_of(newest)).cloned(),
            egress: (egress != on_disk.egress).then_some(egress),
        }
    }

    /// What came of the write.
    pub(crate) fn written(&mut self, done: bool, now: Duration) {
        let Some(Write { files, .. }) = self.writing.take() else { return };
        let Files { identity, assignment, egress } = files;
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
        let waited_for = self.writing.as_ref().filter(|write| !write.is_overdue);
        waited_for.map(|write| write.since + WRITE_LIMIT).or(self.retry_at)
    }
}
