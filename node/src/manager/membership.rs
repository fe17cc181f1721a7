//! Raft membership follows the state: who is to be a manager is added once it is caught up, who is
//! not is taken out, and what came of it is recorded. Level-triggered: both are compared each time,
//! and what failed is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::id::NodeId;
use cluster::object::{ManagerInfo, Node, NodeState};
use cluster::request::Request;
use cluster::spec::Role;
use cluster::state::State;
use raft_store::{Peer, Status};
use tokio::task::JoinHandle;

use super::Manager;

/// Looked at this often at least: a joiner's listener may not have been up the last time.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// One thing that the leader does about its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A worker that was to be a manager votes: it is one.
    Promoted(NodeId, ManagerInfo),
    /// A manager that was to be a worker is out of Raft: it is one.
    Demoted(NodeId),
    /// A member is at another address now.
    Move(Peer),
    /// This node leads and is not to: another one takes over, and takes it out.
    HandOver(u64),
    /// One that is to be no manager.
    Remove(u64),
    /// One that is to be a manager: it gets the log, then it votes.
    Add(Peer),
}

/// Runs until the manager stops.
pub(super) async fn run(manager: Manager) {
    let mut state = manager.state.clone();
    let mut status = manager.raft.watch();
    let mut adding: BTreeMap<u64, JoinHandle<()>> = BTreeMap::new();
    loop {
        if status.wait_for(|s| s.leader_ready).await.is_err() {
            return;
        }
        let newest = state.borrow_and_update().clone();
        let members = status.borrow_and_update().clone();
        adding.retain(|_, added| !added.is_finished());
        for step in steps(&newest, &members) {
            match step {
                // It takes as long as the new one needs for the log: the others need not wait.
                Step::Add(ref peer) => {
                    let (raft_id, manager) = (peer.raft_id, manager.clone());
                    let add = || tokio::spawn(async move { carry_out(&manager, step).await });
                    adding.entry(raft_id).or_insert_with(add);
                }
                other => carry_out(&manager, other).await,
            }
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            changed = status.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// What is to be done.
#[must_use]
pub fn steps(state: &State, status: &Status) -> Vec<Step> {
    let mut steps = Vec::new();
    if state.cluster.is_none() {
        return steps;
    }
    let wanted: BTreeMap<u64, &Node> = state
        .nodes
        .values()
        .filter(|node| !node.has_left() && node.spec.role == Role::Manager)
        .filter_map(|node| Some((node.raft()?.raft_id, &**node)))
        .collect();
    let votes = |id: u64| status.voters.iter().any(|peer| peer.raft_id == id);
    let members = || status.voters.iter().chain(&status.learners);
    for node in state.nodes.values() {
        let Some(place) = node.raft() else { continue };
        if node.spec.role == Role::Manager && node.manager.is_none() && votes(place.raft_id) {
            steps.push(Step::Promoted(node.id, place.clone()));
        }
        if node.spec.role == Role::Worker && members().all(|peer| peer.raft_id != place.raft_id) {
            steps.push(Step::Demoted(node.id));
        }
    }
    for peer in &status.voters {
        let address = wanted.get(&peer.raft_id).and_then(|node| node.raft()).map(|p| p.address);
        if let Some(address) = address.filter(|address| address.to_string() != peer.address) {
            steps.push(Step::Move(Peer { raft_id: peer.raft_id, address: address.to_string() }));
        }
    }
    // The last one stays: an empty group could never take a member again.
    for peer in members().filter(|peer| !wanted.is_empty() && !wanted.contains_key(&peer.raft_id)) {
        if peer.raft_id == status.raft_id {
            let ready = wanted.iter().filter(|(_, node)| node.status.state == NodeState::Ready);
            let next = ready.map(|(id, _)| *id).find(|id| votes(*id));
            steps.extend(next.map(Step::HandOver));
        } else {
            steps.push(Step::Remove(peer.raft_id));
        }
    }
    // A node that is down cannot receive the log: it is added once it is up.
    let up = wanted.iter().filter(|(_, node)| node.status.state != NodeState::Down);
    for (raft_id, node) in up.filter(|(id, _)| !votes(**id)) {
        let address = node.raft().map(|place| place.address.to_string());
        steps.extend(address.map(|address| Step::Add(Peer { raft_id: *raft_id, address })));
    }
    steps
}

async fn carry_out(manager: &Manager, step: Step) {
    let done = match &step {
        Step::Promoted(id, place) => {
            record(manager, Request::PromotedManager { id: *id, manager: place.clone() }).await
        }
        Step::Demoted(id) => record(manager, Request::DemotedManager { id: *id }).await,
        Step::Move(peer) | Step::Add(peer) => {
            manager.raft.add_member(peer.clone()).await.map_err(|e| e.to_string())
        }
        Step::HandOver(to) => {
            manager.raft.transfer_leadership(*to).await.map_err(|e| e.to_string())
        }
        Step::Remove(raft_id) => {
            manager.raft.remove_member(*raft_id).await.map_err(|e| e.to_string())
        }
    };
    match done {
        Ok(()) => tracing::info!(?step, "managers of the cluster"),
        // It is tried again, and most often the other node is not there yet.
        Err(reason) => tracing::debug!(?step, reason, "managers of the cluster"),
    }
}

async fn record(manager: &Manager, request: Request) -> Result<(), String> {
    manager.decide(request).await.map(drop).map_err(|rejection| rejection.message)
}

#[cfg(test)]
mod tests;
