//! One survivor's log, and the log of a node that starts alone from it.

use super::harness::{Cluster, Journal, key, peer, put, until};
use crate::{Machine as _, Presence, RaftConfig, RaftNode, Storage, found, replay};

/// Goal: what one of three managers has is enough to go on without the others.
/// Method: three managers with snapshots and entries after them; one is stopped, read, and founded
/// again under another Raft id, while the other two are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_survivor_goes_on_alone() {
    let config = RaftConfig { snapshot_every: 20, ..RaftConfig::lan() };
    let mut cluster = Cluster::of(3, config.clone()).await;
    let leader = cluster.leader().await;
    for number in 0..70 {
        put(&leader, &format!("entry {number}")).await;
    }
    cluster.level().await;
    let before = cluster.journals[&2].texts();
    for raft_id in 1..=3 {
        cluster.stop(raft_id).await;
    }

    let (old, new, key) = (cluster.folder(2), cluster.folder(9), key());
    let mut journal = Journal::default();
    let storage = Storage { dir: &old, raft_id: 2, key: &key, presence: Presence::Existing };
    let end = replay(storage, &mut journal).await.unwrap();
    assert_eq!(journal.texts(), before);

    let storage = Storage { dir: &new, raft_id: 9, key: &key, presence: Presence::New };
    let stranger = found(storage, &[peer(8)], end.next(), journal.snapshot()).await.unwrap_err();
    assert!(stranger.to_string().contains("not among the voters"), "{stranger}");
    found(storage, &[peer(9)], end.next(), journal.snapshot()).await.unwrap();
    let error = found(storage, &[peer(9)], end.next(), journal.snapshot()).await.unwrap_err();
    assert!(error.to_string().contains("there is a log already"), "{error}");

    let storage = Storage { presence: Presence::Existing, ..storage };
    let again = Journal::default();
    let transport = cluster.transport(9);
    let node = RaftNode::open(storage, again.clone(), transport, config).await.unwrap();
    let status = until(&node, |status| status.leader_ready).await;
    assert_eq!(status.voters, [peer(9)]);
    assert!(status.term > end.term && status.last_applied > end.index);
    assert_eq!(again.texts(), before);
    put(&node, "after").await;
    node.shutdown().await.unwrap();
}
