//! Skein's own resources: why does A reach B, what would run now, who is where. Each is answered
//! by the node that it is about ([`own`]); any node passes the question on.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{ApiError, NativeAnswer, NativeRequest, NativeTopic};
use cluster::assignment::Assignment;
use cluster::id::NodeId;
use serde_json::{Value, json};

use self::own::{NativeCall, NodeServices, Topic, answer, find_task, parameter};
use crate::manager::Manager;
use crate::manager::why::WhyCall;
use crate::member::Member;
use crate::transport::Lane;
use crate::wire;

pub mod own;

/// How long another node may take to answer.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Answers a request to this node's API.
pub async fn serve(member: &Member, request: &NativeRequest) -> Result<NativeAnswer, ApiError> {
    let topic = match &request.topic {
        NativeTopic::Explain => Topic::Explain,
        NativeTopic::Plan => Topic::Plan,
        NativeTopic::Gossip => Topic::Gossip,
        NativeTopic::Dataplane => Topic::Dataplane,
        NativeTopic::Topology => return topology(member).map(NativeAnswer::Json),
        NativeTopic::Why => return why(member, request).await.map(NativeAnswer::Json),
        NativeTopic::Receipts => return receipts(member).map(NativeAnswer::Json),
        NativeTopic::Debug(what) => return debug(member, what),
    };
    let call = NativeCall { topic, query: request.query.clone() };
    let assignment = assignment_of(member)?;
    let target = target(&assignment, &call)?;
    if target != member.identity.node && member.manager().is_none() {
        return Err(ApiError::new(
            403,
            format!("node {target} is another one, and this is a worker: ask on a manager"),
        ));
    }
    let value = if target == member.identity.node {
        let services = services_of(member);
        answer(&services, &call).await.map_err(ApiError::bad_request)?
    } else {
        ask(member, &assignment, target, &call).await?
    };
    Ok(NativeAnswer::Json(value))
}

fn services_of(member: &Member) -> NodeServices {
    NodeServices { gossip: member.gossip.clone(), worker: member.worker.clone() }
}

fn assignment_of(member: &Member) -> Result<std::sync::Arc<Assignment>, ApiError> {
    let assignment = member.worker.assignment.borrow().clone();
    assignment.ok_or_else(|| ApiError::unavailable("this node has no assignment yet: try again"))
}

/// The node that a question is about: the one named, the one of the asking task, or this one.
fn target(assignment: &Assignment, call: &NativeCall) -> Result<NodeId, ApiError> {
    if let Some(name) = call.query.get("node") {
        let mut nodes = assignment.nodes.iter();
        let found = nodes.find(|(id, node)| node.name == *name || id.to_string() == *name);
        return found
            .map(|(id, _)| *id)
            .ok_or_else(|| ApiError::not_found(format!("node {name} not found")));
    }
    if call.topic == Topic::Explain {
        let from = parameter(call, "from").map_err(ApiError::bad_request)?;
        if let Ok((_, task)) = find_task(assignment, from) {
            return Ok(task.node);
        }
    }
    Ok(assignment.node)
}

async fn ask(
    member: &Member,
    assignment: &Assignment,
    node: NodeId,
    call: &NativeCall,
) -> Result<Value, ApiError> {
    let address = assignment.nodes.get(&node).map(|peer| peer.gossip);
    let address = address.ok_or_else(|| ApiError::not_found(format!("node {node} not found")))?;
    let body = wire::encode(call).map_err(|e| ApiError::internal(e.to_string()))?;
    let called = member.net.call(address, Lane::Control, "/node/native", body, CALL_LIMIT).await;
    let bytes = called.map_err(|e| ApiError::unavailable(e.to_string()))?;
    wire::decode(&bytes).map_err(|e| ApiError::internal(e.to_string()))
}

fn topology(member: &Member) -> Result<Value, ApiError> {
    let assignment = assignment_of(member)?;
    let view = member.gossip.view();
    let view = view.borrow();
    let nodes: Vec<Value> = assignment
        .nodes
        .iter()
        .map(|(id, node)| {
            let liveness = view.liveness.get(id).map(|l| format!("{l:?}").to_lowercase());
            let tasks = assignment.tasks.values().filter(|task| task.node == *id);
            json!({
                "id": id, "name": node.name, "vtep": node.vtep, "liveness": liveness,
                "up": node.up, "manager": node.manager,
                "tasks": tasks.map(|task| &task.name).collect::<Vec<_>>(),
            })
        })
        .collect();
    let end = *member.certificate_end.borrow();
    let differing: Vec<Value> = member
        .manager()
        .iter()
        .flat_map(Manager::differing)
        .map(|(id, revision)| {
            json!({
                "id": id,
                "name": assignment.nodes.get(&id).map(|node| &node.name),
                "revision": revision,
            })
        })
        .collect();
    Ok(json!({
        "revision": assignment.revision,
        "differing": differing,
        "nodes": nodes,
        "networks": assignment.networks,
        "schema": assignment.schema,
        "reads_schema": cluster::object::newest_schema(),
        "without_room": *member.without_room.borrow(),
        "too_old": member.worker.too_old(),
        "certificate_seconds_left": end.saturating_sub(crate::pki::now()),
    }))
}

/// Who votes in Raft, by its own account.
fn raft(status: &raft_store::Status) -> Value {
    let peers = |peers: &[raft_store::Peer]| {
        let peer = |peer: &raft_store::Peer| json!({"id": peer.raft_id, "address": peer.address});
        peers.iter().map(peer).collect::<Vec<_>>()
    };
    json!({
        "id": status.raft_id,
        "term": status.term,
        "leader": status.leader.as_ref().map(|leader| leader.raft_id),
        "voters": peers(&status.voters),
        "learners": peers(&status.learners),
    })
}

async fn why(member: &Member, request: &NativeRequest) -> Result<Value, ApiError> {
    let manager = member.manager().ok_or_else(ApiError::not_manager)?;
    let service = request.query.get("service").cloned().ok_or_else(|| {
        ApiError::bad_request("parameter service is missing: give ?service=NAME, or a task's id")
    })?;
    Ok(manager.why(&WhyCall { service }).await?)
}

fn receipts(member: &Member) -> Result<Value, ApiError> {
    let manager = member.manager().ok_or_else(ApiError::not_manager)?;
    let state = manager.newest();
    let nodes: BTreeMap<String, Value> = manager.with_sessions(|leader| {
        let applied = |id: &NodeId| leader.applied(*id).map(|revision| revision.0);
        state.nodes.keys().map(|id| (id.to_string(), json!(applied(id)))).collect()
    });
    Ok(json!({
        "leader": manager.raft.status().is_leader,
        "revision": state.revision,
        "applied": nodes,
    }))
}

fn debug(member: &Member, what: &str) -> Result<NativeAnswer, ApiError> {
    match what {
        "assignment" => {
            let assignment = assignment_of(member)?;
            Ok(NativeAnswer::Text(format!("{assignment:#?}\n")))
        }
        "desired" => {
            Ok(NativeAnswer::Text(format!("{:#?}\n", member.worker.done.borrow().desired)))
        }
        "raft" => {
            let manager = member.manager().ok_or_else(ApiError::not_manager)?;
            Ok(NativeAnswer::Json(raft(&manager.raft.status())))
        }
        "state" => {
            let manager = member.manager().ok_or_else(ApiError::not_manager)?;
            let mut state = manager.newest().as_ref().clone();
            // Keys and tokens are for nobody's eyes.
            state.cluster = None;
            Ok(NativeAnswer::Text(format!("{state:#?}\n")))
        }
        other => Err(ApiError::not_found(format!(
            "nothing is named debug/{other}: there are assignment, desired, raft and state"
        ))),
    }
}
