//! Calls between agents and the leader, which answers as `manager/session.rs` does: each may be
//! lost on its way there or back, which the caller notices after a while.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use agent::{Answer, Input, Missed, Report, Watch};
use cluster::assign::Held;
use cluster::id::NodeId;
use cluster::object::TaskState;
use cluster::session::{ReportCall, WatchAnswer};
use skein::pki::digest_of;

use super::PlantedBug;
use super::network::address;
use super::world::{Event, World};

/// A worker's watch.
#[derive(Debug, Clone)]
pub(super) enum Watching {
    /// There is none, or what came of it is under way.
    Nothing,
    /// The leader holds it until there is news.
    Waiting {
        /// The question.
        watch: Watch,
        /// What other nodes acknowledge may be news for it, or nobody has looked at it yet.
        waits_for_others: bool,
    },
}

/// The watches that the leader looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Woken {
    /// Those that wait for what other nodes acknowledge.
    ByAcknowledgements,
    /// All of them: the state is another one.
    ByTheState,
}

/// The answer to a watch.
#[derive(Debug)]
pub(super) struct WatchNews {
    leader: SocketAddr,
    answer: WatchAnswer,
    /// What the node had when it asked.
    known: Option<Arc<Held>>,
}

impl World {
    pub(super) fn ask_watch(&mut self, node: NodeId, watch: Watch) {
        let reachable = self.leader.available && self.network.reaches_managers(node);
        let Some(daemon) = self.daemon(node) else { return };
        if reachable {
            daemon.watching = Watching::Waiting { watch, waits_for_others: true };
            self.ring_soon(Woken::ByAcknowledgements);
        } else {
            self.break_watch(node);
        }
    }

    fn break_watch(&mut self, node: NodeId) {
        self.miss_watch(node, Missed::NoLeader);
    }

    fn miss_watch(&mut self, node: NodeId, missed: Missed) {
        let pause = self.ms_between(1, 500);
        let Some(daemon) = self.daemon(node) else { return };
        daemon.watching = Watching::Nothing;
        let (run, input) = (daemon.run, Box::new(Input::Watched(Err(missed))));
        self.after(pause, Event::Input { node, run, input });
    }

    /// Lets the leader look at the watches that wait, once for many changes of one moment.
    pub(super) fn ring_soon(&mut self, woken: Woken) {
        if self.ringing.is_none() {
            let delay = self.delay();
            self.after(delay, Event::Ring);
        }
        self.ringing = self.ringing.max(Some(woken));
    }

    pub(super) fn ring(&mut self) {
        let all = self.ringing.take() == Some(Woken::ByTheState);
        let nodes: Vec<NodeId> = self.hosts.keys().copied().collect();
        for node in nodes {
            let watching = self.daemon(node).map(|daemon| &daemon.watching);
            if let Some(Watching::Waiting { waits_for_others, .. }) = watching
                && (all || *waits_for_others)
            {
                self.look_at_watch(node);
            }
        }
    }

    fn look_at_watch(&mut self, node: NodeId) {
        let reachable = self.leader.available && self.network.reaches_managers(node);
        let now = self.now;
        let Some(daemon) = self.daemon(node) else { return };
        let Watching::Waiting { watch, .. } = daemon.watching.clone() else { return };
        let run = daemon.run;
        if !reachable {
            return self.break_watch(node);
        }
        let (wall, leader) = (self.wall(), &mut self.leader);
        let watched = leader.core.watch(&leader.state, node, &watch.call, (now, wall));
        // Who was removed is turned away.
        let Ok(watched) = watched else { return };
        let address = leader.address();
        if watched.rings {
            self.ring_soon(Woken::ByAcknowledgements);
        }
        let Some(daemon) = self.daemon(node) else { return };
        if !watched.is_news {
            let waits_for_others = watched.waits_for_others;
            daemon.watching = Watching::Waiting { watch, waits_for_others };
            return;
        }
        daemon.watching = Watching::Nothing;
        let news = WatchNews { leader: address, answer: watched.answer, known: watch.known };
        let delay = self.delay();
        self.after(delay, Event::Assigned { node, run, news });
    }

    /// The answer to a watch arrives, or is lost with its connection.
    pub(super) fn assigned(&mut self, node: NodeId, run: u64, news: WatchNews) {
        if self.daemon_of_run(node, run).is_none() {
            return;
        }
        if !self.network.reaches_managers(node) {
            return self.break_watch(node);
        }
        let WatchNews { leader, answer, known } = news;
        let WatchAnswer { told, released, .. } = answer;
        let next = told.map(|told| Held::next(known.as_deref(), node, told, digest_of));
        let assignment = match next.transpose() {
            Ok(held) => held.map(Arc::new),
            Err(error) => {
                self.problems.push(format!("node {}: {error}", node.0));
                return self.miss_watch(node, Missed::Unreadable);
            }
        };
        let (time, arrived) = (self.wall(), self.now);
        let answer = Answer { leader, time, assignment, released, arrived };
        self.agent_input(node, Input::Watched(Ok(answer)));
    }

    pub(super) fn send_report(&mut self, node: NodeId, mut report: Report) {
        if self.plant == PlantedBug::EarlyEnd && node == NodeId(4) {
            for status in report.statuses.values_mut().filter(|s| s.state == TaskState::Running) {
                status.state = TaskState::Failed;
            }
        }
        if self.plant == PlantedBug::SaidOnce && self.now > super::SETTLED {
            report.description = None;
        }
        let from = match self.plant {
            PlantedBug::NoAddress => IpAddr::from([0, 0, 0, 0]),
            _honest => address(node).ip(),
        };
        let Some(run) = self.daemon(node).map(|daemon| daemon.run) else { return };
        let delay = self.delay();
        self.after(delay, Event::Report { node, run, from, report: Box::new(report) });
    }

    /// A report arrives at the leader, or nowhere.
    pub(super) fn hear_report(
        &mut self,
        (node, run): (NodeId, u64),
        from: IpAddr,
        report: Report,
        restarts: bool,
    ) {
        if !self.leader.available || !self.network.reaches_managers(node) {
            let pause = self.ms_between(100, 2_500);
            return self.after(pause, Event::Reported { node, run, heard_by: None });
        }
        let Report { applied, statuses, description } = report;
        let call = ReportCall { applied, statuses, description, restarts };
        let leader = &mut self.leader;
        let reported = leader.core.report(&leader.state, node, Some(from), call, self.now);
        // Who was removed is turned away.
        let Ok(reported) = reported else { return };
        if reported.rings {
            self.ring_soon(Woken::ByAcknowledgements);
        }
        for request in reported.requests {
            if let Err(refusal) = self.decide(&request) {
                self.problems.push(format!("the report of node {}: {refusal}", node.0));
            }
        }
        let (delay, heard_by) = (self.delay(), Some(self.leader.address()));
        self.after(delay, Event::Reported { node, run, heard_by });
    }

    /// The answer to a report arrives, or it is noticed that none will.
    pub(super) fn reported(&mut self, node: NodeId, run: u64, heard_by: Option<SocketAddr>) {
        let reachable = self.network.reaches_managers(node);
        let heard_by = heard_by.filter(|_| reachable);
        self.input_of_run(node, run, Input::Reported(heard_by));
    }
}
