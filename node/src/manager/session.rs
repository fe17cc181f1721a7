//! Sessions: a worker waits for its assignment (`watch`) and tells what it did (`report`).

use std::net::IpAddr;
use std::time::Duration;

use cluster::id::NodeId;
use cluster::object::NodeDescription;
use cluster::rejection::Rejection;
use cluster::session::{ReportAnswer, ReportCall, WatchAnswer, WatchCall};
use leader::Leader;
use raft_store::Peer;

use super::Manager;
use crate::clock;
use crate::telemetry::meters::meters;

/// A watch is answered after this long even if nothing changed, so that a dead connection shows.
const WATCH_LIMIT: Duration = Duration::from_secs(10);

/// Why a session call is not answered.
pub(super) enum Refusal {
    /// Another manager leads, or none.
    NotLeader,
    /// The node is not to be heard or told.
    Node(leader::Refusal),
    /// The state refused what the call implies.
    Rejected(Rejection),
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
        acks.borrow_and_update();
        let now = (clock::monotonic(), clock::timestamp());
        let watched = manager.with_sessions(|leader| leader.watch(&newest, node, &call, now));
        let watched = watched.map_err(Refusal::Node)?;
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
    let (state, now) = (manager.newest(), clock::monotonic());
    let reported = manager.with_sessions(|leader| leader.report(&state, node, from, call, now));
    let reported = reported.map_err(Refusal::Node)?;
    reported.realized.iter().for_each(|took| meters().realized(*took));
    if reported.rings {
        manager.ring_acks();
    }
    for request in reported.requests {
        manager.decide(request).await.map_err(Refusal::Rejected)?;
    }
    Ok(Leader::report_answer(&manager.newest()))
}
