//! When the leader's core looks at the leases: from gaining leadership to its loss. What follows
//! from silence it decides itself.

use std::time::Duration;

use super::Manager;
use crate::clock;

/// The longest pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Runs until the manager stops.
pub(super) async fn run(manager: Manager) {
    let mut status = manager.raft.watch();
    loop {
        if status.wait_for(|s| s.leader_ready).await.is_err() {
            return;
        }
        let (state, now) = (manager.newest(), clock::monotonic());
        manager.with_sessions(|leader| leader.take_over(&state, now));
        tracing::info!(node = %manager.node, "this manager leads");
        loop {
            let (leads, has_quorum) = {
                let status = status.borrow_and_update();
                (status.leader_ready, status.has_quorum)
            };
            if !leads {
                break;
            }
            look(&manager, has_quorum).await;
            let _ = tokio::time::timeout(LOOK_INTERVAL, status.changed()).await;
        }
        manager.with_sessions(|leader| leader.resign());
        tracing::info!(node = %manager.node, "this manager no longer leads");
    }
}

async fn look(manager: &Manager, has_quorum: bool) {
    let (state, now) = (manager.newest(), clock::monotonic());
    let look = manager.with_sessions(|leader| leader.look(&state, has_quorum, now));
    if look.leases_begin_again {
        tracing::warn!("the leader could not act for a while, every lease begins again");
    }
    for request in look.requests {
        tracing::warn!(?request, "lease ran out");
        if let Err(rejection) = manager.decide(request).await {
            tracing::warn!(%rejection, "record a node as down");
        }
    }
}

#[cfg(test)]
mod tests {
    use leader::RESTART_LEASE;

    #[test]
    fn the_leader_waits_for_a_restart_as_long_as_peers_do() {
        let address = "192.0.2.1:7946".parse().unwrap();
        let secret = gossip::ProofSecret::from_seed(&[1; 32]).unwrap();
        let (node, cluster) = (cluster::id::NodeId(1), cluster::id::ClusterId(1));
        let peers = gossip::Config::lan(node, cluster, address, 1, 1, secret);
        assert_eq!(RESTART_LEASE, peers.restart_grace);
    }
}
