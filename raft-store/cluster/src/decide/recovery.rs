//! One manager goes on alone, from its own disk or from a backup, because the others are lost.

use crate::draft::Draft;
use crate::id::NodeId;
use crate::object::Node;
use crate::rejection::{Code, Rejection};
use crate::request::{Answer, JoinNode};
use crate::spec::Role;
use crate::transaction::Key;

use super::{node, role};

/// Makes a node the only manager: the others are removed, as they may hold what this one never
/// had, and must not come back with it. Workers stay.
pub(super) fn take_over(draft: &mut Draft<'_>, join: &JoinNode) -> Result<Answer, Rejection> {
    let Some(manager) = join.manager.clone().filter(|_| join.role == Role::Manager) else {
        return Err(Rejection::invalid("only a manager goes on alone"));
    };
    let is_other = |node: &&std::sync::Arc<Node>| node.manager.is_some() && node.id != join.id;
    let others: Vec<NodeId> = draft.state().nodes.values().filter(is_other).map(|n| n.id).collect();
    for id in others {
        draft.remove(Key::Node(id));
        node::remember(draft, id);
    }
    renew_places(draft, join.id);
    if !draft.state().nodes.contains_key(&join.id) {
        return node::join(draft, join);
    }
    let is_new = |node: &Node| node.manager.as_ref().is_none_or(|m| m.raft_id != manager.raft_id);
    if !draft.state().nodes.get(&join.id).is_some_and(|node| is_new(node)) {
        let message = format!("Raft id {} was used before: let it be drawn again", manager.raft_id);
        return Err(Rejection::new(Code::Conflict, message));
    }
    draft.edit_node(join.id, |node| {
        node.manager = Some(manager);
        node.promoting = None;
        node.spec.role = Role::Manager;
        node.description = join.description.clone();
    });
    Ok(Answer::Node { id: join.id })
}

/// A node on its way to be a manager may have begun with the log of the others: under that Raft id
/// it must not go on with this one.
fn renew_places(draft: &mut Draft<'_>, own: NodeId) {
    let nodes = draft.state().nodes.values().filter(|node| node.id != own);
    let promoting: Vec<NodeId> = nodes.filter(|n| n.promoting.is_some()).map(|n| n.id).collect();
    for id in promoting {
        let raft_id = role::free_raft_id(draft);
        draft.edit_node(id, |node| {
            if let Some(place) = &mut node.promoting {
                place.raft_id = raft_id;
            }
        });
    }
}
