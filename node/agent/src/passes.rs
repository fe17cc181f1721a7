//! When the kernel is made as it should be, and how thoroughly it is looked at: level-triggered,
//! one pass at a time. A pass is made from everything that is known when it begins.
//!
//! What changes leads to a pass at once, over what is remembered of the kernel. What another
//! program changes leads to one that reads the places in question. Without either, and after a
//! failure, the kernel is read whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::assignment::Assignment;
use cluster::id::TaskId;
use cluster::net::Subnet;
use cluster::session::Digest;
use cluster::view::View;
use netprog::local::{Balancer, Local, LocalSandbox};
use netprog::plan::Knowledge;
use netprog::plane::Place;
use netprog::programmer::{Look, PassReport};

use crate::Output;
use crate::lateness::Lateness;
use crate::worker::Worker;

/// Without news the kernel is read whole and compared this often.
const VERIFY_INTERVAL: Duration = Duration::from_secs(10);
/// After a pass over what another program changed, what changed since is looked at after as long as
/// that pass took, and at most this long: another program that changes something all the time does
/// not keep us busy all the time.
const DRIFT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A pass that failed is tried again after this long.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// While a program has a port that is to be published, its listeners are looked at this often.
const PORTS_INTERVAL: Duration = Duration::from_secs(1);

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
    pub gwbridge: Subnet,
    /// What programs VIPs.
    pub balancer: Balancer,
}

/// Places that other programs changed, with the processes that did where the kernel tells.
pub type Disturbed = BTreeMap<Place, BTreeSet<u32>>;

/// A pass over the kernel, and all that it is made from.
#[derive(Debug, Clone)]
pub struct Pass {
    /// What is wanted.
    pub assignment: Arc<Assignment>,
    /// What gossip says.
    pub view: Arc<View>,
    /// What this node is like.
    pub local: Local,
    /// Whether anything may be removed.
    pub knowledge: Knowledge,
    /// Whether all tasks that run are known.
    pub knows_tasks: bool,
    /// What is read first.
    pub look: Look,
    /// What other programs are known to have changed.
    pub disturbed: Disturbed,
    /// What names the assignment to the leader.
    digest: Option<Digest>,
    began: Duration,
}

/// What a pass left behind.
#[derive(Debug, Clone, Default)]
pub struct Passed {
    /// What it did.
    pub report: PassReport,
    /// Tasks that publish ports that programs of the host have, and who has them.
    pub refused: BTreeMap<TaskId, String>,
    /// Whether a program has a port that is to be published here.
    pub has_withheld: bool,
}

/// What a pass says of this node's sandboxes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) ready: BTreeSet<TaskId>,
    pub(crate) failed: BTreeMap<TaskId, String>,
}

/// What the kernel's thread is at.
#[derive(Debug)]
enum Work {
    Nothing,
    Pass(Box<Pass>),
    Ports,
}

/// What the last pass was made from, as far as the worker tells it.
#[derive(Debug, Default)]
struct Wanted {
    assignment: Option<Arc<Assignment>>,
    sandboxes: BTreeMap<TaskId, LocalSandbox>,
    knows_tasks: bool,
}

#[derive(Debug)]
pub(crate) struct Passes {
    facts: Facts,
    view: Arc<View>,
    wanted: Wanted,
    lateness: Lateness,
    work: Work,
    /// When the kernel is read whole, without a failure.
    verify_at: Duration,
    /// When the pass that failed is tried again.
    retry_at: Option<Duration>,
    /// From when on it is heard what other programs changed.
    drift_at: Duration,
    disturbed: Disturbed,
    /// When the host's listeners are looked at, while a program has one of our ports.
    ports_at: Option<Duration>,
    have_ports_changed: bool,
    applied: Option<Digest>,
}

impl Passes {
    pub(crate) fn new(facts: Facts) -> Self {
        Self {
            facts,
            view: Arc::default(),
            wanted: Wanted::default(),
            lateness: Lateness::default(),
            work: Work::Nothing,
            verify_at: Duration::ZERO,
            retry_at: None,
            drift_at: Duration::ZERO,
            disturbed: Disturbed::new(),
            ports_at: None,
            have_ports_changed: false,
            applied: None,
        }
    }

    /// The assignment that the kernel holds.
    pub(crate) fn applied(&self) -> Option<Digest> {
        self.applied
    }

    pub(crate) fn lateness(&self) -> &Lateness {
        &self.lateness
    }

    /// The worker may want something else now. `since` is when the news of its assignment came.
    pub(crate) fn follow(&mut self, worker: &Worker, since: Option<Duration>, now: Duration) {
        let assignment = worker.assignment().cloned();
        let (sandboxes, knows_tasks) = (worker.local(), worker.knows_all());
        let is_old = match (&self.wanted.assignment, &assignment) {
            (Some(known), Some(newest)) => Arc::ptr_eq(known, newest),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let is_same = self.wanted.sandboxes == sandboxes && self.wanted.knows_tasks == knows_tasks;
        if !is_old {
            self.lateness.news(since.unwrap_or(now));
        } else if !is_same {
            self.lateness.news(now);
        }
        self.wanted = Wanted { assignment, sandboxes, knows_tasks };
    }

    pub(crate) fn take_view(&mut self, view: Arc<View>, since: Duration) {
        self.view = view;
        self.lateness.news(since);
    }

    pub(crate) fn underlay_mtu(&mut self, mtu: u32, now: Duration) {
        if self.facts.underlay_mtu != mtu {
            self.facts.underlay_mtu = mtu;
            self.lateness.news(now);
        }
    }

    pub(crate) fn disturbed(&mut self, disturbed: Disturbed) {
        for (place, by) in disturbed {
            self.disturbed.entry(place).or_default().extend(by);
        }
    }

    /// Whether what other programs changed is listened for: not while it could not be looked at.
    pub(crate) fn hears_drift(&self, now: Duration) -> bool {
        matches!(self.work, Work::Nothing) && self.disturbed.is_empty() && now >= self.drift_at
    }

    /// Somebody has looked at the kernel, and is to find it as it should be the next time.
    pub(crate) fn inspected(&mut self, now: Duration) {
        (self.retry_at, self.verify_at) = (None, now);
    }

    fn whole_at(&self) -> Duration {
        self.retry_at.unwrap_or(self.verify_at)
    }

    /// What is to be done to the kernel now, if anything is.
    pub(crate) fn due(
        &mut self,
        digest_of: impl FnOnce(&Arc<Assignment>) -> Option<Digest>,
        now: Duration,
    ) -> Option<Output> {
        let Some(assignment) = self.wanted.assignment.clone() else {
            // There is nothing to be late with.
            self.lateness = Lateness::default();
            return None;
        };
        if !matches!(self.work, Work::Nothing) {
            return None;
        }
        let look = if now >= self.whole_at() {
            Look::Whole
        } else if !self.disturbed.is_empty() {
            Look::At(self.disturbed.keys().copied().collect())
        } else if self.lateness.has_news() || self.have_ports_changed {
            Look::Remember
        } else if self.ports_at.is_some_and(|at| at <= now) {
            self.work = Work::Ports;
            return Some(Output::LookAtPorts);
        } else {
            return None;
        };
        self.lateness.begin();
        self.have_ports_changed = false;
        let knows_tasks = self.wanted.knows_tasks;
        let pass = Pass {
            digest: digest_of(&assignment),
            view: Arc::clone(&self.view),
            local: self.facts.local(self.wanted.sandboxes.clone()),
            knowledge: Knowledge::when(knows_tasks && self.view.complete),
            knows_tasks,
            look,
            disturbed: std::mem::take(&mut self.disturbed),
            assignment,
            began: now,
        };
        self.work = Work::Pass(Box::new(pass.clone()));
        Some(Output::Pass(Box::new(pass)))
    }

    /// What a pass left behind; what it says of the sandboxes that it was made for.
    pub(crate) fn passed(
        &mut self,
        report: &PassReport,
        has_withheld: bool,
        now: Duration,
    ) -> Outcome {
        let Work::Pass(pass) = std::mem::replace(&mut self.work, Work::Nothing) else {
            return Outcome::default();
        };
        let done = report.failures.is_empty();
        self.lateness.end(done, now);
        if !pass.disturbed.is_empty() {
            self.drift_at = now + now.saturating_sub(pass.began).min(DRIFT_PAUSE_MAX);
        }
        self.retry_at = (!done).then_some(now + RETRY_PAUSE);
        if pass.look == Look::Whole {
            self.verify_at = now + VERIFY_INTERVAL;
        }
        self.ports_at = has_withheld.then_some(now + PORTS_INTERVAL);
        // A pass that removed nothing for lack of knowledge has not applied the assignment.
        if done && pass.knowledge == Knowledge::Complete && pass.digest.is_some() {
            self.applied = pass.digest;
        }
        outcome(&pass, report)
    }

    /// The host's listeners were looked at.
    pub(crate) fn looked_at_ports(&mut self, have_changed: bool, now: Duration) {
        self.work = Work::Nothing;
        self.have_ports_changed |= have_changed;
        self.ports_at = Some(now + PORTS_INTERVAL);
    }

    pub(crate) fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let idle = matches!(self.work, Work::Nothing) && self.wanted.assignment.is_some();
        let drift_at = Some(self.drift_at).filter(|at| *at > now);
        let dues = [Some(self.whole_at()), self.ports_at, drift_at];
        dues.into_iter().flatten().filter(|_| idle).min()
    }
}

impl Facts {
    fn local(&self, sandboxes: BTreeMap<TaskId, LocalSandbox>) -> Local {
        Local {
            vtep: self.vtep,
            cluster_port: self.cluster_port,
            underlay_mtu: self.underlay_mtu,
            gwbridge: self.gwbridge,
            balancer: self.balancer,
            sandboxes,
        }
    }
}

/// A sandbox is ready if nothing failed in it or in a fabric that it is on, nor on the host.
fn outcome(pass: &Pass, report: &PassReport) -> Outcome {
    let mut broken: BTreeMap<Place, String> = BTreeMap::new();
    for failure in &report.failures {
        for place in failure.places() {
            broken.entry(place).or_insert_with(|| failure.error.to_string());
        }
    }
    let mut outcome = Outcome::default();
    for id in pass.local.sandboxes.keys() {
        let attachments = pass.assignment.tasks.get(id).map(|task| task.attachments.as_slice());
        let fabrics = attachments.unwrap_or_default().iter().map(|a| Place::Fabric(a.network));
        let mut places = fabrics.chain([Place::Sandbox(*id), Place::Host]);
        match places.find_map(|place| broken.get(&place)) {
            Some(reason) => {
                outcome.failed.insert(*id, reason.clone());
            }
            None => {
                outcome.ready.insert(*id);
            }
        }
    }
    outcome
}
