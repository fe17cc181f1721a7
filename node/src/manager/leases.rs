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

/// A leader that could not look for this long was not running, or had no majority of managers.
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
        loop {
            let (leads, has_quorum) = {
                let status = status.borrow_and_update();
                (status.leader_ready, status.has_quorum)
            };
            if !leads {
                break;
            }
            // Without a majority nothing can be recorded, nor do tasks move.
            if has_quorum {
                let now = clock::monotonic();
                if now.saturating_sub(looked) > PAUSE_MAX {
                    // Who did not run could not hear, and managers that were cut off could not
                    // speak: nobody's silence counts for that time.
                    tracing::warn!(
                        "the leader could not act for a while, every lease begins again"
                    );
                    let state = manager.newest();
                    manager.with_dispatcher(|dispatcher| dispatcher.take_over(&state, now));
                }
                looked = now;
                look(&manager).await;
            }
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
