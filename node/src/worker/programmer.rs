//! The loop that keeps the kernel as it should be: level-triggered, one pass at a time, on a
//! thread of its own because a kernel is asked synchronously.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::assignment::Assignment;
use cluster::id::TaskId;
use cluster::time::Revision;
use cluster::view::View;
use netprog::kernel::Kernel;
use netprog::local::{Local, LocalSandbox};
use netprog::plan::Knowledge;
use netprog::plane::{Place, Plane, Space};
use netprog::programmer::{Look, PassReport, Programmer};
use netprog::render::render;
use netprog_linux::drift::{Disturbance, Doorbell};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};

use super::Input;
use super::lateness::{Lateness, Unseen};
use super::ports::{Conflicts, HostPorts, LOOK_INTERVAL};
use crate::clock;
use crate::telemetry::meters::meters;
use crate::wire::Digest;

/// Without news the kernel is read whole and compared this often.
const VERIFY_INTERVAL: Duration = Duration::from_secs(10);
/// After a pass over what another program changed, what changed since is looked at after as long as
/// that pass took, and at most this long: another program that changes something all the time does
/// not keep us busy all the time.
const DRIFT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A pass that failed is tried again after this long.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Everything that a pass is made from; read whole at its start.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The assignment with its digest, if a manager sent it.
    pub assignment: Option<(Option<Digest>, Arc<Assignment>)>,
    /// Sandboxes that exist.
    pub sandboxes: BTreeMap<TaskId, LocalSandbox>,
    /// Whether all tasks that run are known.
    pub knows_tasks: bool,
}

/// What a pass left behind, for people and for the session.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// The assignment that the kernel holds whole.
    pub applied: Option<Digest>,
    /// What should be there.
    pub desired: Plane,
    /// What the last pass did.
    pub report: PassReport,
    /// Passes so far.
    pub passes: u64,
    /// Operations so far.
    pub operations: u64,
    /// Operations so far that the kernel refused.
    pub failures: u64,
    /// Operations so far that another hand made needed.
    pub drift: u64,
    /// Published ports that programs of the host have or want.
    pub conflicts: Conflicts,
    /// How late changes are.
    pub lateness: Lateness,
}

/// Facts of the node, as they were when its daemon started.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Own underlay address.
    pub vtep: IpAddr,
    /// TCP port of the cluster listener, where this node has one.
    pub cluster_port: u16,
    /// MTU of the underlay.
    pub underlay_mtu: u32,
    /// Prefix of the egress bridge.
    pub gwbridge: cluster::net::Subnet,
    /// What programs VIPs.
    pub balancer: netprog::local::Balancer,
}

/// The planes, desired and freshly observed.
pub type Inspected = Result<(Plane, Plane), String>;

/// What the loop is asked besides its passes.
pub enum Ask {
    /// What is desired, and what is there now.
    Inspect(oneshot::Sender<Inspected>),
    /// Take everything of ours out of the kernel and end.
    TearDown(oneshot::Sender<PassReport>),
}

/// What passes are made from, as it changes.
pub struct News {
    /// What is wanted.
    pub wanted: watch::Receiver<Wanted>,
    /// What gossip says.
    pub view: watch::Receiver<Arc<View>>,
    /// MTU of the underlay in bytes.
    pub underlay_mtu: watch::Receiver<u32>,
    /// When the oldest of it came that was not looked at.
    pub unseen: Unseen,
}

impl News {
    /// Waits for a change, and tells when the news of it reached the node; none once there are no
    /// more.
    async fn changed(&mut self) -> Option<Duration> {
        let changed = tokio::select! {
            changed = self.wanted.changed() => changed,
            changed = self.view.changed() => changed,
            changed = self.underlay_mtu.changed() => changed,
        };
        changed.ok().map(|()| self.unseen.take().unwrap_or_else(clock::monotonic))
    }
}

/// The loop's ends.
pub struct Ends {
    /// What passes are made from.
    pub news: News,
    /// Rings when another hand changed what is ours.
    pub drift: Doorbell,
    /// What the loop is asked besides.
    pub asks: mpsc::Receiver<Ask>,
    /// Where results go.
    pub done: watch::Sender<Done>,
    /// The worker.
    pub inbox: mpsc::Sender<Input>,
}

/// Why there is a pass.
enum Cause {
    /// Something that is wanted changed.
    News,
    /// Time passed, or the last pass failed.
    Interval,
    /// Another hand changed something of ours.
    Drift(BTreeMap<Place, Disturbance>),
}

impl Cause {
    fn look(&self) -> Look {
        match self {
            Self::News => Look::Remember,
            Self::Interval => Look::Whole,
            Self::Drift(disturbed) => Look::At(disturbed.keys().copied().collect()),
        }
    }
}

/// What blocks, and so is lent to threads of its own.
struct Tools<K> {
    programmer: Programmer<K>,
    ports: HostPorts,
}

/// Runs until the worker is gone.
pub async fn run<K: Kernel + Send + 'static>(kernel: K, facts: Facts, mut ends: Ends) {
    let mut tools = Tools { programmer: Programmer::new(kernel), ports: HostPorts::default() };
    let mut cause = Cause::Interval;
    let (mut verify_at, mut drift_at) = (Duration::ZERO, Duration::ZERO);
    ends.tell(|lateness| lateness.news(clock::monotonic()));
    loop {
        let began = clock::monotonic();
        let Some((returned, failed)) = pass(tools, &facts, &mut ends, &cause).await else {
            return;
        };
        let now = clock::monotonic();
        match cause {
            Cause::News => {}
            Cause::Interval => verify_at = now + VERIFY_INTERVAL,
            Cause::Drift(_) => drift_at = now + now.saturating_sub(began).min(DRIFT_PAUSE_MAX),
        }
        let due = if failed { now + RETRY_PAUSE } else { verify_at };
        match next(returned, &mut ends, due, drift_at).await {
            Some((returned, why)) => (tools, cause) = (returned, why),
            None => return,
        }
    }
}

/// Waits until a pass is due; none when the worker is gone. At `due` the kernel is read whole, also
/// where news never ends.
async fn next<K: Kernel + Send + 'static>(
    mut tools: Tools<K>,
    ends: &mut Ends,
    due: Duration,
    drift_at: Duration,
) -> Option<(Tools<K>, Cause)> {
    let has_news = ends.done.borrow().lateness.has_news();
    loop {
        let cause = tokio::select! {
            () = std::future::ready(()), if has_news => Cause::News,
            since = ends.news.changed() => {
                let since = since?;
                ends.tell(|lateness| lateness.news(since));
                Cause::News
            }
            disturbed = disturbed(&ends.drift, drift_at) => Cause::Drift(disturbed),
            Some(ask) = ends.asks.recv() => {
                let desired = ends.done.borrow().desired.clone();
                let answered = tokio::task::spawn_blocking(move || {
                    let goes_on = answer(&mut tools.programmer, ask, desired);
                    (tools, goes_on)
                });
                let (returned, goes_on) = ends.attend(answered).await.ok()?;
                tools = returned;
                goes_on.then_some(Cause::Interval)?
            }
            () = tokio::time::sleep(LOOK_INTERVAL), if tools.ports.are_withheld() => {
                let looked = tokio::task::spawn_blocking(move || {
                    let changed = tools.ports.look_again();
                    (tools, changed)
                });
                let (returned, changed) = ends.attend(looked).await.ok()?;
                tools = returned;
                if !changed && !ends.done.borrow().lateness.has_news() {
                    continue;
                }
                Cause::News
            }
            () = tokio::time::sleep(due.saturating_sub(clock::monotonic())) => Cause::Interval,
        };
        let is_due = matches!(cause, Cause::News) && clock::monotonic() >= due;
        return Some((tools, if is_due { Cause::Interval } else { cause }));
    }
}

/// One pass, if there is an assignment, and whether something in it failed; `None` at the end.
async fn pass<K: Kernel + Send + 'static>(
    mut tools: Tools<K>,
    facts: &Facts,
    ends: &mut Ends,
    cause: &Cause,
) -> Option<(Tools<K>, bool)> {
    let wanted = ends.news.wanted.borrow_and_update().clone();
    let view = ends.news.view.borrow_and_update().clone();
    let underlay_mtu = *ends.news.underlay_mtu.borrow_and_update();
    let Some((digest, assignment)) = wanted.assignment.clone() else {
        ends.tell(|lateness| *lateness = Lateness::default());
        return Some((tools, false));
    };
    // What came between the last look and these readings is in this pass, too.
    let unseen = ends.news.unseen.take();
    ends.tell(|lateness| {
        unseen.into_iter().for_each(|since| lateness.news(since));
        lateness.begin();
    });
    let knowledge = Knowledge::when(wanted.knows_tasks && view.complete);
    let local = Local { underlay_mtu, ..facts.local(&wanted) };
    let (assigned, look, knows_tasks) = (assignment.clone(), cause.look(), wanted.knows_tasks);
    let began = clock::monotonic();
    let pass = tokio::task::spawn_blocking(move || {
        let mut desired = render(&assigned, &view, &local);
        let Tools { programmer, ports } = &mut tools;
        ports.settle(programmer, &mut desired, (look != Look::Remember, knows_tasks));
        let report = programmer.pass(&desired, knowledge, &look);
        (tools, desired, report)
    });
    let (tools, desired, report) = ends.attend(pass).await.ok()?;
    let took = clock::monotonic().saturating_sub(began);
    meters().passed(&cause.look(), &report, took);
    let failed = !report.failures.is_empty();
    ends.tell(|lateness| lateness.end(!failed, clock::monotonic()));
    log(&report, cause, assignment.revision);
    let refused = Input::Refused(tools.ports.refused(&assignment));
    let outcome = outcome(&wanted, &assignment, &report);
    // A pass that removed nothing for lack of knowledge has not applied the assignment.
    let digest = digest.filter(|_| knowledge == Knowledge::Complete);
    let conflicts = tools.ports.conflicts(&assignment);
    ends.done.send_modify(|done| {
        done.follow(digest, desired, report);
        done.take(conflicts);
    });
    for input in [refused, outcome] {
        ends.inbox.send(input).await.ok()?;
    }
    Some((tools, failed))
}

/// What another program has changed, not before the given time.
async fn disturbed(bell: &Doorbell, from: Duration) -> BTreeMap<Place, Disturbance> {
    let wait = from.saturating_sub(clock::monotonic());
    // Even a sleep of no time is never over at once, and news would always come first.
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    bell.answer().await
}

impl Ends {
    /// Changes what is known of lateness; nobody waits for that.
    fn tell(&self, change: impl FnOnce(&mut Lateness)) {
        self.done.send_if_modified(|done| {
            change(&mut done.lateness);
            false
        });
    }

    /// Waits for work on the kernel, and notes when changes come meanwhile.
    async fn attend<T>(&mut self, mut work: JoinHandle<T>) -> Result<T, JoinError> {
        let mut goes_on = true;
        loop {
            tokio::select! {
                done = &mut work => return done,
                since = self.news.changed(), if goes_on => match since {
                    Some(since) => self.tell(|lateness| lateness.news(since)),
                    None => goes_on = false,
                },
            }
        }
    }
}

impl Facts {
    fn local(&self, wanted: &Wanted) -> Local {
        Local {
            vtep: self.vtep,
            cluster_port: self.cluster_port,
            underlay_mtu: self.underlay_mtu,
            gwbridge: self.gwbridge,
            balancer: self.balancer,
            sandboxes: wanted.sandboxes.clone(),
        }
    }
}

impl Done {
    fn follow(&mut self, digest: Option<Digest>, desired: Plane, report: PassReport) {
        self.passes += 1;
        self.operations += report.operations as u64;
        self.failures += report.failures.len() as u64;
        self.drift += report.drift as u64;
        if report.failures.is_empty() && digest.is_some() {
            self.applied = digest;
        }
        self.desired = desired;
        self.report = report;
    }

    /// Takes over which ports programs have, and tells what is new of them.
    fn take(&mut self, conflicts: Conflicts) {
        for line in conflicts.lines.difference(&self.conflicts.lines) {
            tracing::warn!("{line}");
        }
        for line in self.conflicts.lines.difference(&conflicts.lines) {
            tracing::info!("no more: {line}");
        }
        self.conflicts = conflicts;
    }
}

/// Whether the loop goes on.
fn answer<K: Kernel>(programmer: &mut Programmer<K>, ask: Ask, desired: Plane) -> bool {
    match ask {
        Ask::Inspect(reply) => {
            let observed = programmer.observe(&desired);
            let planes = observed.map(|observed| (desired, observed));
            let _ = reply.send(planes.map_err(|e| e.to_string()));
            true
        }
        Ask::TearDown(reply) => {
            // The host's namespace stays, with nothing of ours in it; fabrics go whole.
            let mut nothing = Plane::default();
            nothing.spaces.insert(Place::Host, Space::default());
            let report = programmer.pass(&nothing, Knowledge::Complete, &Look::Whole);
            log(&report, &Cause::News, Revision::default());
            let _ = reply.send(report);
            false
        }
    }
}

/// A sandbox is ready if nothing failed in it or in a fabric that it is on, nor on the host.
fn outcome(wanted: &Wanted, assignment: &Assignment, report: &PassReport) -> Input {
    let mut broken: BTreeMap<Place, String> = BTreeMap::new();
    for failure in &report.failures {
        for place in failure.places() {
            broken.entry(place).or_insert_with(|| failure.error.to_string());
        }
    }
    let mut ready = BTreeSet::new();
    let mut failed = BTreeMap::new();
    for id in wanted.sandboxes.keys() {
        let attachments = assignment.tasks.get(id).map(|task| task.attachments.as_slice());
        let fabrics = attachments.unwrap_or_default().iter().map(|a| Place::Fabric(a.network));
        let mut places = fabrics.chain([Place::Sandbox(*id), Place::Host]);
        match places.find_map(|place| broken.get(&place)) {
            Some(reason) => {
                failed.insert(*id, reason.clone());
            }
            None => {
                ready.insert(*id);
            }
        }
    }
    Input::Programmed { ready, failed }
}

fn log(report: &PassReport, cause: &Cause, revision: Revision) {
    for failure in &report.failures {
        tracing::warn!(error = %failure.error, "kernel operation failed");
    }
    if report.drift == 0 {
        if report.operations > 0 {
            tracing::debug!(revision = revision.0, operations = report.operations, "pass");
        }
        return;
    }
    match cause {
        Cause::Drift(disturbed) => {
            // Whose process it was is known where the kernel says so.
            let by: BTreeSet<u32> = disturbed.values().flat_map(|d| d.by.clone()).collect();
            let places: Vec<String> = disturbed.keys().map(ToString::to_string).collect();
            tracing::warn!(operations = report.drift, ?places, ?by, "drift repaired");
        }
        Cause::News | Cause::Interval => {
            tracing::warn!(operations = report.drift, "drift repaired");
        }
    }
}
