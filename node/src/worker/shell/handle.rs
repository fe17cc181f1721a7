//! What the rest of the daemon may ask of a running worker.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::lateness::Lateness;
use agent::{Input, LocalTask, Phase, Report};
use cluster::assignment::Assignment;
use cluster::id::TaskId;
use cluster::object::Trust;
use netprog::plane::Plane;
use tokio::sync::{mpsc, oneshot, watch};

use super::start::QUEUE;
use crate::clock;
use crate::disk::{self, DiskError};
use crate::executor::{Executor, Supervisors};
use crate::gossip_io::Gossip;
use crate::wire::{RenewAnswer, RenewCall};
use crate::worker::programmer::{self, Done};
use crate::worker::session::Session;
use crate::worker::unseen::Unseen;

/// A disk that takes a small file for longer than this does not work.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// What others may ask of a running worker.
#[derive(Clone)]
pub struct WorkerHandle {
    /// The newest assignment that is in force.
    pub assignment: watch::Receiver<Option<Arc<Assignment>>>,
    /// The same, once it came from a manager since start.
    pub told: watch::Receiver<Option<Arc<Assignment>>>,
    /// What the last pass left behind.
    pub done: watch::Receiver<Done>,
    /// The node's own tasks.
    pub tasks: watch::Receiver<BTreeMap<TaskId, LocalTask>>,
    /// The sandboxes of its tasks.
    pub supervisors: Supervisors,
    /// What runs its tasks, and has their logs.
    pub executor: Arc<dyn Executor>,
    /// What programs VIPs here.
    pub balancer: netprog::local::Balancer,
    pub(super) dir: PathBuf,
    pub(super) probed: watch::Receiver<BTreeSet<String>>,
    pub(super) lateness: watch::Receiver<Lateness>,
    pub(super) inbox: mpsc::Sender<Input>,
    pub(super) asks: mpsc::Sender<programmer::Ask>,
    /// The last report, once the shell has ended.
    pub(super) ended: watch::Receiver<Option<Report>>,
    pub(super) session: Session,
    /// Assignments that the core has not taken yet.
    pub(super) untaken: Unseen,
    pub(super) gossip: Gossip,
}

impl WorkerHandle {
    /// For how long the oldest change waits that reached this node and that the kernel does not
    /// hold yet.
    #[must_use]
    pub fn change_waiting(&self) -> Duration {
        self.before_pass().max(self.lateness.borrow().waiting(clock::monotonic()))
    }

    /// How many inputs wait for the core.
    #[must_use]
    pub fn waiting_inputs(&self) -> usize {
        QUEUE - self.inbox.capacity()
    }

    /// Whether this node is behind with what it was told, in words.
    #[must_use]
    pub fn late(&self) -> Option<String> {
        self.lateness.borrow().trouble(self.before_pass(), clock::monotonic())
    }

    /// How long the last change took until the kernel held it.
    #[must_use]
    pub fn change_took(&self) -> Duration {
        self.lateness.borrow().last()
    }

    /// For how long the oldest change waits that the core does not know of yet.
    fn before_pass(&self) -> Duration {
        let now = clock::monotonic();
        let in_gossip = self.gossip.waiting(now).max(self.gossip.unseen().waiting(now));
        self.untaken.waiting(now).max(in_gossip)
    }

    /// Asks the leader for a new certificate; nothing if none could be asked.
    pub async fn renew(&self, call: &RenewCall) -> Option<RenewAnswer> {
        self.session.renew(call).await
    }

    /// Tells the leader whom this node trusts from now on.
    pub async fn trusts(&self, trust: Trust) {
        let _ = self.inbox.send(Input::Trusts(trust)).await;
    }

    /// Asks the leader for another place in Raft: the log of the one that this node has is gone.
    pub async fn reseat(&self, lost: u64) -> Result<(), String> {
        self.session.reseat(lost).await
    }

    /// Why the leader tells this version of Skein nothing, if it does not.
    #[must_use]
    pub fn too_old(&self) -> Option<String> {
        self.session.too_old()
    }

    /// Tells the leader that this daemon restarts; the worker has ended.
    pub async fn announce_restart(&self) {
        let last = self.ended.borrow().clone().unwrap_or_default();
        self.session.announce_restart(last).await;
    }

    /// Waits until the shell has ended.
    pub async fn stopped(&self) {
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(Option::is_some).await;
    }

    /// What is desired, and what is in the kernel now.
    pub async fn inspect(&self) -> Result<(Plane, Plane), String> {
        let gone = || "the worker has ended".to_owned();
        let (reply, planes) = oneshot::channel();
        self.asks.send(programmer::Ask::Inspect(reply)).await.map_err(|_ended| gone())?;
        planes.await.map_err(|_ended| gone())?
    }

    /// What does not fit on this node, one line each.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let mut findings: Vec<String> =
            self.done.borrow().conflicts.lines.iter().cloned().collect();
        findings.extend(self.probed.borrow().iter().cloned());
        findings
    }

    /// Takes everything that Skein made out of the kernel; no pass comes after it.
    pub async fn tear_down(&self) {
        let (reply, report) = oneshot::channel();
        if self.asks.send(programmer::Ask::TearDown(reply)).await.is_ok() {
            let _ = report.await;
        }
    }

    /// Why the data directory takes no writes, if it does not.
    pub async fn disk_trouble(&self) -> Option<DiskError> {
        let dir = self.dir.clone();
        let probe = tokio::task::spawn_blocking(move || disk::probe(&dir));
        match tokio::time::timeout(PROBE_LIMIT, probe).await {
            Ok(probed) => probed.ok()?.err(),
            Err(_late) => Some(DiskError {
                activity: "write",
                path: self.dir.clone(),
                reason: format!("it has not ended within {} s", PROBE_LIMIT.as_secs()),
            }),
        }
    }

    /// Stops every task of this node and waits for their end.
    pub async fn stop_tasks(&self) {
        let _ = self.inbox.send(Input::StopAll).await;
        let mut tasks = self.tasks.clone();
        let all_ended = |tasks: &BTreeMap<TaskId, LocalTask>| {
            tasks.values().all(|task| task.phase == Phase::Ended)
        };
        let _ = tasks.wait_for(all_ended).await;
    }
}
