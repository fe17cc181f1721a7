//! [`Leader`]: what a watch is answered, what follows from a report, and what from silence.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use cluster::assign::Hash;
use cluster::id::NodeId;
use cluster::object::{NodeState, Task};
use cluster::request::Request;
use cluster::session::{Digest, ReportAnswer, ReportCall, WatchCall};
use cluster::state::State;
use cluster::time::{Revision, Timestamp};

use crate::dispatcher::{Dispatcher, Heard, LEASE, Watched};

/// A leader that could not look at the leases for this long was not running, or had no majority of
/// managers.
pub const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Why a call of a session is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The node is not in the cluster, or is no longer.
    Unknown(NodeId),
    /// Its version reads only so much.
    TooOld {
        /// The cluster's schema.
        cluster: u32,
        /// The newest one that the node reads.
        node: u32,
    },
}

/// What follows from a report.
#[derive(Debug)]
pub struct Reported {
    /// To be decided before the report is answered.
    pub requests: Vec<Request>,
    /// Watches of other nodes may be answered now.
    pub rings: bool,
    /// For each change of the assignment that the kernel did not hold before, how long ago it was
    /// proposed, as far as that is known.
    pub realized: Vec<Duration>,
}

/// What a look at the leases finds.
#[derive(Debug)]
pub struct Look {
    /// To be decided: nodes whose lease ran out are down.
    pub requests: Vec<Request>,
    /// The leader could not look for a while, and every node has a full lease.
    pub leases_begin_again: bool,
}

/// The sessions of all nodes, at the leader.
#[derive(Debug)]
pub struct Leader {
    hash: Hash,
    dispatcher: Dispatcher,
    /// When the leases were looked at last.
    looked: Option<Duration>,
}

impl Leader {
    /// Of a manager that does not lead yet. `hash` is the one that nodes check parts with.
    #[must_use]
    pub fn new(hash: Hash) -> Self {
        Self { hash, dispatcher: Dispatcher::new(hash), looked: None }
    }

    /// This manager leads from now on: every node gets a full lease. What was heard of it earlier
    /// stays true: a new leader is told things before it takes over.
    pub fn take_over(&mut self, state: &State, now: Duration) {
        self.dispatcher.take_over(state, now);
        self.looked = Some(now);
    }

    /// Another leader hears of the nodes from now on.
    pub fn resign(&mut self) {
        *self = Self::new(self.hash);
    }

    /// An entry is proposed. There is one at a time.
    pub fn proposing(&mut self, at: Duration) {
        self.dispatcher.proposing(at);
    }

    /// It was applied.
    pub fn proposed(&mut self, revision: Revision) {
        self.dispatcher.proposed(revision);
    }

    /// What a node's watch comes to at this state. `wall` is the leader's clock.
    ///
    /// # Errors
    /// When the node is to be told nothing.
    pub fn watch(
        &mut self,
        state: &State,
        node: NodeId,
        call: &WatchCall,
        (now, wall): (Duration, Timestamp),
    ) -> Result<Watched, Refusal> {
        self.dispatcher.follow(state, now);
        check_schema(self.dispatcher.state(), call.schema)?;
        self.dispatcher.watch(node, call, wall).ok_or(Refusal::Unknown(node))
    }

    /// Renews a node's lease, and takes what it tells. `from` is where it called from.
    ///
    /// # Errors
    /// When the node is not heard.
    pub fn report(
        &mut self,
        state: &State,
        node: NodeId,
        from: Option<IpAddr>,
        call: ReportCall,
        now: Duration,
    ) -> Result<Reported, Refusal> {
        let known = state.nodes.get(&node).ok_or(Refusal::Unknown(node))?;
        if let Some(description) = &call.description {
            check_schema(state, description.schema)?;
        }
        self.dispatcher.follow(state, now);
        let Heard { rings, realized } = self.dispatcher.hear(node, call.applied, now);
        if call.restarts {
            self.dispatcher.expect_restart(node, now);
        }
        let mut requests = Vec::new();
        if let Some(description) = call.description
            && description != known.description
        {
            requests.push(Request::DescribeNode { id: node, description: Box::new(description) });
        }
        if known.status.state != NodeState::Ready {
            requests.push(Request::SetNodeState {
                id: node,
                state: NodeState::Ready,
                message: String::new(),
                address: from.map(|address| address.to_string()).unwrap_or_default(),
            });
        }
        if !call.statuses.is_empty() {
            let statuses = call.statuses.into_iter().collect();
            requests.push(Request::ReportTasks { node, statuses });
        }
        Ok(Reported { requests, rings, realized })
    }

    /// The answer to a report whose requests were decided.
    #[must_use]
    pub fn report_answer(state: &State) -> ReportAnswer {
        let lease_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        ReportAnswer { lease_ms, revision: state.revision }
    }

    /// Looks at the leases. Without a majority of managers nothing can be recorded, and nodes may
    /// not have been able to report: silence counts only from the return of a majority on.
    pub fn look(&mut self, state: &State, has_quorum: bool, now: Duration) -> Look {
        if !has_quorum {
            return Look { requests: Vec::new(), leases_begin_again: false };
        }
        let looked = self.looked.replace(now).unwrap_or(now);
        let leases_begin_again = now.saturating_sub(looked) > PAUSE_MAX;
        if leases_begin_again {
            self.dispatcher.take_over(state, now);
        }
        self.dispatcher.follow(state, now);
        let lost = self.dispatcher.expired(state, now).into_iter();
        let down = |id| Request::SetNodeState {
            id,
            state: NodeState::Down,
            message: "heartbeat failure: the node's lease ran out".to_owned(),
            address: String::new(),
        };
        Look { requests: lost.map(down).collect(), leases_begin_again }
    }

    /// Live nodes on a task's networks that are not known to have followed its last change: one
    /// that is to stop may still be in their balancers.
    pub fn behind(&mut self, state: &State, task: &Task, now: Duration) -> BTreeSet<NodeId> {
        self.dispatcher.follow(state, now);
        self.dispatcher.behind(task)
    }

    /// The newest revision of which a node's kernel is known to hold the whole assignment. It need
    /// not have seen that state: nothing in it concerned the node.
    #[must_use]
    pub fn applied(&self, node: NodeId) -> Option<Revision> {
        self.dispatcher.applied(node)
    }

    /// The digest of a node's assignment at this state.
    pub fn digest(&mut self, state: &State, node: NodeId, now: Duration) -> Option<Digest> {
        self.dispatcher.follow(state, now);
        self.dispatcher.digest(node)
    }
}

/// Nobody is given what its version does not read. It is not heard either: a node that cannot be
/// told what to run has no lease.
fn check_schema(state: &State, reads: u32) -> Result<(), Refusal> {
    match &state.cluster {
        Some(cluster) if cluster.schema > reads => {
            Err(Refusal::TooOld { cluster: cluster.schema, node: reads })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
