//! Sessions: a worker waits for its assignment (`watch`) and tells what it did (`report`).

use std::net::IpAddr;
use std::time::Duration;

use cluster::id::NodeId;
use cluster::object::{NodeDescription, NodeState};
use cluster::rejection::Rejection;
use cluster::request::Request;
use cluster::session::{ReportAnswer, ReportCall, WatchAnswer, WatchCall};
use cluster::state::State;
use raft_store::Peer;

use super::Manager;
use crate::clock;
use crate::dispatcher::LEASE;
use crate::telemetry::meters::meters;

/// A watch is answered after this long even if nothing changed, so that a dead connection shows.
const WATCH_LIMIT: Duration = Duration::from_secs(10);

/// Why a session call is not answered.
pub(super) enum Refusal {
    /// Another manager leads, or none.
    NotLeader,
    /// The node is not in the cluster (any more).
    Unknown(NodeId),
    /// Its version reads only so much.
    TooOld {
        /// The cluster's schema.
        cluster: u32,
        /// The newest one that the node reads.
        node: u32,
    },
    /// The state refused what the call implies.
    Rejected(Rejection),
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

/// Answers once the assignment or the releases differ from what the node has.
pub(super) async fn watch(
    manager: &Manager,
    node: NodeId,
    call: WatchCall,
) -> Result<WatchAnswer, Refusal> {
    let mut state = manager.state.clone();
    let mut acks = manager.acks.subscribe();
    let mut status = manager.raft.watch();
    let deadline = tokio::time::sleep(WATCH_LIMIT);
    tokio::pin!(deadline);
    loop {
        if !status.borrow_and_update().leader_ready {
            return Err(Refusal::NotLeader);
        }
        let newest = state.borrow_and_update().clone();
        check_schema(&newest, call.schema)?;
        acks.borrow_and_update();
        let watched = manager.with_dispatcher(|dispatcher| {
            dispatcher.follow(&newest, clock::monotonic());
            dispatcher.watch(node, &call, clock::timestamp())
        });
        let watched = watched.ok_or(Refusal::Unknown(node))?;
        if watched.rings {
            manager.ring_acks();
        }
        if watched.is_news {
            return Ok(watched.answer);
        }
        tokio::select! {
            changed = state.changed() => { let _ = changed; }
            changed = acks.changed(), if watched.waits_for_others => { let _ = changed; }
            changed = status.changed() => { let _ = changed; }
            () = &mut deadline => {
                return Ok(WatchAnswer { now: clock::timestamp(), ..watched.answer });
            }
        }
    }
}

/// A manager that has moved is reached where it says, before the leader has recorded it: without
/// that manager there may be none.
fn hear(manager: &Manager, node: NodeId, description: &NodeDescription) {
    let state = manager.newest();
    let place = state.nodes.get(&node).and_then(|node| node.raft());
    if let (Some(place), Some(address)) = (place, description.manager_address)
        && place.address != address
    {
        manager.raft.hear(&Peer { raft_id: place.raft_id, address: address.to_string() });
    }
}

/// Renews the lease and records what the node tells.
pub(super) async fn report(
    manager: &Manager,
    node: NodeId,
    from: Option<IpAddr>,
    call: ReportCall,
) -> Result<ReportAnswer, Refusal> {
    if let Some(description) = &call.description {
        hear(manager, node, description);
    }
    if !manager.raft.status().leader_ready {
        return Err(Refusal::NotLeader);
    }
    let state = manager.newest();
    let Some(known) = state.nodes.get(&node) else { return Err(Refusal::Unknown(node)) };
    if let Some(description) = &call.description {
        check_schema(&state, description.schema)?;
    }
    let heard = manager.with_dispatcher(|dispatcher| {
        let now = clock::monotonic();
        let heard = dispatcher.hear(node, call.applied, now);
        if call.restarts {
            dispatcher.expect_restart(node, now);
        }
        heard
    });
    heard.realized.into_iter().for_each(|took| meters().realized(took));
    if heard.rings {
        manager.ring_acks();
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
        requests.push(Request::ReportTasks { node, statuses: call.statuses.into_iter().collect() });
    }
    for request in requests {
        manager.decide(request).await.map_err(Refusal::Rejected)?;
    }
    let lease_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
    Ok(ReportAnswer { lease_ms, revision: manager.newest().revision })
}
