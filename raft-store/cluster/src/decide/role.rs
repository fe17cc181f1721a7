//! Roles. What a node is to be stands in its spec, what it is follows: it is a manager once it
//! votes in Raft, and a worker once it is out of Raft. In between a place there is kept for it,
//! whose id is drawn here and given to nobody again.

use super::existing_node;
use crate::draft::Draft;
use crate::id::NodeId;
use crate::object::{ManagerInfo, Node, NodeState};
use crate::rejection::{Code, Rejection};
use crate::request::Answer;
use crate::spec::Role;
use crate::state::State;

/// What it entails that a node is to have a role; nothing if it is to have it already.
pub(super) fn change(draft: &mut Draft<'_>, node: &Node, role: Role) -> Result<(), Rejection> {
    match (node.spec.role, role) {
        (Role::Worker, Role::Worker) | (Role::Manager, Role::Manager) => Ok(()),
        (Role::Worker, Role::Manager) => promote(draft, node),
        (Role::Manager, Role::Worker) => check_demotion(draft.state(), node),
    }
}

fn promote(draft: &mut Draft<'_>, node: &Node) -> Result<(), Rejection> {
    let id = node.id;
    let refuse = |message: String| Err(Rejection::new(Code::FailedPrecondition, message));
    match node.status.state {
        NodeState::Ready | NodeState::Unknown => {}
        NodeState::Down => {
            return refuse(format!(
                "node {id} is down and cannot be promoted: the managers have to reach it; start \
                 it first"
            ));
        }
        NodeState::Disconnected => {
            return refuse(format!(
                "node {id} left the swarm and cannot be promoted: have it join again"
            ));
        }
    }
    // Its demotion has only begun: it still has its log, and goes on with it.
    if node.raft().is_some() {
        return Ok(());
    }
    let Some(address) = node.description.manager_address else {
        return refuse(format!(
            "node {id} cannot be promoted: its version does not tell where it would listen; \
             update it first"
        ));
    };
    let raft_id = free_raft_id(draft);
    draft.edit_node(id, |node| node.promoting = Some(ManagerInfo { raft_id, address }));
    Ok(())
}

/// At random: one that was given up does not come again.
pub(super) fn free_raft_id(draft: &mut Draft<'_>) -> u64 {
    loop {
        let drawn = draft.draw() as u64;
        if draft.state().index.raft_ids.of(drawn).next().is_none() {
            return drawn;
        }
    }
}

/// A demotion goes through joint consensus: a majority of those that vote now, the node among them,
/// and one of those that stay have to agree.
fn check_demotion(state: &State, node: &Node) -> Result<(), Rejection> {
    let stay = voters(state, |other| other.id != node.id && other.spec.role == Role::Manager);
    let now = voters(state, |_| true);
    let refuse = |message: String| Err(Rejection::new(Code::FailedPrecondition, message));
    if stay.all == 0 {
        return refuse("attempting to demote the last manager of the swarm".to_owned());
    }
    let (short, which) = if !now.have_quorum() {
        (now, "managers are")
    } else if !stay.have_quorum() {
        (stay, "managers that would stay are")
    } else {
        return Ok(());
    };
    let Voters { all, ready } = short;
    refuse(format!(
        "can't remove member from the raft: this would result in a loss of quorum: {ready} of the \
         {all} {which} ready; bring one back first"
    ))
}

/// How many managers there are, and how many of them hold their lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Voters {
    pub(super) all: usize,
    pub(super) ready: usize,
}

impl Voters {
    fn have_quorum(self) -> bool {
        self.ready * 2 > self.all
    }
}

pub(super) fn voters(state: &State, counts: impl Fn(&Node) -> bool) -> Voters {
    let managers = state.in_raft().filter(|node| node.manager.is_some() && counts(node));
    managers.fold(Voters { all: 0, ready: 0 }, |seen, node| Voters {
        all: seen.all + 1,
        ready: seen.ready + usize::from(node.status.state == NodeState::Ready),
    })
}

/// Gives a manager whose log is gone another place in Raft: under the old one it would vote against
/// what it acknowledged. Asked twice, it changes nothing.
pub(super) fn reseat(draft: &mut Draft<'_>, id: NodeId, lost: u64) -> Result<Answer, Rejection> {
    let node = existing_node(draft.state(), id)?.clone();
    let has_lost = node.raft().filter(|place| place.raft_id == lost);
    let Some(place) = has_lost.filter(|_| node.spec.role == Role::Manager) else {
        return Ok(Answer::Done);
    };
    if node.manager.is_some() {
        let others = voters(draft.state(), |other| other.id != id);
        if others.ready * 2 <= others.all + 1 {
            let Voters { all, ready } = others;
            let message = format!(
                "node {id} cannot get the log again: {ready} of the other {all} managers are \
                 ready, which is no majority of {}: bring one back first, or restore a backup",
                all + 1
            );
            return Err(Rejection::new(Code::FailedPrecondition, message));
        }
    }
    let place = ManagerInfo { raft_id: free_raft_id(draft), ..place.clone() };
    draft.edit_node(id, |node| {
        node.manager = None;
        node.promoting = Some(place);
    });
    Ok(Answer::Done)
}

/// A node that is to be a manager votes now.
pub(super) fn promoted(
    draft: &mut Draft<'_>,
    id: NodeId,
    manager: &ManagerInfo,
) -> Result<Answer, Rejection> {
    let node = existing_node(draft.state(), id)?;
    let place = node.raft().filter(|place| place.raft_id == manager.raft_id).cloned();
    let place = place.filter(|_| node.spec.role == Role::Manager).ok_or_else(|| {
        let message = format!("node {id} is not to be a manager as Raft id {}", manager.raft_id);
        Rejection::new(Code::Conflict, message)
    })?;
    draft.edit_node(id, |node| {
        node.manager = Some(place);
        node.promoting = None;
    });
    Ok(Answer::Done)
}

/// A node that is to be a worker is out of Raft.
pub(super) fn demoted(draft: &mut Draft<'_>, id: NodeId) -> Result<Answer, Rejection> {
    let node = existing_node(draft.state(), id)?;
    if node.spec.role == Role::Manager {
        let message = format!("node {id} is to be a manager");
        return Err(Rejection::new(Code::Conflict, message));
    }
    draft.edit_node(id, |node| {
        node.manager = None;
        node.promoting = None;
    });
    Ok(Answer::Done)
}

pub(super) fn check_raft_id(
    state: &State,
    id: NodeId,
    manager: &ManagerInfo,
) -> Result<(), Rejection> {
    let mut others = state.index.raft_ids.of(manager.raft_id).filter(|other| *other != id);
    match others.next().and_then(|other| state.nodes.get(&other)) {
        None => Ok(()),
        Some(other) => Err(Rejection::new(
            Code::Conflict,
            format!(
                "Raft id {} belongs to node {}: start with an empty data directory",
                manager.raft_id,
                other.name()
            ),
        )),
    }
}
