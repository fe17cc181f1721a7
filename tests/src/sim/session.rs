//! Sessions between workers and the leader, as `manager/session.rs` and `worker/session.rs` hold
//! them: a worker watches for its assignment and reports; both calls may be lost and are repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster::assignment::Assignment;
use cluster::id::{NodeId, TaskId};
use cluster::object::{NodeState, TaskState, TaskStatus};
use cluster::request::Request;
use skein::dispatcher::REPORT_INTERVAL;
use skein::wire::Digest;
use skein::worker::Input;

use super::Plant;
use super::world::{Event, World};

/// A worker's watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// No manager was reached; it will be tried again.
    Broken,
    /// The leader holds it until there is news.
    Waiting,
    /// The answer is under way.
    Answered,
}

/// The answer to a watch.
#[derive(Debug)]
pub(super) struct WatchNews {
    assignment: Option<(Digest, Arc<Assignment>)>,
    released: BTreeSet<TaskId>,
}

/// What a report says.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ReportNews {
    applied: Option<Digest>,
    statuses: BTreeMap<TaskId, TaskStatus>,
}

/// A worker's reports.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// One is under way.
    busy: bool,
    /// Counts them, so that a timer of an earlier one is void.
    turn: u64,
    /// The last one that was sent.
    sent: ReportNews,
}

impl World {
    /// A worker asks, or asks again after it could not.
    pub(super) fn ask_watch(&mut self, node: NodeId, run: u64) {
        let reachable = self.leader.available && self.network.reaches_managers(node);
        let Some(daemon) = self.daemon_of_run(node, run) else { return };
        if daemon.watch != Watch::Broken {
            return;
        }
        if reachable {
            daemon.watch = Watch::Waiting;
            self.ring_soon();
        } else {
            self.watch_again(node, run);
        }
    }

    fn watch_again(&mut self, node: NodeId, run: u64) {
        let pause = self.ms_between(100, 600);
        self.after(pause, Event::Watch { node, run });
    }

    /// Lets the leader look at the watches that wait, once for many changes of one moment.
    pub(super) fn ring_soon(&mut self) {
        if !self.ringing {
            self.ringing = true;
            let delay = self.delay();
            self.after(delay, Event::Ring);
        }
    }

    pub(super) fn ring(&mut self) {
        self.ringing = false;
        let nodes: Vec<NodeId> = self.hosts.keys().copied().collect();
        for node in nodes {
            self.look_at_watch(node);
        }
    }

    fn look_at_watch(&mut self, node: NodeId) {
        let reachable = self.leader.available && self.network.reaches_managers(node);
        let now = self.now;
        let Some(daemon) = self.daemon(node).filter(|daemon| daemon.watch == Watch::Waiting) else {
            return;
        };
        let (run, have) = (daemon.run, daemon.received.as_ref().map(|(digest, _)| *digest));
        let known = daemon.released.clone();
        if !reachable {
            daemon.watch = Watch::Broken;
            return self.watch_again(node, run);
        }
        let leader = &mut self.leader;
        let before = leader.dispatcher.applied(node);
        let Some((digest, assignment)) = leader.assignment(node, now) else { return };
        let moved = leader.dispatcher.applied(node) != before;
        let released = leader.dispatcher.released(&leader.state, node);
        if moved {
            self.ring_soon();
        }
        let assignment = (have != Some(digest)).then_some((digest, assignment));
        if assignment.is_none() && released.is_subset(&known) {
            return;
        }
        if let Some(daemon) = self.daemon(node) {
            daemon.watch = Watch::Answered;
        }
        let (delay, news) = (self.delay(), WatchNews { assignment, released });
        self.after(delay, Event::Assigned { node, run, news });
    }

    /// The answer to a watch arrives, or is lost with its connection.
    pub(super) fn assigned(&mut self, node: NodeId, run: u64, news: WatchNews) {
        let reachable = self.network.reaches_managers(node);
        let Some(daemon) = self.daemon_of_run(node, run) else { return };
        if !reachable {
            daemon.watch = Watch::Broken;
            return self.watch_again(node, run);
        }
        daemon.watch = Watch::Waiting;
        if let Some((digest, assignment)) = news.assignment {
            daemon.received = Some((digest, Arc::clone(&assignment)));
            self.worker_input(node, Input::Assignment { assignment, from_manager: true });
        }
        if let Some(daemon) = self.daemon(node)
            && daemon.released != news.released
        {
            daemon.released.clone_from(&news.released);
            self.worker_input(node, Input::Released(news.released));
        }
        self.ring_soon();
    }

    /// Reports at once when something is new.
    pub(super) fn report_if_news(&mut self, node: NodeId) {
        let plant = self.plant;
        let Some(daemon) = self.daemon(node) else { return };
        if !daemon.report.busy && daemon.report.sent != daemon.report_news(node, plant) {
            self.send_report(node);
        }
    }

    pub(super) fn report_due(&mut self, node: NodeId, run: u64, turn: u64) {
        let due =
            |daemon: &&mut super::host::Daemon| !daemon.report.busy && daemon.report.turn == turn;
        if self.daemon_of_run(node, run).filter(due).is_some() {
            self.send_report(node);
        }
    }

    fn send_report(&mut self, node: NodeId) {
        let plant = self.plant;
        let Some(daemon) = self.daemon(node) else { return };
        let (run, news) = (daemon.run, daemon.report_news(node, plant));
        daemon.report.busy = true;
        daemon.report.turn += 1;
        daemon.report.sent.clone_from(&news);
        let delay = self.delay();
        self.after(delay, Event::Report { node, run, news });
    }

    /// A report arrives at the leader, or nowhere.
    pub(super) fn hear_report(&mut self, node: NodeId, run: u64, news: ReportNews) {
        if !self.leader.available || !self.network.reaches_managers(node) {
            let pause = self.ms_between(100, 2_500);
            return self.after(pause, Event::ReportAnswered { node, run, heard: None });
        }
        // Who was removed is turned away.
        if !self.leader.state.nodes.contains_key(&node) {
            return;
        }
        let now = self.now;
        let dispatcher = &mut self.leader.dispatcher;
        let before = dispatcher.applied(node);
        dispatcher.hear(node, news.applied, now);
        if dispatcher.applied(node) != before {
            self.ring_soon();
        }
        let known = self.leader.state.nodes.get(&node).map(|node| node.status.state);
        let mut requests = Vec::new();
        if known != Some(NodeState::Ready) {
            let address = super::network::address(node).ip().to_string();
            let (state, message) = (NodeState::Ready, String::new());
            requests.push(Request::SetNodeState { id: node, state, message, address });
        }
        if !news.statuses.is_empty() {
            let statuses = news.statuses.clone().into_iter().collect();
            requests.push(Request::ReportTasks { node, statuses });
        }
        for request in requests {
            if let Err(refusal) = self.decide(&request) {
                self.problems.push(format!("the report of node {}: {refusal}", node.0));
            }
        }
        let delay = self.delay();
        self.after(delay, Event::ReportAnswered { node, run, heard: Some(news) });
    }

    pub(super) fn report_answered(&mut self, node: NodeId, run: u64, heard: Option<ReportNews>) {
        let reachable = self.network.reaches_managers(node);
        let Some(daemon) = self.daemon_of_run(node, run) else { return };
        daemon.report.busy = false;
        let turn = daemon.report.turn;
        match heard.filter(|_| reachable) {
            Some(news) => {
                if !news.statuses.is_empty() {
                    self.worker_input(node, Input::Reported(news.statuses));
                }
                self.after(REPORT_INTERVAL, Event::ReportDue { node, run, turn });
                self.report_if_news(node);
            }
            None => {
                let pause = self.ms_between(100, 200);
                self.after(pause, Event::ReportDue { node, run, turn });
            }
        }
    }

    /// What a pass changed is to be reported.
    pub(super) fn applied(&mut self, node: NodeId, digest: Option<Digest>) {
        if let Some(daemon) = self.daemon(node)
            && digest.is_some()
        {
            daemon.applied = digest;
        }
    }
}

impl super::host::Daemon {
    fn report_news(&self, node: NodeId, plant: Plant) -> ReportNews {
        let mut statuses = self.worker.statuses();
        if plant == Plant::EarlyEnd && node == NodeId(4) {
            for status in statuses.values_mut().filter(|s| s.state == TaskState::Running) {
                status.state = TaskState::Failed;
            }
        }
        ReportNews { applied: self.applied, statuses }
    }

    /// Whether the leader knows all that there is to know of this node's tasks.
    pub(super) fn has_reported_all(&self) -> bool {
        self.worker.statuses().is_empty()
    }
}
