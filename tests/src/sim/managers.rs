//! The managers: each has a copy of the state from the entries of the log, at its own pace, and the
//! leader has Raft's members follow the state. Copies are compared as the managers compare them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::State;
use cluster::codec::{decode_transaction, encode_transaction};
use cluster::id::NodeId;
use cluster::object::NodeState;
use cluster::request::Request;
use cluster::spec::Role;
use cluster::transaction::{Change as StateChange, Object};
use raft_store::{Machine as _, Peer, Status};
use rand::RngExt as _;
use skein::machine::StateMachine;
use skein::manager::agreement::{Compared, History};
use skein::manager::membership::{Step, steps};
use tokio::sync::watch;

use super::PlantedBug;
use super::session::Woken;
use super::world::{Event, World};

/// The leader looks at its members, and followers at the log, this often.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Between two comparisons of all states: shorter than the managers', as a run is.
const COMPARE_INTERVAL: Duration = Duration::from_secs(2);

/// Raft by its contract, and the managers' copies of the state.
#[derive(Default)]
pub(super) struct Managers {
    copies: BTreeMap<NodeId, Copied>,
    voters: Vec<Peer>,
    learners: Vec<Peer>,
    /// The Raft id of the leader.
    seat: u64,
    /// Raft ids that were taken out.
    spent: BTreeSet<u64>,
    next_comparison: Duration,
    /// Comparisons that found two states equal.
    pub(super) compared: u64,
    /// Managers that were added and taken out.
    pub(super) moved: u64,
}

/// One manager's copy.
struct Copied {
    machine: StateMachine,
    history: History,
    newest: watch::Receiver<Arc<State>>,
    applied: u64,
    /// The daemon that holds it.
    run: u64,
}

impl Copied {
    /// As a daemon starts, from a snapshot of this state.
    fn from_snapshot(state: &State, run: u64) -> Result<Self, String> {
        let mut snapshot = Vec::new();
        state.write_snapshot(&mut snapshot).map_err(|error| error.to_string())?;
        let (publish, newest) = watch::channel(Arc::default());
        let history = History::default();
        let mut machine = StateMachine::new(publish, history.clone());
        let applied = state.revision.0;
        machine.restore(applied, &mut snapshot.as_slice())?;
        Ok(Self { machine, history, newest, applied, run })
    }

    /// Applies the entries that come next, at most so many.
    fn follow(&mut self, log: &[Vec<u8>], count: usize, mistaken: bool) -> Result<(), String> {
        let from = usize::try_from(self.applied).unwrap_or(usize::MAX);
        for entry in log.iter().skip(from).take(count) {
            self.applied += 1;
            let entry = if mistaken { renamed(entry)? } else { entry.clone() };
            self.machine.apply(self.applied, &entry)?;
            let revision = self.newest.borrow().revision.0;
            if revision != self.applied {
                return Err(format!("entry {} was not applied: {revision}", self.applied));
            }
        }
        Ok(())
    }
}

/// A planted bug: a network gets another name.
fn renamed(entry: &[u8]) -> Result<Vec<u8>, String> {
    let mut transaction = decode_transaction(entry).map_err(|error| error.to_string())?;
    for change in &mut transaction.changes {
        if let StateChange::Put { object: Object::Network(network), .. } = change {
            Arc::make_mut(network).spec.name.push('x');
        }
    }
    encode_transaction(&transaction).map_err(|error| error.to_string())
}

impl World {
    /// The managers that the cluster was made with vote.
    pub(super) fn seat_managers(&mut self) {
        let managers = self.leader.state.nodes.values().filter_map(|node| node.manager.as_ref());
        let peer = |place: &cluster::object::ManagerInfo| Peer {
            raft_id: place.raft_id,
            address: place.address.to_string(),
        };
        self.managers.voters = managers.map(peer).collect();
        self.managers.seat = self.managers.voters.first().map_or(0, |peer| peer.raft_id);
        self.after(Duration::ZERO, Event::Managers);
    }

    pub(super) fn look_at_managers(&mut self) {
        if self.leader.available {
            for step in steps(&self.leader.state, &self.raft_status()) {
                self.carry_out_step(step);
            }
            self.turn_key();
        }
        if let Err(problem) = self.replicate() {
            self.problems.push(problem);
        }
        if self.now >= self.managers.next_comparison {
            self.managers.next_comparison = self.now + COMPARE_INTERVAL;
            self.compare_copies();
        }
        self.after(LOOK_INTERVAL, Event::Managers);
    }

    fn raft_status(&self) -> Status {
        let revision = self.leader.state.revision.0;
        Status {
            raft_id: self.managers.seat,
            term: 1,
            leader: None,
            is_leader: true,
            leader_ready: true,
            last_applied: revision,
            last_log: revision,
            voters: self.managers.voters.clone(),
            learners: self.managers.learners.clone(),
            has_quorum: true,
            stopped: None,
        }
    }

    fn carry_out_step(&mut self, step: Step) {
        self.tell(format!("{step:?}"));
        let recorded = match step {
            Step::Promoted(id, manager) => self.decide(&Request::PromotedManager { id, manager }),
            Step::Demoted(id) => self.decide(&Request::DemotedManager { id }),
            Step::HandOver(to) => {
                self.managers.seat = to;
                self.leader.core.resign();
                self.leader.core.take_over(&self.leader.state, self.now);
                return self.ring_soon(Woken::ByTheState);
            }
            Step::Remove(_) if self.plant == PlantedBug::KeptVote => return,
            Step::Remove(raft_id) => {
                let managers = &mut self.managers;
                managers.voters.retain(|peer| peer.raft_id != raft_id);
                managers.learners.retain(|peer| peer.raft_id != raft_id);
                managers.spent.insert(raft_id);
                managers.moved += 1;
                return;
            }
            Step::Move(peer) | Step::Add(peer) => return self.add_member(peer),
        };
        if let Err(refusal) = recorded {
            self.problems.push(format!("recording a role: {refusal}"));
        }
    }

    /// A learner first, and a voter at the next look, if it is there to get the log.
    fn add_member(&mut self, peer: Peer) {
        if self.managers.spent.contains(&peer.raft_id) {
            self.problems.push(format!("Raft id {} comes again", peer.raft_id));
        }
        let node = self.node_of(peer.raft_id);
        let there = node.is_some_and(|node| self.is_reached(node));
        let managers = &mut self.managers;
        if managers.learners.contains(&peer) {
            if there {
                managers.learners.retain(|learner| *learner != peer);
                managers.voters.push(peer);
                managers.moved += 1;
            }
        } else if there {
            managers.learners.push(peer);
        }
    }

    fn node_of(&self, raft_id: u64) -> Option<NodeId> {
        let mut nodes = self.leader.state.nodes.values();
        let found = nodes.find(|node| node.raft().is_some_and(|place| place.raft_id == raft_id));
        found.map(|node| node.id)
    }

    fn is_reached(&self, node: NodeId) -> bool {
        let runs = self.hosts.get(&node).is_some_and(|host| host.daemon.is_some());
        runs && self.network.reaches_managers(node)
    }

    /// Each manager that can be reached applies some of what it lacks; in calm, all of it.
    fn replicate(&mut self) -> Result<(), String> {
        let peers = self.managers.voters.iter().chain(&self.managers.learners);
        let members: BTreeSet<NodeId> =
            peers.filter_map(|peer| self.node_of(peer.raft_id)).collect();
        self.managers.copies.retain(|node, _| members.contains(node));
        for node in members {
            let daemon = self.hosts.get(&node).and_then(|host| host.daemon.as_ref());
            let Some(run) = daemon.map(|daemon| daemon.run) else { continue };
            let fresh = match self.managers.copies.remove(&node) {
                Some(copy) if copy.run == run => Ok(copy),
                // What the one before had in memory is gone, what it had on disk is not.
                Some(copy) => Copied::from_snapshot(&copy.newest.borrow().clone(), run),
                None => Copied::from_snapshot(&self.leader.state, run),
            };
            let mut copy = fresh.map_err(|reason| format!("manager {}: {reason}", node.0))?;
            if self.network.reaches_managers(node) {
                let lacks = self.leader.state.revision.0.saturating_sub(copy.applied);
                let drawn = self.moves.random_range(0..=lacks);
                let count = usize::try_from(if self.calm { lacks } else { drawn });
                let mistaken = self.plant == PlantedBug::OtherName && node == NodeId(2);
                copy.follow(&self.leader.log, count.unwrap_or(usize::MAX), mistaken)
                    .map_err(|reason| format!("manager {}: {reason}", node.0))?;
            }
            self.managers.copies.insert(node, copy);
        }
        Ok(())
    }

    /// Every manager asks every other one.
    fn compare_copies(&mut self) {
        let copies: Vec<(NodeId, History)> =
            self.managers.copies.iter().map(|(id, copy)| (*id, copy.history.clone())).collect();
        for (asking, own) in &copies {
            for (asked, other) in copies.iter().filter(|(asked, _)| asked != asking) {
                match other.compare(&own.call()) {
                    Compared::Equal(_) => self.managers.compared += 1,
                    Compared::Differs(revision) => self.problems.push(format!(
                        "managers {} and {} hold different states at revision {}",
                        asking.0, asked.0, revision.0
                    )),
                    Compared::NotComparable => {}
                }
            }
        }
    }

    /// In calm: who votes is who is to be a manager, and each has the state.
    pub(super) fn complain_of_managers(&self, found: &mut Vec<String>) {
        let state = &self.leader.state;
        let voters: BTreeSet<u64> = self.managers.voters.iter().map(|peer| peer.raft_id).collect();
        for node in state.nodes.values() {
            let place = node.manager.as_ref().map(|place| place.raft_id);
            let wanted = node.spec.role == Role::Manager;
            let votes = place.is_some_and(|raft_id| voters.contains(&raft_id));
            // One that is lost for good is not waited for.
            let lost = node.status.state != NodeState::Ready;
            if (wanted != votes && !lost) || (!wanted && (votes || node.raft().is_some())) {
                let (id, role) = (node.id.0, node.spec.role);
                found.push(format!("node {id} is to be {role:?} and votes: {votes} as {place:?}"));
            }
        }
        let places: BTreeSet<u64> =
            state.nodes.values().filter_map(|node| Some(node.raft()?.raft_id)).collect();
        for raft_id in voters.difference(&places) {
            found.push(format!("Raft id {raft_id} votes and is no node's"));
        }
        for (node, copy) in &self.managers.copies {
            let (own, reached) = (copy.newest.borrow().clone(), self.is_reached(*node));
            if reached && (own.revision, own.digest) != (state.revision, state.digest) {
                let (has, newest) = (own.revision.0, state.revision.0);
                found.push(format!("manager {} has another state: {has}, {newest}", node.0));
            }
        }
    }
}
