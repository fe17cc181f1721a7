//! Raft membership follows the state: a manager that joined is added once it is caught up, one
//! that is no longer a manager is taken out. Level-triggered: the two sets are compared anew.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::object::NodeState;
use raft_store::Peer;

use super::Manager;

/// Looked at this often at least: a joiner's listener may not have been up the last time.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Runs until the manager stops.
pub(super) async fn run(manager: Manager) {
    let mut state = manager.state.clone();
    let mut status = manager.raft.watch();
    loop {
        if status.wait_for(|s| s.leader_ready).await.is_err() {
            return;
        }
        look(&manager).await;
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

async fn look(manager: &Manager) {
    let state = manager.newest();
    if state.cluster.is_none() {
        return;
    }
    let wanted: BTreeMap<u64, String> = state
        .nodes
        .values()
        .filter(|node| node.status.state != NodeState::Disconnected)
        .filter_map(|node| node.manager.as_ref())
        .map(|info| (info.raft_id, info.address.to_string()))
        .collect();
    let status = manager.raft.status();
    let voters: BTreeMap<u64, String> =
        status.voters.iter().map(|peer| (peer.raft_id, peer.address.clone())).collect();
    for (raft_id, address) in &wanted {
        if voters.get(raft_id) != Some(address) {
            let peer = Peer { raft_id: *raft_id, address: address.clone() };
            match manager.raft.add_member(peer).await {
                Ok(()) => tracing::info!(raft_id, address, "manager added to Raft"),
                Err(error) => tracing::debug!(raft_id, address, %error, "manager not added yet"),
            }
        }
    }
    let others = status.voters.iter().chain(&status.learners);
    for peer in others.filter(|peer| !wanted.contains_key(&peer.raft_id)) {
        // The last one stays: an empty group could never take a member again.
        if wanted.is_empty() {
            return;
        }
        if peer.raft_id == status.raft_id {
            // A leader that is to go hands over first; its successor takes it out.
            if let Some(next) = wanted.keys().find(|id| voters.contains_key(id)) {
                let _ = manager.raft.transfer_leadership(*next).await;
            }
        } else if let Err(error) = manager.raft.remove_member(peer.raft_id).await {
            tracing::warn!(raft_id = peer.raft_id, %error, "take a manager out of Raft");
        }
    }
}
