//! Adding, removing and moving managers.

use super::harness::{Cluster, peer, put, until};
use crate::{MemberError, Peer, RaftConfig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go() {
    let mut cluster = Cluster::of(3, RaftConfig::lan()).await;
    let leader = cluster.leader().await;
    put(&leader, "one").await;
    assert_eq!(leader.status().voters, [peer(1), peer(2), peer(3)]);

    let follower = cluster.nodes.values().find(|n| n.raft_id() != leader.raft_id()).unwrap();
    until(follower, |status| status.leader.is_some()).await;
    let error = follower.add_member(peer(9)).await.unwrap_err();
    let leader_peer = Some(peer(leader.raft_id()));
    assert_eq!(error, MemberError::NotLeader { leader: leader_peer.clone() });
    let error = follower.remove_member(leader.raft_id()).await.unwrap_err();
    assert_eq!(error, MemberError::NotLeader { leader: leader_peer });

    cluster.open(4).await;
    leader.add_member(peer(4)).await.unwrap();
    leader.add_member(peer(4)).await.unwrap();
    until(&cluster.nodes[&4], |status| status.voters.len() == 4).await;
    cluster.level().await;
    assert_eq!(cluster.journals[&4].texts(), ["one"]);

    let gone = if leader.raft_id() == 3 { 2 } else { 3 };
    leader.remove_member(gone).await.unwrap();
    leader.remove_member(gone).await.unwrap();
    let status = until(&leader, |status| status.voters.len() == 3).await;
    assert!(status.voters.iter().all(|voter| voter.raft_id != gone), "{status:?}");
    assert_eq!(status.learners, []);
    put(&leader, "two").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_may_remove_itself_and_the_last_voter_may_not_go() {
    let cluster = Cluster::of(2, RaftConfig::lan()).await;
    let leader = cluster.leader().await;
    let other = &cluster.nodes[&(3 - leader.raft_id())];
    leader.remove_member(leader.raft_id()).await.unwrap();
    let status = until(other, |status| status.leader_ready).await;
    assert_eq!(status.voters, [peer(other.raft_id())]);
    put(other, "alone").await;
    let error = other.remove_member(other.raft_id()).await.unwrap_err();
    assert_eq!(error, MemberError::LastVoter);
    until(&leader, |status| !status.is_leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over() {
    let cluster = Cluster::of(3, RaftConfig::lan()).await;
    let leader = cluster.leader().await;
    let error = leader.transfer_leadership(9).await.unwrap_err();
    assert_eq!(error, MemberError::Unknown { raft_id: 9 });
    let to = leader.raft_id() % 3 + 1;
    leader.transfer_leadership(to).await.unwrap();
    until(&cluster.nodes[&to], |status| status.leader_ready).await;
    put(&cluster.nodes[&to], "handed over").await;
    let error = leader.transfer_leadership(to).await.unwrap_err();
    assert!(matches!(error, MemberError::NotLeader { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_cannot_be_reached_is_not_added() {
    let mut config = RaftConfig::lan();
    config.catch_up_ms_max = 500;
    let cluster = Cluster::of(1, config).await;
    let error = cluster.nodes[&1].add_member(peer(7)).await.unwrap_err();
    let address = peer(7).address;
    assert_eq!(error, MemberError::CatchUp { address, waited_ms: 500 });
    let status = until(&cluster.nodes[&1], |status| status.learners.is_empty()).await;
    assert_eq!(status.voters, [peer(1)]);
    put(&cluster.nodes[&1], "still works").await;
}

/// Goal: a manager whose address changes is reached at the new one, without a restart of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_may_move_to_another_address() {
    let cluster = Cluster::of(3, RaftConfig::lan()).await;
    let leader = cluster.leader().await;
    let moved = leader.raft_id() % 3 + 1;
    let node = &cluster.nodes[&moved];
    let address = "elsewhere:2377".to_owned();
    cluster.mesh.detach(&peer(moved).address);
    cluster.mesh.attach(&address, node);
    leader.add_member(Peer { raft_id: moved, address: address.clone() }).await.unwrap();
    let index = put(&leader, "found").await;
    until(node, |status| status.last_applied >= index).await;
    let status = node.status();
    assert!(status.voters.contains(&Peer { raft_id: moved, address }), "{status:?}");
}

/// Goal: two managers find each other although one has moved, which only both together can record.
/// Method: the one that moved tells where it is; it may vote, or lead, only after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_moved_is_reached_where_it_says() {
    let mut cluster = Cluster::of(2, RaftConfig::lan()).await;
    let leader = cluster.leader().await;
    let (stays, moved) = (leader.raft_id(), 3 - leader.raft_id());
    cluster.mesh.detach(&peer(moved).address);
    until(&leader, |status| !status.has_quorum).await;
    let address = "elsewhere:2377".to_owned();
    let node = cluster.nodes.remove(&moved).unwrap();
    cluster.mesh.attach(&address, &node);
    leader.hear(&Peer { raft_id: moved, address: address.clone() });
    let leading = tokio::select! {
        _ = until(&leader, |status| status.leader_ready && status.has_quorum) => &leader,
        _ = until(&node, |status| status.leader_ready) => &node,
    };
    leading.add_member(Peer { raft_id: moved, address: address.clone() }).await.unwrap();
    let status = until(leading, |status| status.voters.contains(&peer(stays))).await;
    assert!(status.voters.contains(&Peer { raft_id: moved, address }), "{status:?}");
}

/// Goal: a learner that does not come keeps nobody else from coming or going. Method: both while it
/// is waited for, and then it is called off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_members_change_while_a_learner_is_waited_for() {
    let cluster = Cluster::of(3, RaftConfig::lan()).await;
    let leader = cluster.leader().await;
    let adding = tokio::spawn({
        let leader = leader.clone();
        async move { leader.add_member(peer(7)).await }
    });
    until(&leader, |status| status.learners == [peer(7)]).await;
    let gone = leader.raft_id() % 3 + 1;
    leader.remove_member(gone).await.unwrap();
    let status = until(&leader, |status| status.voters.len() == 2).await;
    assert_eq!(status.learners, [peer(7)]);
    assert!(!adding.is_finished(), "it is waited for still");
    leader.remove_member(7).await.unwrap();
    let error = adding.await.unwrap().unwrap_err();
    assert_eq!(error, MemberError::Dropped { raft_id: 7 });
    let status = until(&leader, |status| status.learners.is_empty()).await;
    assert_eq!(status.voters.len(), 2);
}
