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

/// A leader that did not look for this long was not running.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Runs until the manager stops.
pub(super) async fn run(manager: Manager) {
    let mut status = manager.raft.watch();
    loop {
        if status.wait_for(|s| s.leader_ready).await.is_err() {
            return;
        }
        let (state, now) = (manager.newest(), clock::monotonic());
        manager.with_dispatcher(|dispatcher| dispatcher.take_over(&state, now));
        tracing::info!(node = %manager.node, "this manager leads");
        let mut looked = clock::monotonic();
        while status.borrow_and_update().leader_ready {
            let now = clock::monotonic();
            if now.saturating_sub(looked) > PAUSE_MAX {
                // Who did not run could not hear: nobody's silence counts for that time.
                tracing::warn!("the leader was paused, every lease begins anew");
                let state = manager.newest();
                manager.with_dispatcher(|dispatcher| dispatcher.take_over(&state, now));
            }
            looked = now;
            look(&manager).await;
            let _ = tokio::time::timeout(LOOK_INTERVAL, status.changed()).await;
        }
        // Another leader hears of the nodes from now on.
        manager.with_dispatcher(|dispatcher| *dispatcher = Dispatcher::default());
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
