//! What the leader does about its members. Method: states made by the real `decide` and `apply`,
//! and what Raft says of its members.

use cluster::object::NodeState;
use cluster::spec::NodeSpec;

use super::*;
use crate::fixture::{carry_out, cluster as two_nodes, joining};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
/// A's in Raft.
const OWN: u64 = 1;

fn peer(raft_id: u64, number: u8) -> Peer {
    Peer { raft_id, address: format!("192.0.2.{number}:2377") }
}

/// As the manager says that leads.
fn status(own: u64, voters: &[&Peer], learners: &[&Peer]) -> Status {
    let listed = |peers: &[&Peer]| peers.iter().map(|peer| (*peer).clone()).collect();
    Status {
        raft_id: own,
        term: 1,
        leader: None,
        is_leader: true,
        leader_ready: true,
        last_applied: 1,
        last_log: 1,
        voters: listed(voters),
        learners: listed(learners),
        has_quorum: true,
        stopped: None,
    }
}

fn role(state: &mut State, id: NodeId, role: Role) {
    let node = &state.nodes[&id];
    let (version, spec) = (node.meta.version, NodeSpec { role, ..node.spec.clone() });
    carry_out(state, &Request::UpdateNode { id, version, spec: Box::new(spec) });
}

fn set_state(state: &mut State, id: NodeId, to: NodeState) {
    let (message, address) = (String::new(), String::new());
    carry_out(state, &Request::SetNodeState { id, state: to, message, address });
}

fn place(state: &State, id: NodeId) -> ManagerInfo {
    state.nodes[&id].raft().cloned().expect("a place in Raft")
}

#[test]
fn a_worker_is_a_manager_once_it_votes() {
    let (mut state, a) = (two_nodes(), peer(OWN, 1));
    assert_eq!(steps(&state, &status(OWN, &[&a], &[])), []);
    role(&mut state, B, Role::Manager);
    let b = peer(place(&state, B).raft_id, 2);
    assert_eq!(steps(&state, &status(OWN, &[&a], &[])), [Step::Add(b.clone())]);
    assert_eq!(steps(&state, &status(OWN, &[&a], &[&b])), [Step::Add(b.clone())]);
    let voted = [Step::Promoted(B, place(&state, B))];
    assert_eq!(steps(&state, &status(OWN, &[&a, &b], &[])), voted);
    // Nobody waits for one that has gone down meanwhile.
    set_state(&mut state, B, NodeState::Down);
    assert_eq!(steps(&state, &status(OWN, &[&a], &[])), []);
    set_state(&mut state, B, NodeState::Ready);
    // A promotion that is called off leaves nothing in Raft.
    role(&mut state, B, Role::Worker);
    assert_eq!(steps(&state, &status(OWN, &[&a], &[&b])), [Step::Remove(b.raft_id)]);
    assert_eq!(steps(&state, &status(OWN, &[&a], &[])), [Step::Demoted(B)]);
}

#[test]
fn a_leader_that_is_to_be_a_worker_hands_over_first() {
    let (mut state, a) = (two_nodes(), peer(OWN, 1));
    role(&mut state, B, Role::Manager);
    let b = peer(place(&state, B).raft_id, 2);
    let manager = place(&state, B);
    carry_out(&mut state, &Request::PromotedManager { id: B, manager });
    role(&mut state, A, Role::Worker);
    let both = [&a, &b];
    assert_eq!(steps(&state, &status(OWN, &both, &[])), [Step::HandOver(b.raft_id)]);
    assert_eq!(steps(&state, &status(b.raft_id, &both, &[])), [Step::Remove(OWN)]);
    assert_eq!(steps(&state, &status(b.raft_id, &[&b], &[])), [Step::Demoted(A)]);
    // Not to one that is down.
    set_state(&mut state, B, NodeState::Down);
    assert_eq!(steps(&state, &status(OWN, &both, &[])), []);
}

#[test]
fn members_follow_removals_and_addresses() {
    let (mut state, a) = (two_nodes(), peer(OWN, 1));
    let (stray, old) = (peer(9, 9), peer(OWN, 7));
    assert_eq!(steps(&state, &status(OWN, &[&a, &stray], &[])), [Step::Remove(9)]);
    assert_eq!(steps(&state, &status(OWN, &[&old], &[])), [Step::Move(a.clone())]);
    // One that joins is added, one that leaves is taken out.
    let third = NodeId(3);
    let manager = ManagerInfo { raft_id: 3, address: ([192, 0, 2, 3], 2377).into() };
    let joins =
        cluster::request::JoinNode { manager: Some(manager), ..joining(third, Role::Manager) };
    carry_out(&mut state, &Request::JoinNode(Box::new(joins)));
    let c = peer(3, 3);
    assert_eq!(steps(&state, &status(OWN, &[&a], &[])), [Step::Add(c.clone())]);
    carry_out(&mut state, &Request::LeaveNode { id: third });
    assert_eq!(steps(&state, &status(OWN, &[&a, &c], &[])), [Step::Remove(3)]);
}
