//! Nodes: joining, describing themselves, leaving; their spec and their state.

use std::sync::Arc;

use super::size::{self, NODE_BYTES_MAX};
use super::{check_version, existing_node, role};
use crate::draft::Draft;
use crate::id::NodeId;
use crate::object::{Cluster, Node, NodeDescription, NodeState, NodeStatus};
use crate::rejection::{Code, Rejection};
use crate::request::{Answer, JoinNode};
use crate::spec::{CERTIFICATE_GRACE_MS, NodeSpec, Role};
use crate::state::State;
use crate::time::Revision;
use crate::transaction::{Key, Object};

/// An ended certificate is refused by then, whatever clocks say: a day for those that differ.
const GRACE_MS: u64 = CERTIFICATE_GRACE_MS + 24 * 60 * 60 * 1000;

/// Gives a node an id of its own. Nobody gets an identity that another key has: a node whose key is
/// known is the node that it was, whatever id was drawn for it, and its role stays.
pub(super) fn join(draft: &mut Draft<'_>, join: &JoinNode) -> Result<Answer, Rejection> {
    size::check_description(&join.description)?;
    check_schema(draft.state(), &join.description)?;
    let known = join.key.and_then(|key| draft.state().node_with_key(key)).cloned();
    if let Some(known) = known {
        return returned(draft, &known, join);
    }
    let was_removed = |cluster: &Arc<Cluster>| cluster.removed.contains_key(&join.id);
    if draft.state().nodes.contains_key(&join.id)
        || draft.state().cluster.as_ref().is_some_and(was_removed)
    {
        let message = format!("node id {} is another node's: let it be drawn again", join.id);
        return Err(Rejection::new(Code::Conflict, message));
    }
    check_routes(draft.state(), &join.description)?;
    if let Some(manager) = &join.manager {
        role::check_raft_id(draft.state(), join.id, manager)?;
    }
    let node = Node {
        id: join.id,
        meta: draft.new_meta(),
        spec: NodeSpec { role: join.role, availability: join.availability, ..NodeSpec::default() },
        description: join.description.clone(),
        status: NodeStatus {
            state: NodeState::Unknown,
            message: String::new(),
            address: join.description.gossip.ip().to_string(),
        },
        manager: join.manager.clone(),
        ingress: None,
        key: join.key,
        promoting: None,
    };
    draft.put(Object::Node(Arc::new(node)));
    Ok(Answer::Node { id: join.id })
}

/// A node that asks again with the key that it has, as when an answer was lost.
fn returned(draft: &mut Draft<'_>, known: &Node, join: &JoinNode) -> Result<Answer, Rejection> {
    let id = known.id;
    let refuse = |code, message| Err(Rejection::new(code, message));
    if known.has_left() {
        let message = format!("node {id} left the swarm: join with a new key");
        return refuse(Code::FailedPrecondition, message);
    }
    if known.role() != join.role {
        let (has, wants) = (known.role().name(), join.role.name());
        let message = format!(
            "node {id} is a {has} and joining changes no role: take the {has} token, or have a \
             manager make it a {wants}"
        );
        return refuse(Code::Conflict, message);
    }
    check_proof_key(known, &join.description)?;
    draft.edit_node(id, |node| node.description = join.description.clone());
    Ok(Answer::Node { id })
}

/// Refuses another key for a node's words in gossip: it follows from the node's own, which stays,
/// and what was signed with the old one would be forged to all who hear of it later.
fn check_proof_key(node: &Node, description: &NodeDescription) -> Result<(), Rejection> {
    let old = &node.description.proof_key;
    if old.is_none() || *old == description.proof_key {
        return Ok(());
    }
    let message = format!("node {} cannot change the key that signs its gossip", node.id);
    Err(Rejection::new(Code::Conflict, message))
}

/// Refuses a program that would not understand what it is told.
fn check_schema(state: &State, description: &NodeDescription) -> Result<(), Rejection> {
    let cluster = state.cluster.as_ref().map_or(0, |cluster| cluster.schema);
    if description.schema >= cluster {
        return Ok(());
    }
    Err(Rejection::new(
        Code::FailedPrecondition,
        format!(
            "node {} runs version {} of Skein, which reads schema {}, and the cluster has schema \
             {cluster}: install the version of the other nodes",
            description.hostname, description.engine_version, description.schema
        ),
    ))
}

/// Refuses a machine that has the addresses of the ingress network elsewhere: published ports would
/// not work by it, or what it has there would be out of its reach. Other networks are not on a
/// node's host, but in their fabrics.
fn check_routes(state: &State, description: &NodeDescription) -> Result<(), Rejection> {
    let Some(ingress) = state.ingress_network() else { return Ok(()) };
    let mut routes = description.routes.iter().filter(|route| route.prefix_len() > 0);
    let clash = routes.find_map(|route| Some((route, ingress.subnets.overlapping(route)?)));
    let Some((route, subnet)) = clash else { return Ok(()) };
    Err(Rejection::new(
        Code::Conflict,
        format!(
            "route {route} of node {} overlaps subnet {subnet} of network {}, by which published \
             ports reach every node: take the route away, or give that network another subnet \
             (docker network rm {}, then docker network create --ingress --subnet)",
            description.hostname, ingress.spec.name, ingress.spec.name
        ),
    ))
}

pub(super) fn describe(
    draft: &mut Draft<'_>,
    id: NodeId,
    description: &NodeDescription,
) -> Result<Answer, Rejection> {
    let node = existing_node(draft.state(), id)?;
    size::check_description(description)?;
    check_schema(draft.state(), description)?;
    check_proof_key(node, description)?;
    draft.edit_node(id, |node| {
        let address = description.gossip.ip();
        if node.description.gossip.ip() != address {
            node.status.address = address.to_string();
        }
        let place = node.manager.as_mut().or(node.promoting.as_mut());
        if let (Some(place), Some(address)) = (place, description.manager_address) {
            place.address = address;
        }
        node.description = description.clone();
    });
    Ok(Answer::Done)
}

/// Records intent, and what a change of the role begins.
pub(super) fn update(
    draft: &mut Draft<'_>,
    id: NodeId,
    version: Revision,
    spec: &NodeSpec,
) -> Result<Answer, Rejection> {
    let node = existing_node(draft.state(), id)?.clone();
    check_version(&format!("node {id}"), node.meta.version, version)?;
    size::check(format_args!("the spec of node {id}"), spec, NODE_BYTES_MAX)?;
    role::change(draft, &node, spec.role)?;
    draft.edit_node(id, |node| node.spec = spec.clone());
    Ok(Answer::Done)
}

/// A node that leaves keeps its object, as `Disconnected`, until it is removed.
pub(super) fn leave(draft: &mut Draft<'_>, id: NodeId) -> Result<Answer, Rejection> {
    let node = existing_node(draft.state(), id)?;
    let managers = draft.state().in_raft().filter(|other| other.manager.is_some()).count();
    if node.manager.is_some() && managers == 1 {
        return Err(Rejection::new(
            Code::Unavailable,
            "You are attempting to leave the swarm on a node that is participating as a manager. \
             Removing the last manager erases all current state of the swarm. Use `--force` to \
             ignore this message.",
        ));
    }
    draft.edit_node(id, |node| {
        node.manager = None;
        node.promoting = None;
        node.spec.role = Role::Worker;
        node.status.state = NodeState::Disconnected;
        "node left the swarm".clone_into(&mut node.status.message);
    });
    Ok(Answer::Done)
}

/// Forgets a node, and remembers that its certificate counts no more. A manager goes too, by force,
/// whether it is lost or somebody else has its key, as long as the others are a majority without
/// it: nobody could take it out of Raft otherwise.
pub(super) fn remove(draft: &mut Draft<'_>, id: NodeId, force: bool) -> Result<Answer, Rejection> {
    let node = existing_node(draft.state(), id)?;
    let refuse = |message: String| Err(Rejection::new(Code::FailedPrecondition, message));
    let up = match node.status.state {
        NodeState::Ready | NodeState::Unknown => true,
        NodeState::Down | NodeState::Disconnected => false,
    };
    if node.raft().is_some() && !force {
        return refuse(format!(
            "node {id} is a cluster manager and is a member of the raft cluster. It must be \
             demoted to worker before removal; if it is lost for good or not to be trusted, use \
             --force"
        ));
    }
    if node.raft().is_some() {
        let others = role::voters(draft.state(), |other| other.id != id);
        let voters = others.all + 1;
        if others.ready * 2 <= voters {
            let (ready, all) = (others.ready, others.all);
            return refuse(format!(
                "node {id} cannot be removed: {ready} of the other {all} managers are ready, which \
                 is no majority of {voters}: bring one back, or add one, first"
            ));
        }
    }
    if up && !force {
        return refuse(format!(
            "node {id} is not down and can't be removed: let it leave first, or use --force"
        ));
    }
    draft.remove(Key::Node(id));
    remember(draft, id);
    Ok(Answer::Done)
}

/// Writes down that a node was removed, and forgets those whose certificates have all ended.
pub(super) fn remember(draft: &mut Draft<'_>, id: NodeId) {
    let now = draft.now();
    let Some(cluster) = &draft.state().cluster else { return };
    let mut cluster = Cluster::clone(cluster);
    let kept = cluster.longest_certificate_ms() + GRACE_MS;
    cluster.removed.retain(|_, since| now.since_ms(*since) < kept);
    // Not before the key of gossip, whatever the clocks of two leaders say: it has to turn.
    cluster.removed.insert(id, now.max(cluster.key_made_at));
    draft.put(Object::Cluster(Arc::new(cluster)));
}

pub(super) fn set_state(
    draft: &mut Draft<'_>,
    id: NodeId,
    state: NodeState,
    message: &str,
    address: &str,
) -> Result<Answer, Rejection> {
    let node = existing_node(draft.state(), id)?;
    if node.status.state == NodeState::Disconnected {
        let message = format!("node {id} left the swarm: it must join again");
        return Err(Rejection::new(Code::FailedPrecondition, message));
    }
    draft.edit_node(id, |node| {
        node.status.state = state;
        message.clone_into(&mut node.status.message);
        if !address.is_empty() {
            address.clone_into(&mut node.status.address);
        }
    });
    Ok(Answer::Done)
}
