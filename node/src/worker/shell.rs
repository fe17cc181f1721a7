//! The worker's shell: executor, kernel, gossip, DNS, disk and sessions around the core. It waits,
//! gives the core what came, and does what the core says, in that order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent::lateness::Lateness;
use agent::{Agent, Input, LocalTask, Moment, Output};
use cluster::assignment::Assignment;
use cluster::id::TaskId;
use cluster::view::View;
use netprog_linux::dns_server::{DnsServer, Forwarder};
use netprog_linux::drift::Doorbell;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::programmer::Order;
use super::session::Session;
use super::unseen::Unseen;
use crate::clock;
use crate::executor::{Executor, Supervisors};
use crate::gossip_io::Gossip;
use crate::spaces::Sandboxes;
use crate::worker::names::Names;

use self::kept::Kept;
use self::opened::Known;

pub use self::handle::WorkerHandle;
pub use self::start::{Begin, MemberHandles, NodeFacts};

mod handle;
pub mod kept;
mod opened;
mod start;
mod tasks;

/// For how long the end waits for a write that is under way.
const WRITE_END_LIMIT: Duration = Duration::from_secs(1);
/// The longest sleep between two looks at the core's deadline.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// What the rest of the daemon knows of the worker.
struct Told {
    tasks: watch::Sender<BTreeMap<TaskId, LocalTask>>,
    assignment: watch::Sender<Option<Arc<Assignment>>>,
    of_manager: watch::Sender<Option<Arc<Assignment>>>,
    managers: watch::Sender<Vec<SocketAddr>>,
    lateness: watch::Sender<Lateness>,
}

/// The tasks that were launched and not forgotten.
type AllLaunched = Arc<Mutex<BTreeMap<TaskId, Known>>>;

/// The shell's own state.
pub struct Shell {
    agent: Agent,
    supervisors: Supervisors,
    executor: Arc<dyn Executor>,
    launched: AllLaunched,
    /// Where the logs of all tasks are.
    logs: PathBuf,
    sandboxes: Sandboxes,
    dns: BTreeMap<TaskId, DnsServer>,
    names: Arc<Names>,
    forwarder: Arc<Forwarder>,
    gossip: Gossip,
    inbox: mpsc::Sender<Input>,
    orders: mpsc::Sender<Order>,
    session: Session,
    told: Told,
    /// What writes to the disk, locked while it does.
    kept: Arc<Mutex<Kept>>,
    /// Nothing is to be written any more.
    is_closed: Arc<AtomicBool>,
    drift: Doorbell,
    untaken: Unseen,
    stop: CancellationToken,
}

fn moment() -> Moment {
    Moment { now: clock::monotonic(), wall: clock::timestamp() }
}

impl Shell {
    /// Serves until it is stopped; the last report.
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) -> agent::Report {
        let mut view = self.gossip.view();
        // What is there already is read first.
        view.mark_changed();
        loop {
            let input = tokio::select! {
                () = self.stop.cancelled() => break,
                input = self.next(&mut inputs, &mut view) => input,
            };
            self.step(input).await;
        }
        self.is_closed.store(true, Ordering::Release);
        let kept = self.kept.clone();
        let write_ends = tokio::task::spawn_blocking(move || drop(hold(&kept)));
        let _ = tokio::time::timeout(WRITE_END_LIMIT, write_ends).await;
        self.agent.last_report()
    }

    async fn next(
        &self,
        inputs: &mut mpsc::Receiver<Input>,
        view: &mut watch::Receiver<Arc<View>>,
    ) -> Input {
        let at = moment();
        let wait = self.agent.next_deadline(at);
        let wait = wait.map_or(IDLE_MAX, |due| due.saturating_sub(at.now).min(IDLE_MAX));
        tokio::select! {
            Some(input) = inputs.recv() => input,
            Ok(()) = view.changed() => {
                let since = self.gossip.unseen().take().unwrap_or_else(clock::monotonic);
                Input::View { view: view.borrow_and_update().clone(), since }
            }
            heard = self.drift.answer(), if self.agent.hears_drift(at.now) => {
                let by = heard.into_iter().map(|(place, disturbance)| (place, disturbance.by));
                Input::Disturbed(by.collect())
            }
            () = tokio::time::sleep(wait) => Input::Tick,
        }
    }

    async fn step(&mut self, input: Input) {
        if matches!(input, Input::Watched(_)) {
            let _taken = self.untaken.take();
        }
        let outputs = self.agent.step(input, moment());
        // A pass finds the sandboxes that the core knows of.
        self.follow_sandboxes();
        for output in outputs {
            self.carry_out(output).await;
        }
        self.told.follow(&self.agent);
    }

    /// Does what the core says, or begins to.
    async fn carry_out(&self, output: Output) {
        match output {
            Output::Task(command) => self.command(command),
            Output::Write(files) => {
                let kept = self.kept.clone();
                let write = move || hold(&kept).write(&files);
                self.call(async move {
                    let written = tokio::task::spawn_blocking(write).await;
                    Input::Written(written.unwrap_or_default())
                });
            }
            Output::Watch(watch) => {
                let (session, untaken) = (self.session.clone(), self.untaken.clone());
                self.call(async move {
                    let answer = session.watch(watch).await;
                    let news = answer.iter().filter(|answer| answer.assignment.is_some());
                    news.for_each(|answer| untaken.note(answer.arrived));
                    Input::Watched(answer)
                });
            }
            Output::Report(report) => {
                let session = self.session.clone();
                self.call(async move { Input::Reported(session.report(*report).await) });
            }
            // There is one order at a time, and none after the kernel was torn down.
            Output::Pass(pass) => drop(self.orders.try_send(Order::Pass(pass))),
            Output::LookAtPorts => drop(self.orders.try_send(Order::LookAtPorts)),
            Output::LookForListeners(young) => self.look_for_listeners(young),
            Output::Gossip(input) => self.gossip.input(input).await,
            Output::NoKeys(error) => tracing::error!(%error, "gossip keys of the assignment"),
            Output::InForce { assignment, is_manager_s } => {
                self.told.assign(&assignment, is_manager_s);
            }
        }
    }

    /// Has something done whose outcome is an input.
    fn call(&self, work: impl Future<Output = Input> + Send + 'static) {
        let inbox = self.inbox.clone();
        spawn(&self.stop, async move {
            let _ = inbox.send(work.await).await;
        });
    }

    fn launched(&self) -> MutexGuard<'_, BTreeMap<TaskId, Known>> {
        hold(&self.launched)
    }
}

fn hold<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Told {
    fn new(managers: &[SocketAddr]) -> Self {
        Self {
            tasks: watch::Sender::new(BTreeMap::new()),
            assignment: watch::Sender::new(None),
            of_manager: watch::Sender::new(None),
            managers: watch::Sender::new(managers.to_vec()),
            lateness: watch::Sender::new(Lateness::default()),
        }
    }

    fn follow(&self, agent: &Agent) {
        set(&self.tasks, agent.worker().tasks());
        set(&self.lateness, agent.lateness());
    }

    fn assign(&self, assignment: &Arc<Assignment>, is_manager_s: bool) {
        let managers = assignment.nodes.values().filter_map(|node| node.manager).collect();
        set(&self.managers, &managers);
        self.assignment.send_replace(Some(assignment.clone()));
        if is_manager_s {
            self.of_manager.send_replace(Some(assignment.clone()));
        }
    }
}

/// Those who follow it hear of a change alone.
fn set<T: PartialEq + Clone>(to: &watch::Sender<T>, now: &T) {
    to.send_if_modified(|known| {
        let changed = known != now;
        if changed {
            known.clone_from(now);
        }
        changed
    });
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
