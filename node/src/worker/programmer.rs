//! What is done to the kernel, one thing at a time, on a thread of its own because a kernel is
//! asked synchronously. When a pass is due, and how thorough it is, the core says
//! (`node/agent/src/passes.rs`).

use std::collections::BTreeSet;

use agent::{Disturbed, Input, Pass, Passed};
use cluster::time::Revision;
use netprog::kernel::Kernel;
use netprog::plan::Knowledge;
use netprog::plane::{Place, Plane, Space};
use netprog::programmer::{Look, PassReport, Programmer};
use netprog::render::render;
use tokio::sync::{mpsc, oneshot, watch};

use super::ports::{Conflicts, HostPorts};
use crate::clock;
use crate::telemetry::meters::meters;

/// What passes left behind, for people.
#[derive(Debug, Clone, Default)]
pub struct Done {
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
    /// Operations so far that another program made needed.
    pub drift: u64,
    /// Published ports that programs of the host have or want.
    pub conflicts: Conflicts,
}

/// The planes, desired and freshly observed.
pub type Inspected = Result<(Plane, Plane), String>;

/// What the core wants done. There is one at a time.
pub(super) enum Order {
    /// A pass.
    Pass(Box<Pass>),
    /// A look at the listeners of the host.
    LookAtPorts,
}

/// What others ask.
pub enum Ask {
    /// What is desired, and what is there now.
    Inspect(oneshot::Sender<Inspected>),
    /// Take everything that Skein made out of the kernel and end.
    TearDown(oneshot::Sender<PassReport>),
}

/// The loop's channels.
pub(super) struct Channels {
    /// The core's.
    pub(super) orders: mpsc::Receiver<Order>,
    /// Others'.
    pub(super) asks: mpsc::Receiver<Ask>,
    /// Where results go.
    pub(super) done: watch::Sender<Done>,
    /// The core.
    pub(super) inbox: mpsc::Sender<Input>,
}

/// What blocks, and so is lent to threads of its own.
struct Tools<K> {
    programmer: Programmer<K>,
    ports: HostPorts,
}

/// What a pass left behind, for people and for the core.
struct Outcome {
    desired: Plane,
    conflicts: Conflicts,
    passed: Passed,
}

/// Runs until the core is gone, or everything is torn down.
pub(super) async fn run<K: Kernel + Send + 'static>(kernel: K, mut channels: Channels) {
    let mut tools = Tools { programmer: Programmer::new(kernel), ports: HostPorts::default() };
    loop {
        let served = tokio::select! {
            Some(order) = channels.orders.recv() => serve(tools, order, &channels.done).await,
            Some(ask) = channels.asks.recv() => answer(tools, ask, &channels.done).await,
            else => return,
        };
        let Some((returned, input)) = served else { return };
        tools = returned;
        if channels.inbox.send(input).await.is_err() {
            return;
        }
    }
}

/// Lends the tools to a thread; none if it has failed.
async fn lend<K: Send + 'static, T: Send + 'static>(
    mut tools: Tools<K>,
    work: impl FnOnce(&mut Tools<K>) -> T + Send + 'static,
) -> Option<(Tools<K>, T)> {
    let lent = tokio::task::spawn_blocking(move || {
        let result = work(&mut tools);
        (tools, result)
    });
    lent.await.ok()
}

async fn serve<K: Kernel + Send + 'static>(
    tools: Tools<K>,
    order: Order,
    done: &watch::Sender<Done>,
) -> Option<(Tools<K>, Input)> {
    match order {
        Order::LookAtPorts => {
            let (tools, have_changed) = lend(tools, |tools| tools.ports.look_again()).await?;
            Some((tools, Input::PortsLookedAt(have_changed)))
        }
        Order::Pass(pass) => {
            let (disturbed, revision) = (pass.disturbed.clone(), pass.assignment.revision);
            let (look, began) = (pass.look.clone(), clock::monotonic());
            let (tools, outcome) = lend(tools, move |tools| tools.pass(&pass)).await?;
            let took = clock::monotonic().saturating_sub(began);
            meters().passed(&look, &outcome.passed.report, took);
            log(&outcome.passed.report, &disturbed, revision);
            let passed = outcome.passed.clone();
            done.send_modify(|done| done.follow(outcome));
            Some((tools, Input::Passed(passed)))
        }
    }
}

async fn answer<K: Kernel + Send + 'static>(
    tools: Tools<K>,
    ask: Ask,
    done: &watch::Sender<Done>,
) -> Option<(Tools<K>, Input)> {
    match ask {
        Ask::Inspect(reply) => {
            let desired = done.borrow().desired.clone();
            let inspect = move |tools: &mut Tools<K>| {
                let observed = tools.programmer.observe(&desired);
                observed.map(|observed| (desired, observed)).map_err(|error| error.to_string())
            };
            let (tools, planes) = lend(tools, inspect).await?;
            let _ = reply.send(planes);
            Some((tools, Input::Inspected))
        }
        Ask::TearDown(reply) => {
            let (_tools, report) = lend(tools, Tools::tear_down).await?;
            log(&report, &Disturbed::new(), Revision::default());
            let _ = reply.send(report);
            None
        }
    }
}

impl<K: Kernel> Tools<K> {
    fn pass(&mut self, pass: &Pass) -> Outcome {
        let Pass { assignment, view, local, knowledge, look, .. } = pass;
        let mut desired = render(assignment, view, local);
        let reads = *look != Look::Remember;
        self.ports.settle(&mut self.programmer, &mut desired, (reads, pass.knows_tasks));
        let report = self.programmer.pass(&desired, *knowledge, look);
        let refused = self.ports.refused(assignment);
        let passed = Passed { report, refused, has_withheld: self.ports.are_withheld() };
        Outcome { desired, conflicts: self.ports.conflicts(assignment), passed }
    }

    /// The host's namespace stays, with nothing in it that Skein made; fabrics go whole.
    fn tear_down(&mut self) -> PassReport {
        let mut nothing = Plane::default();
        nothing.spaces.insert(Place::Host, Space::default());
        self.programmer.pass(&nothing, Knowledge::Complete, &Look::Whole)
    }
}

impl Done {
    fn follow(&mut self, outcome: Outcome) {
        let Outcome { desired, conflicts, passed: Passed { report, .. } } = outcome;
        self.passes += 1;
        self.operations += report.operations as u64;
        self.failures += report.failures.len() as u64;
        self.drift += report.drift as u64;
        self.desired = desired;
        self.report = report;
        self.take(conflicts);
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

fn log(report: &PassReport, disturbed: &Disturbed, revision: Revision) {
    for failure in &report.failures {
        tracing::warn!(error = %failure.error, "kernel operation failed");
    }
    if report.drift == 0 {
        if report.operations > 0 {
            tracing::debug!(revision = revision.0, operations = report.operations, "pass");
        }
    } else if disturbed.is_empty() {
        tracing::warn!(operations = report.drift, "drift repaired");
    } else {
        // Whose process it was is known where the kernel says so.
        let by: BTreeSet<u32> = disturbed.values().flatten().copied().collect();
        let places: Vec<String> = disturbed.keys().map(ToString::to_string).collect();
        tracing::warn!(operations = report.drift, ?places, ?by, "drift repaired");
    }
}
