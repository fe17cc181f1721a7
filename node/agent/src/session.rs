//! The worker's side of its session with the leader: one watch and one report under way at a time.
//!
//! The watch brings assignments and releases, the report keeps the lease. A report goes at once
//! when there is something to say that the leader has not heard, else at an interval. A new leader
//! is told what the node says of itself; each one is told what of that has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::assign::Held;
use cluster::assignment::Assignment;
use cluster::id::TaskId;
use cluster::net::Subnet;
use cluster::object::{NodeDescription, TaskStatus, Trust, newest_schema};
use cluster::session::{Digest, WatchCall};
use cluster::time::Timestamp;

/// How often a worker reports at least.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// Pause after no manager that is known answered as the leader.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Pause after an answer that cannot be read: the next one is likely to be the same, with all that
/// the node lacks.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(5);

/// What the leader is asked: to answer once there is something else than this.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The question.
    pub call: WatchCall,
    /// The assignment whose parts the call says the node has.
    pub known: Option<Arc<Held>>,
}

/// The leader's answer to a watch.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Who answered.
    pub leader: SocketAddr,
    /// The leader's clock: restart delays are by it.
    pub time: Timestamp,
    /// A new assignment, if there is one.
    pub assignment: Option<Arc<Held>>,
    /// All of this node's tasks that may stop now.
    pub released: BTreeSet<TaskId>,
    /// When it came, by the monotonic clock.
    pub arrived: Duration,
}

/// Why a watch brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// No manager that is known answered as the leader.
    NoLeader,
    /// The leader's answer cannot be read.
    Unreadable,
}

/// What a report says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The assignment that the kernel holds.
    pub applied: Option<Digest>,
    /// What the leader does not know yet.
    pub statuses: BTreeMap<TaskId, TaskStatus>,
    /// What the node says of itself, where this leader has not heard it.
    pub description: Option<NodeDescription>,
}

/// A call that is repeated.
#[derive(Debug, Clone, PartialEq)]
enum Call<T> {
    UnderWay(T),
    DueAt(Duration),
}

#[derive(Debug)]
pub(crate) struct Session {
    held: Option<Arc<Held>>,
    /// A manager told it; it is not from disk.
    is_confirmed: bool,
    released: BTreeSet<TaskId>,
    watch: Call<()>,
    report: Call<Report>,
    /// What the leader heard last.
    heard: Report,
    /// Whether the last report was heard.
    was_heard: bool,
    /// Who answered last, if the last call was answered.
    leader: Option<SocketAddr>,
    description: NodeDescription,
    described: Option<(SocketAddr, NodeDescription)>,
}

impl Session {
    pub(crate) fn new(description: NodeDescription, on_disk: Option<Arc<Held>>) -> Self {
        Self {
            held: on_disk,
            is_confirmed: false,
            released: BTreeSet::new(),
            watch: Call::DueAt(Duration::ZERO),
            report: Call::DueAt(Duration::ZERO),
            heard: Report::default(),
            was_heard: false,
            leader: None,
            description,
            described: None,
        }
    }

    /// The parts of an assignment, if that is the newest one.
    pub(crate) fn parts_of(&self, assignment: &Arc<Assignment>) -> Option<&Arc<Held>> {
        self.held.as_ref().filter(|newest| Arc::ptr_eq(&newest.assignment, assignment))
    }

    /// What names an assignment to the leader; none for one that no manager has confirmed since
    /// start.
    pub(crate) fn digest_of(&self, assignment: &Arc<Assignment>) -> Option<Digest> {
        let newest = self.parts_of(assignment).filter(|_| self.is_confirmed);
        newest.map(|newest| newest.digest)
    }

    pub(crate) fn trusts(&mut self, trust: Trust) {
        self.description.trust = Some(trust);
    }

    /// What this machine is like now. Without its link the underlay has no MTU: it stays as it was.
    pub(crate) fn machine(&mut self, routes: Vec<Subnet>, underlay_mtu: Option<u32>) {
        self.description.routes = routes;
        self.description.underlay_mtu = underlay_mtu.or(self.description.underlay_mtu);
    }

    /// What came of the watch. Returns the assignment and the releases that are new.
    pub(crate) fn watched(&mut self, answer: Result<&Answer, Missed>, now: Duration) -> News {
        let answer = match answer {
            Ok(answer) => answer,
            Err(Missed::NoLeader) => {
                self.leader = None;
                self.watch = Call::DueAt(now + RETRY_PAUSE);
                return News::default();
            }
            Err(Missed::Unreadable) => {
                self.watch = Call::DueAt(now + UNREADABLE_PAUSE);
                return News::default();
            }
        };
        self.leader = Some(answer.leader);
        self.watch = Call::DueAt(now);
        let mut news = News::default();
        if let Some(held) = &answer.assignment {
            (self.held, self.is_confirmed) = (Some(Arc::clone(held)), true);
            news.assignment = Some(Arc::clone(&held.assignment));
        }
        if answer.released != self.released {
            self.released.clone_from(&answer.released);
            news.released = Some(answer.released.clone());
        }
        news
    }

    /// What came of the report: who heard it, if anybody did. Returns what the leader knows now.
    pub(crate) fn reported(
        &mut self,
        heard_by: Option<SocketAddr>,
        now: Duration,
    ) -> BTreeMap<TaskId, TaskStatus> {
        self.leader = heard_by;
        self.was_heard = heard_by.is_some();
        let pause = if self.was_heard { REPORT_INTERVAL } else { RETRY_PAUSE };
        let told = std::mem::replace(&mut self.report, Call::DueAt(now + pause));
        let (Call::UnderWay(told), Some(leader)) = (told, heard_by) else {
            return BTreeMap::new();
        };
        if let Some(description) = &told.description {
            self.described = Some((leader, description.clone()));
        }
        self.heard = told;
        self.heard.statuses.clone()
    }

    /// The watch, if it is to be put.
    pub(crate) fn due_watch(&mut self, now: Duration) -> Option<Watch> {
        match self.watch {
            Call::DueAt(at) if at <= now => {
                self.watch = Call::UnderWay(());
                let known = self.held.clone();
                let call = WatchCall {
                    have: known.as_ref().map(|held| held.digests()).unwrap_or_default(),
                    confirmed: self.is_confirmed,
                    released: self.released.clone(),
                    schema: newest_schema(),
                };
                Some(Watch { call, known })
            }
            Call::DueAt(_) | Call::UnderWay(()) => None,
        }
    }

    /// The report, if it is to be made.
    pub(crate) fn due_report(
        &mut self,
        applied: Option<Digest>,
        statuses: impl FnOnce() -> BTreeMap<TaskId, TaskStatus>,
        now: Duration,
    ) -> Option<Report> {
        let Call::DueAt(at) = self.report else { return None };
        let report = Report { applied, statuses: statuses(), description: self.unheard() };
        // After a failure news waits, too: without a leader there would be no pause at all.
        if at > now && !(self.was_heard && self.is_news(&report)) {
            return None;
        }
        self.report = Call::UnderWay(report.clone());
        Some(report)
    }

    /// What the node says of itself, unless this leader has heard just that.
    fn unheard(&self) -> Option<NodeDescription> {
        let known = self.described.as_ref().filter(|(to, _)| Some(*to) == self.leader);
        let is_known = known.is_some_and(|(_, said)| *said == self.description);
        (!is_known).then(|| self.description.clone())
    }

    fn is_news(&self, report: &Report) -> bool {
        let is_heard = |(id, status): (&TaskId, &TaskStatus)| {
            self.heard.statuses.get(id).is_some_and(|heard| heard == status)
        };
        let said = self.described.as_ref().map(|(_, said)| said);
        report.applied != self.heard.applied
            || said != Some(&self.description)
            || !report.statuses.iter().all(is_heard)
    }

    /// `watches` says whether a watch may be put.
    pub(crate) fn next_deadline(&self, watches: bool) -> Option<Duration> {
        let watch = match self.watch {
            Call::DueAt(at) if watches => Some(at),
            Call::DueAt(_) | Call::UnderWay(()) => None,
        };
        let report = match self.report {
            Call::DueAt(at) => Some(at),
            Call::UnderWay(_) => None,
        };
        watch.into_iter().chain(report).min()
    }
}

/// What the answer to a watch brought.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) assignment: Option<Arc<Assignment>>,
    pub(crate) released: Option<BTreeSet<TaskId>>,
}
