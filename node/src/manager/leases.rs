//! Leases: on gaining leadership every node gets a full one; a node whose lease runs out is
//! recorded as down, and its tasks move.

use std::time::Duration;

use cluster::object::NodeState;
use cluster::request::Request;

use super::Manager;
use crate::clock;
use crate::dispatcher::Dispatcher;

/// The longest pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Runs until the manager stops.
pub(super) async fn run(manager: Manager) {
    let mut status = manager.raft.watch();
    loop {
        if status.wait_for(|s| s.leader_ready).await.is_err() {
            return;
        }
        let taken = Dispatcher::take_over(&manager.newest(), clock::monotonic());
        manager.with_dispatcher(|dispatcher| *dispatcher = taken);
        tracing::info!(node = %manager.node, "this manager leads");
        while status.borrow_and_update().leader_ready {
            look(&manager).await;
            let _ = tokio::time::timeout(LOOK_INTERVAL, status.changed()).await;
        }
        tracing::info!(node = %manager.node, "this manager no longer leads");
    }
}

async fn look(manager: &Manager) {
    let (state, now) = (manager.newest(), clock::monotonic());
    let expired = manager.with_dispatcher(|dispatcher| {
        dispatcher.follow(&state, now);
        dispatcher.expired(&state, now)
    });
    for id in expired {
        tracing::warn!(node = %id, "lease ran out");
        let message = "heartbeat failure: the node's lease ran out".to_owned();
        let request =
            Request::SetNodeState { id, state: NodeState::Down, message, address: String::new() };
        if let Err(rejection) = manager.decide(request).await {
            tracing::warn!(node = %id, %rejection, "record a node as down");
        }
    }
}
