//! The worker's shell: executor, kernel, gossip, DNS, disk and sessions around the core.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::assignment::Assignment;
use cluster::id::TaskId;
use cluster::object::{NodeDescription, Trust};
use cluster::view::VtepRow;
use netprog::plane::Plane;
use netprog_linux::dns_server::{DnsServer, Forwarder};
use netprog_linux::facts::RESOLV_CONF;
use netprog_linux::kernel::LinuxKernel;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::programmer::{self, Done, Facts, Wanted};
use super::session::{Known, Received, Report, Session};
use super::{Adopted, Command, Event, Input, Worker, probes};
use crate::clock;
use crate::disk::{self, DiskError};
use crate::executor::process::{Handle, ProcessExecutor};
use crate::gossip_io::Gossip;
use crate::identity::{DataDir, Identity};
use crate::member::{Office, gossip_peers};
use crate::spaces::{NodeSpaces, Sandboxes};
use crate::transport::Net;
use crate::wire::{RenewAnswer, RenewCall};
use crate::worker::names::Names;

use self::kept::Kept;

pub mod kept;
mod tasks;

/// Inputs that wait for the core.
const QUEUE: usize = 1024;
/// The longest sleep between two looks at the core's deadline.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// How often the sandboxes of young tasks are looked into.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What the node offers to a worker, found out once at start.
#[derive(Clone)]
pub struct Surroundings {
    /// This binary.
    pub exe: PathBuf,
    /// Run directory.
    pub run_dir: PathBuf,
    /// Facts of the kernel and the underlay.
    pub facts: Facts,
    /// What the node says of itself.
    pub description: NodeDescription,
}

/// The rest of the member, as a worker uses it.
pub struct Ends {
    /// Gossip.
    pub gossip: Gossip,
    /// Connections to peers.
    pub net: Net,
    /// This node's own manager, while it is one.
    pub office: watch::Receiver<Option<Office>>,
}

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
    pub tasks: watch::Receiver<BTreeMap<TaskId, super::LocalTask>>,
    /// Process ids and log directories.
    pub executor: Arc<ProcessExecutor>,
    /// What programs VIPs here.
    pub balancer: netprog::local::Balancer,
    dir: PathBuf,
    probed: watch::Receiver<BTreeSet<String>>,
    stop_tasks: mpsc::Sender<()>,
    asks: mpsc::Sender<programmer::Ask>,
    ended: watch::Receiver<bool>,
    session: Session,
    report: watch::Sender<Report>,
    received: watch::Receiver<Option<Received>>,
    gossip: Gossip,
    inbox: mpsc::Sender<Input>,
}

impl WorkerHandle {
    /// For how long the oldest change waits that reached this node and that the kernel does not
    /// hold yet.
    #[must_use]
    pub fn change_waiting(&self) -> Duration {
        self.before_pass().max(self.done.borrow().lateness.waiting(clock::monotonic()))
    }

    /// How many inputs wait for the worker.
    #[must_use]
    pub fn waiting_inputs(&self) -> usize {
        QUEUE - self.inbox.capacity()
    }

    /// Whether this node is behind with what it was told, in words.
    #[must_use]
    pub fn late(&self) -> Option<String> {
        self.done.borrow().lateness.trouble(self.before_pass(), clock::monotonic())
    }

    /// For how long the oldest change waits that no pass can know of yet.
    fn before_pass(&self) -> Duration {
        let now = clock::monotonic();
        let (received, taken) = (self.received.borrow(), self.assignment.borrow());
        let is_taken = |received: &Received| {
            taken.as_ref().is_some_and(|taken| Arc::ptr_eq(&received.assignment, taken))
        };
        let untaken = received.as_ref().filter(|received| !is_taken(received));
        let untaken = untaken.map_or(Duration::ZERO, |r| now.saturating_sub(r.arrived));
        untaken.max(self.gossip.waiting(now)).max(self.gossip.unseen().waiting(now))
    }

    /// Asks the leader for a new certificate; nothing if none could be asked.
    pub async fn renew(&self, call: &RenewCall) -> Option<RenewAnswer> {
        self.session.renew(call).await
    }

    /// Tells the leader whom this node trusts from now on.
    pub fn describe(&self, trust: Trust) {
        self.report.send_if_modified(|report| {
            let Some(description) = &mut report.description else { return false };
            let changed = description.trust.as_ref() != Some(&trust);
            description.trust = Some(trust);
            changed
        });
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
        let last = self.report.borrow().clone();
        self.session.announce_restart(last).await;
    }

    /// Waits until the shell has ended.
    pub async fn stopped(&self) {
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
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

    /// Takes everything of ours out of the kernel; no pass comes after it.
    pub async fn tear_down(&self) {
        let (reply, report) = oneshot::channel();
        if self.asks.send(programmer::Ask::TearDown(reply)).await.is_ok() {
            let _ = report.await;
        }
    }

    /// Why the data directory takes no writes, if it does not.
    pub async fn disk_trouble(&self) -> Option<DiskError> {
        let dir = self.dir.clone();
        let probed = tokio::task::spawn_blocking(move || disk::probe(&dir)).await;
        probed.ok()?.err()
    }

    /// Stops every task of this node and waits for their end.
    pub async fn stop_tasks(&self) {
        let _ = self.stop_tasks.send(()).await;
        let mut tasks = self.tasks.clone();
        let all_ended = |tasks: &BTreeMap<TaskId, super::LocalTask>| {
            tasks.values().all(|task| task.phase == super::Phase::Ended)
        };
        let _ = tasks.wait_for(all_ended).await;
    }
}

/// The shell's own state.
pub struct Shell {
    worker: Worker,
    executor: Arc<ProcessExecutor>,
    handles: Arc<Mutex<BTreeMap<TaskId, Handle>>>,
    sandboxes: Sandboxes,
    dns: BTreeMap<TaskId, DnsServer>,
    /// The look for what listens that is under way.
    looking: Option<JoinHandle<()>>,
    names: Arc<Names>,
    forwarder: Arc<Forwarder>,
    gossip: Gossip,
    inbox: mpsc::Sender<Input>,
    wanted: watch::Sender<Wanted>,
    report: watch::Sender<Report>,
    done: watch::Receiver<Done>,
    received: watch::Receiver<Option<Received>>,
    managers: watch::Sender<Vec<SocketAddr>>,
    tasks: watch::Sender<BTreeMap<TaskId, super::LocalTask>>,
    assignment: watch::Sender<Option<Arc<Assignment>>>,
    told: watch::Sender<Option<Arc<Assignment>>>,
    kept: Kept,
    facts: Facts,
    /// What the underlay lets through.
    underlay_mtu: watch::Sender<u32>,
    /// What does not fit on this host, or get through it.
    found: watch::Sender<BTreeSet<String>>,
}

/// Asks whom the host asks.
fn forwarder() -> Arc<Forwarder> {
    Arc::new(Forwarder::following(Path::new(RESOLV_CONF), Arc::new(clock::monotonic)))
}

impl Shell {
    /// Starts everything that a worker is.
    pub async fn start(
        data: &DataDir,
        identity: &Identity,
        surroundings: Surroundings,
        ends: Ends,
        stop: &CancellationToken,
    ) -> anyhow::Result<WorkerHandle> {
        let dir = data.worker();
        disk::private_dir(&dir)?;
        let Surroundings { exe, run_dir, facts, description } = surroundings;
        let executor = Arc::new(ProcessExecutor::new(&exe, &run_dir, data.path())?);
        let (inbox, inputs) = mpsc::channel(QUEUE);
        let (wanted, wanted_reader) = watch::channel(Wanted::default());
        let (done_writer, done) = watch::channel(Done::default());
        let (current, received) = watch::channel(None);
        let (managers, managers_reader) = watch::channel(identity.managers.clone());
        let (assignment, assignment_reader) = watch::channel(None);
        let told = watch::Sender::new(None);
        let tasks = watch::Sender::new(BTreeMap::new());
        let (ended_writer, ended) = watch::channel(false);
        let (stop_tasks, stop_asks) = mpsc::channel(1);
        let (asks, asked) = mpsc::channel(QUEUE);
        let report = watch::Sender::new(Report::first(description));
        let underlay_mtu = watch::Sender::new(facts.underlay_mtu);

        let sandboxes = Sandboxes::default();
        let kernel = kernel(exe, run_dir, sandboxes.clone()).await?;
        let (gossip, session) = open_session(ends, managers_reader, &assignment_reader);
        let news = programmer::News {
            wanted: wanted_reader,
            view: gossip.view(),
            unseen: gossip.unseen(),
            underlay_mtu: underlay_mtu.subscribe(),
        };
        let ends = programmer::Ends {
            news,
            drift: kernel.doorbell(),
            asks: asked,
            done: done_writer,
            inbox: inbox.clone(),
        };
        spawn(stop, programmer::run(kernel, facts.clone(), ends));
        spawn(stop, session.clone().watch_loop(inbox.clone(), current));
        spawn(stop, session.clone().report_loop(report.subscribe(), inbox.clone()));

        let shell = Self {
            worker: Worker::new(identity.node, facts.gwbridge),
            executor,
            handles: Arc::default(),
            sandboxes,
            dns: BTreeMap::new(),
            looking: None,
            names: Arc::new(Names::new(assignment_reader.clone(), gossip.view())),
            underlay_mtu,
            found: watch::Sender::new(BTreeSet::new()),
            forwarder: forwarder(),
            gossip,
            inbox,
            wanted,
            report,
            done,
            received,
            managers,
            tasks,
            assignment,
            told,
            kept: Kept::new(data, identity),
            facts: facts.clone(),
        };
        let handle = shell.handle(dir, (stop_tasks, asks), ended, session);
        tokio::spawn(shell.run(inputs, stop_asks, stop.clone(), ended_writer));
        Ok(handle)
    }

    fn handle(
        &self,
        dir: PathBuf,
        (stop_tasks, asks): (mpsc::Sender<()>, mpsc::Sender<programmer::Ask>),
        ended: watch::Receiver<bool>,
        session: Session,
    ) -> WorkerHandle {
        WorkerHandle {
            assignment: self.assignment.subscribe(),
            told: self.told.subscribe(),
            done: self.done.clone(),
            tasks: self.tasks.subscribe(),
            executor: self.executor.clone(),
            balancer: self.facts.balancer,
            dir,
            probed: self.found.subscribe(),
            stop_tasks,
            asks,
            ended,
            session,
            report: self.report.clone(),
            received: self.received.clone(),
            gossip: self.gossip.clone(),
            inbox: self.inbox.clone(),
        }
    }

    async fn run(
        self,
        inputs: mpsc::Receiver<Input>,
        stop_asks: mpsc::Receiver<()>,
        stop: CancellationToken,
        ended: watch::Sender<bool>,
    ) {
        let looks = probes::Ends {
            done: self.done.clone(),
            assignment: self.assignment.subscribe(),
            view: self.gossip.view(),
            tasks: self.tasks.subscribe(),
            sandboxes: self.sandboxes.clone(),
            facts: self.facts.clone(),
            report: self.report.clone(),
            underlay_mtu: self.underlay_mtu.clone(),
        };
        spawn(&stop, probes::run(looks, self.found.clone()));
        self.serve(inputs, stop_asks, stop).await;
        ended.send_replace(true);
    }

    async fn serve(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut stop_asks: mpsc::Receiver<()>,
        stop: CancellationToken,
    ) {
        self.load_assignment().await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = self.adopt() => {}
        }
        let mut looked = Duration::ZERO;
        loop {
            let (now, wall) = (clock::monotonic(), clock::timestamp());
            let look_at = (!self.worker.young().is_empty()).then_some(looked + LOOK_INTERVAL);
            let wait = self.worker.next_deadline(now, wall);
            let wait = wait.map_or(IDLE_MAX, |at| at.saturating_sub(now).min(IDLE_MAX));
            let until_look = look_at.unwrap_or(Duration::MAX).saturating_sub(now);
            let input = tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = stop_asks.recv() => Input::StopAll,
                Some(input) = inputs.recv() => input,
                changed = self.done.changed() => {
                    if changed.is_err() { return }
                    Input::Tick
                }
                // What is found comes as an input: a look by itself is no reason for a step.
                () = tokio::time::sleep(until_look), if until_look < wait => {
                    looked = clock::monotonic();
                    self.look_for_listeners();
                    continue;
                }
                () = tokio::time::sleep(wait) => Input::Tick,
            };
            self.step(input).await;
        }
    }

    async fn step(&mut self, input: Input) {
        let now = clock::monotonic();
        let commands = self.worker.step(input, now, clock::timestamp());
        // Before the tasks of the assignment exist, with the addresses.
        self.kept.save(self.worker.assignment(), self.worker.egress_addresses(), now);
        for command in commands {
            self.carry_out(command);
        }
        self.publish().await;
    }

    /// The level-triggered readings of the core, each to where it is wanted.
    async fn publish(&mut self) {
        self.open_sandboxes().await;
        let received = self.received.borrow().clone();
        let of_manager = received.filter(|received| {
            let taken = self.worker.assignment();
            taken.is_some_and(|taken| Arc::ptr_eq(&received.assignment, taken))
        });
        let digest = of_manager.as_ref().map(|received| received.digest);
        let assignment = self.worker.assignment().map(|taken| (digest, taken.clone()));
        let since = of_manager.map_or_else(clock::monotonic, |received| received.arrived);
        let unseen = self.gossip.unseen();
        self.wanted.send_if_modified(|wanted| {
            let (sandboxes, knows_tasks) = (self.worker.local(), self.worker.knows_all());
            let is_old = match (&wanted.assignment, &assignment) {
                (Some((_, a)), Some((_, b))) => Arc::ptr_eq(a, b),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            let same = is_old && wanted.sandboxes == sandboxes && wanted.knows_tasks == knows_tasks;
            if !same {
                unseen.note(if is_old { clock::monotonic() } else { since });
            }
            *wanted = Wanted { assignment: assignment.clone(), sandboxes, knows_tasks };
            !same
        });
        self.report.send_if_modified(|report| {
            let (applied, statuses) = (self.done.borrow().applied, self.worker.statuses());
            let changed = report.applied != applied || report.statuses != statuses;
            (report.applied, report.statuses) = (applied, statuses);
            changed
        });
        self.tasks.send_if_modified(|tasks| {
            tasks.clone_from(self.worker.tasks());
            true
        });
        self.tell_gossip().await;
        if let Some((digest, assignment)) = assignment {
            let managers: Vec<SocketAddr> =
                assignment.nodes.values().filter_map(|node| node.manager).collect();
            self.managers.send_if_modified(|known| {
                let changed = *known != managers;
                *known = managers;
                changed
            });
            set(&self.assignment, &assignment);
            if digest.is_some() {
                set(&self.told, &assignment);
            }
        }
    }

    async fn tell_gossip(&self) {
        let Some(assignment) = self.worker.assignment() else { return };
        let previous = self.assignment.borrow().clone();
        if previous.is_none_or(|known| !Arc::ptr_eq(&known, assignment)) {
            let keys = &assignment.gossip_keys;
            let primary = keys.first().map_or(0, |key| key.id);
            let all = keys.iter().map(|key| (key.id, key.key)).collect();
            match gossip::Keyring::new(primary, &all) {
                Ok(keys) => self.gossip.input(gossip::Input::Keys(keys)).await,
                Err(error) => tracing::error!(%error, "gossip keys of the assignment"),
            }
            self.gossip.input(gossip::Input::Peers(gossip_peers(assignment))).await;
        }
        if let Some(endpoints) = self.worker.own_rows() {
            let vtep = VtepRow { address: self.facts.vtep };
            self.gossip.input(gossip::Input::Own { endpoints, vtep }).await;
        }
    }

    async fn load_assignment(&mut self) {
        if let Some(assignment) = self.kept.assignment() {
            tracing::info!(revision = assignment.revision.0, "last assignment read from disk");
            self.step(Input::Assignment { assignment, from_manager: false }).await;
        }
    }

    fn handles(&self) -> std::sync::MutexGuard<'_, BTreeMap<TaskId, Handle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_session(
    ends: Ends,
    managers: watch::Receiver<Vec<SocketAddr>>,
    assignment: &watch::Receiver<Option<Arc<Assignment>>>,
) -> (Gossip, Session) {
    let Ends { gossip, net, office } = ends;
    let known = Known { managers, assignment: assignment.clone(), office, gossip: gossip.clone() };
    (gossip, Session::new(net, known))
}

fn set(to: &watch::Sender<Option<Arc<Assignment>>>, assignment: &Arc<Assignment>) {
    to.send_if_modified(|known| {
        let changed = known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, assignment));
        *known = Some(assignment.clone());
        changed
    });
}

/// The holder is started and asked synchronously.
async fn kernel(
    exe: PathBuf,
    run_dir: PathBuf,
    sandboxes: Sandboxes,
) -> anyhow::Result<LinuxKernel<NodeSpaces>> {
    let start = move || NodeSpaces::start(&exe, &run_dir, sandboxes);
    Ok(LinuxKernel::new(tokio::task::spawn_blocking(start).await??))
}

fn spawn(stop: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    });
}
