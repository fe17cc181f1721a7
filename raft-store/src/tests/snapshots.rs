//! Snapshots: made, sent, kept, and passed over when damaged.

use std::fs;

use openraft::async_runtime::WatchReceiver;

use super::harness::{Cluster, peer, put, until};
use crate::{Class, RaftConfig};

fn often() -> RaftConfig {
    RaftConfig { snapshot_every: 20, ..RaftConfig::lan() }
}

fn names(cluster: &Cluster, raft_id: u64) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(cluster.folder(raft_id).join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Writes until the log no longer reaches back to its beginning.
async fn fill(cluster: &Cluster) {
    let leader = cluster.leader().await;
    for number in 0..5_000 {
        put(&leader, &format!("entry {number}")).await;
        let purged = leader.raft().metrics().borrow_watched().purged;
        if number > 100 && purged.is_some_and(|id| id.index > 20) {
            return;
        }
    }
    panic!("nothing was purged");
}

/// Goal: a new manager gets a state that is no longer in any log, in several pieces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_manager_gets_the_snapshot_and_what_follows_it() {
    let mut cluster = Cluster::of(1, often()).await;
    cluster.nodes[&1].propose(vec![b'x'; 3 << 20]).await.unwrap();
    fill(&cluster).await;
    cluster.open(2).await;
    cluster.nodes[&1].add_member(peer(2)).await.unwrap();
    put(&cluster.nodes[&1], "last").await;
    cluster.level().await;
    assert!(cluster.mesh.classes().contains(&Class::Snapshot));
    assert_eq!(cluster.journals[&2].payloads(), cluster.journals[&1].payloads());

    // What was installed is also there after a restart of the new manager alone.
    cluster.stop(2).await;
    cluster.mesh.isolate(2);
    cluster.open(2).await;
    let count = cluster.journals[&1].payloads().len();
    assert!(cluster.journals[&2].payloads().len() >= count - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_snapshots_are_kept_and_a_damaged_one_is_passed_over() {
    let mut cluster = Cluster::of(1, often()).await;
    fill(&cluster).await;
    let before = cluster.journals[&1].texts();
    cluster.stop(1).await;
    let kept = names(&cluster, 1);
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.iter().all(|name| name.len() == 46 && name.ends_with(".snap")), "{kept:?}");

    let newest = cluster.folder(1).join("snapshots").join(&kept[1]);
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, &bytes).unwrap();
    let unfinished = cluster.folder(1).join("snapshots/00000000000000000001.snap.tmp");
    fs::write(&unfinished, b"half").unwrap();
    let node = cluster.open(1).await;
    assert_eq!(cluster.journals[&1].texts(), before);
    assert!(!unfinished.exists());
    assert!(newest.with_extension("snap.damaged").exists());
    until(&node, |status| status.leader_ready).await;
    put(&node, "after").await;

    // Cut short instead, even below its header: the same.
    cluster.stop(1).await;
    let newest = cluster.folder(1).join("snapshots").join(names(&cluster, 1).last().unwrap());
    fs::write(&newest, &bytes[..5]).unwrap();
    cluster.open(1).await;
    assert_eq!(cluster.journals[&1].texts().len(), before.len() + 1);
}
