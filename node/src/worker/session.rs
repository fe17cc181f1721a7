//! The calls of a session: asks the leader, which [`Search`] finds among the managers known.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent::{Answer, Missed, Report, Search, Watch};
use bytes::Bytes;
use cluster::assign::Held;
use cluster::assignment::Assignment;
use cluster::id::NodeId;
use cluster::session::{ReportAnswer, ReportCall, WatchAnswer, frame};
use leader::LEASE;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::clock;
use crate::gossip_io::Gossip;
use crate::member::office::Office;
use crate::pki::digest_of;
use crate::telemetry::Seldom;
use crate::transport::{CallError, Lane, Net};
use crate::wire::{
    NO_ANSWER, NOT_A_MEMBER, NOT_LEADER, NotLeader, RenewAnswer, RenewCall, ReseatAnswer,
    ReseatCall, TOO_OLD, decode, encode,
};

/// A watch is answered within ten seconds; one that is not is broken.
const WATCH_LIMIT: Duration = Duration::from_secs(15);
/// A report that takes longer would come too late for the lease.
const REPORT_LIMIT: Duration = LEASE;
/// How long the leader may take to sign a certificate.
const RENEW_LIMIT: Duration = Duration::from_secs(5);
/// How long a daemon that stops may take to tell the leader.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// What all calls share.
#[derive(Clone)]
pub struct Session {
    node: NodeId,
    net: Net,
    known: Known,
    /// The leader as far as known; every call keeps it.
    leader: Arc<watch::Sender<Option<SocketAddr>>>,
    /// The line of a refusal that is told at each call.
    refusals: Arc<Mutex<Seldom>>,
    /// Why the leader tells this version nothing.
    too_old: Arc<watch::Sender<Option<String>>>,
}

/// Where managers may be found.
#[derive(Clone)]
pub struct Known {
    /// As the assignment has them, or what this node was given when it joined.
    pub managers: watch::Receiver<Vec<SocketAddr>>,
    /// The assignment.
    pub assignment: watch::Receiver<Option<Arc<Assignment>>>,
    /// This node's own manager: it knows who leads, and may lead from an address that nobody knows
    /// yet.
    pub office: watch::Receiver<Option<Office>>,
    /// Where its members are now.
    pub gossip: Gossip,
}

impl Known {
    fn here(&self) -> Option<SocketAddr> {
        self.office.borrow().as_ref().map(|office| office.address)
    }

    /// Managers that gossip hears from another address than the assignment has. Whether it is they
    /// who answer there their certificates tell.
    async fn moved(&self) -> Vec<SocketAddr> {
        let Some(assignment) = self.assignment.borrow().clone() else { return Vec::new() };
        let members = self.gossip.addresses().await;
        let managers = assignment.nodes.iter().filter_map(|(id, node)| Some((id, node.manager?)));
        let now = managers.filter_map(|(id, manager)| Some((members.get(id)?.ip(), manager)));
        let moved = now.filter(|(ip, manager)| *ip != manager.ip());
        moved.map(|(ip, manager)| SocketAddr::new(ip, manager.port())).collect()
    }
}

impl Session {
    /// A session with the leader, which is found among the managers that are known.
    #[must_use]
    pub fn new(node: NodeId, net: Net, known: Known) -> Self {
        let leader = Arc::new(watch::channel(None).0);
        let too_old = Arc::new(watch::channel(None).0);
        Self { node, net, known, leader, refusals: Arc::default(), too_old }
    }

    /// Why the leader tells this version of Skein nothing, if it does not.
    #[must_use]
    pub fn too_old(&self) -> Option<String> {
        self.too_old.borrow().clone()
    }

    fn complain(&self, address: SocketAddr, message: &str, remedy: &str) {
        let said = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).say();
        if let Some(more) = said {
            tracing::error!(%address, message, more, "{remedy}");
        }
    }

    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        call: &Q,
        limit: Duration,
    ) -> Result<(SocketAddr, A), Missed> {
        self.ask_for(path, call, limit, |bytes| Ok(decode(&bytes)?)).await
    }

    /// Asks the leader, wherever it is now. The caller comes back after a pause.
    async fn ask_for<Q: Serialize, A>(
        &self,
        path: &str,
        call: &Q,
        limit: Duration,
        read: impl Fn(Bytes) -> anyhow::Result<A>,
    ) -> Result<(SocketAddr, A), Missed> {
        let body = encode(call).map_err(|_too_large| Missed::NoLeader)?;
        let mut search = Search::new(*self.leader.borrow());
        let mut known = None;
        while let Some(address) = self.next(&mut search, &mut known).await {
            match self.net.call(address, Lane::Control, path, body.clone(), limit).await {
                Ok(bytes) => {
                    self.leader.send_if_modified(|leader| leader.replace(address) != Some(address));
                    return read(bytes).map(|answer| (address, answer)).map_err(|error| {
                        let remedy = "the leader's answer is not used; it is asked again";
                        self.complain(address, &format!("{error:#}"), remedy);
                        Missed::Unreadable
                    });
                }
                Err(CallError::Refused { status: NOT_LEADER, body, .. }) => {
                    search.redirected(decode::<NotLeader>(&body).ok().and_then(|it| it.leader));
                }
                Err(error) => self.refused(address, path, &error),
            }
        }
        self.leader.send_if_modified(|leader| leader.take().is_some());
        Err(Missed::NoLeader)
    }

    /// Where members are now is looked up once, when nobody else is left.
    async fn next(
        &self,
        search: &mut Search,
        known: &mut Option<Vec<SocketAddr>>,
    ) -> Option<SocketAddr> {
        if let Some(address) = search.hinted() {
            return Some(address);
        }
        if let Some(address) = search.one_of(self.known.here()) {
            return Some(address);
        }
        if known.is_none() {
            let mut all = self.known.moved().await;
            all.extend(self.known.managers.borrow().iter());
            *known = Some(all);
        }
        search.one_of(known.iter().flatten().copied())
    }

    fn refused(&self, address: SocketAddr, path: &str, error: &CallError) {
        match error {
            CallError::Refused { status: NOT_A_MEMBER, message, .. } => {
                self.complain(address, message, "`swarm leave` here, then join again");
            }
            CallError::Refused { status: TOO_OLD, message, .. } => {
                self.complain(address, message, "this node goes on with what it was told");
                self.too_old.send_if_modified(|known| {
                    known.replace(message.clone()).as_ref() != Some(message)
                });
            }
            CallError::Refused { status: NO_ANSWER, message, .. } => {
                self.complain(address, message, "the leader cannot answer; it is asked again");
            }
            error => tracing::debug!(%address, path, %error, "session call"),
        }
    }

    /// Asks the leader for a new certificate.
    pub async fn renew(&self, call: &RenewCall) -> Option<RenewAnswer> {
        let answer = self.ask("/session/renew", call, RENEW_LIMIT).await.ok();
        answer.map(|(_, answer)| answer)
    }

    /// Asks the leader for another place in Raft: the log of the one that this node has is gone.
    pub async fn reseat(&self, lost: u64) -> Result<(), String> {
        let call = ReseatCall { lost };
        let answer = self.ask::<_, ReseatAnswer>("/session/reseat", &call, RENEW_LIMIT).await;
        match answer.map(|(_, answer)| answer.refused) {
            Ok(None) => Ok(()),
            Ok(Some(reason)) => Err(reason),
            Err(_missed) => Err("no leader answers".to_owned()),
        }
    }

    /// Waits until the leader has another assignment, or other releases.
    pub async fn watch(&self, watch: Watch) -> Result<Answer, Missed> {
        let Watch { call, known } = watch;
        let read = |bytes| {
            let WatchAnswer { told, released, now } = frame::decode(bytes)?;
            let next = |told| Held::next(known.as_deref(), self.node, told, digest_of);
            let assignment = told.map(next).transpose()?.map(Arc::new);
            Ok((assignment, released, now))
        };
        let answer = self.ask_for("/session/watch", &call, WATCH_LIMIT, read).await;
        let (leader, (assignment, released, time)) = answer?;
        Ok(Answer { leader, time, assignment, released, arrived: clock::monotonic() })
    }

    /// Tells the leader; who that was.
    pub async fn report(&self, report: Report) -> Option<SocketAddr> {
        let heard = self.ask("/session/report", &call(report, false), REPORT_LIMIT).await.ok();
        heard.map(|(leader, _answer): (_, ReportAnswer)| leader)
    }

    /// Tells the leader that this daemon restarts, so that the node's tasks stay its own meanwhile.
    /// No report may follow: it would end the longer lease.
    pub async fn announce_restart(&self, last: Report) {
        let call = call(last, true);
        let asked = self.ask::<_, ReportAnswer>("/session/report", &call, REPORT_LIMIT);
        // Without it the tasks stay for as long as the usual lease.
        if !matches!(tokio::time::timeout(FAREWELL_LIMIT, asked).await, Ok(Ok(_))) {
            tracing::warn!("no leader could be told that this is a restart");
        }
    }
}

fn call(report: Report, restarts: bool) -> ReportCall {
    let Report { applied, statuses, description } = report;
    ReportCall { applied, statuses, description, restarts }
}
