//! Says in the log who leads, each time that it changes. What Raft's library has to say of silent
//! peers would come ten times a second for each of them.

use std::time::Duration;

use super::Manager;

/// A manager that has just been started is given this long to hear of the leader before it says
/// that it knows none.
const HEAR_MAX: Duration = Duration::from_secs(5);

/// Runs until the manager stops.
pub(super) async fn run(manager: Manager) {
    let mut status = manager.raft.watch();
    let heard = status.wait_for(|status| status.leader.is_some());
    let _ = tokio::time::timeout(HEAR_MAX, heard).await;
    let mut told = None;
    loop {
        let leader = status.borrow_and_update().leader.as_ref().map(|peer| peer.address.clone());
        if told.as_ref() != Some(&leader) {
            match &leader {
                Some(address) => tracing::info!(%address, "the leader is known"),
                None => tracing::warn!("no leader is known: most managers have to be reachable"),
            }
            told = Some(leader);
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
