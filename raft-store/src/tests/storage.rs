//! The log store by openraft's own suite, and what is left after a process ends.

use std::path::Path;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::harness::{Cluster, Journal, key, peer, put, until};
use crate::log_store::LogStore;
use crate::seal::Sealer;
use crate::snapshot::SnapshotFolder;
use crate::state_machine::StateMachine;
use crate::types::TypeConfig;
use crate::{Error, Presence, ProposeError, RaftConfig, RaftNode, Storage};

struct Builder;

fn sealer() -> Arc<Sealer> {
    Arc::new(Sealer::new(&key()).unwrap())
}

fn log(folder: &Path, raft_id: u64, presence: Presence) -> Result<LogStore, Error> {
    LogStore::open(folder, raft_id, presence, sealer())
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let log = log(&dir.path().join("raft"), 0, Presence::New).unwrap();
        let snapshots = SnapshotFolder::open(&dir.path().join("snapshots"), sealer()).unwrap();
        Ok((dir, log, StateMachine::new(Box::new(Journal::default()), snapshots)))
    }
}

#[tokio::test]
async fn openraft_suite() {
    Suite::test_all(Builder).await.unwrap();
}

/// Goal: nobody but root reads keys in the log. Method: a new one, and one that all could read.
#[test]
fn the_log_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    for is_new in [true, false] {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("log.redb");
        if !is_new {
            std::fs::write(&file, "").unwrap();
            let open = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(&file, open).unwrap();
        }
        let _store = log(dir.path(), 0, Presence::New).unwrap();
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

/// Goal: a manager that dies at any moment has everything that it acknowledged.
/// Method: drop the runtime under a running node, without shutdown, and open the directory again.
#[test]
fn what_was_acknowledged_survives_a_death() {
    let mut cluster = Cluster::empty(RaftConfig::lan());
    let first = tokio::runtime::Runtime::new().unwrap();
    first.block_on(async {
        let node = cluster.open(1).await;
        node.initialize(peer(1)).await.unwrap();
        until(&node, |status| status.leader_ready).await;
        for number in 0..50 {
            put(&node, &format!("entry {number}")).await;
        }
    });
    cluster.mesh.detach(&peer(1).address);
    cluster.nodes.clear();
    drop(first);
    let before = cluster.journals[&1].texts();
    assert_eq!(before.len(), 50);

    let second = tokio::runtime::Runtime::new().unwrap();
    second.block_on(async {
        let node = reopen(&mut cluster).await;
        until(&node, |status| status.leader_ready).await;
        assert_eq!(cluster.journals[&1].texts(), before);
        let error = node.initialize(peer(1)).await.unwrap_err();
        assert!(matches!(error, Error::AlreadyInitialized), "{error}");
        put(&node, "after").await;
        node.shutdown().await.unwrap();
    });
}

/// The lock is free a moment after the runtime is gone: the writer thread ends by itself.
async fn reopen(cluster: &mut Cluster) -> RaftNode {
    for _ in 0..200 {
        let probe = log(&cluster.folder(1).join("raft"), 1, Presence::Existing);
        match probe {
            Ok(log) => {
                log.close().await;
                return cluster.open(1).await;
            }
            Err(Error::InUse { .. }) => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the log stays locked");
}

/// Goal: a node that is merely dropped stops by itself and gives its log free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_node_lets_go_of_its_log() {
    let mut cluster = Cluster::of(1, RaftConfig::lan()).await;
    put(&cluster.nodes[&1], "kept").await;
    cluster.mesh.detach(&peer(1).address);
    cluster.nodes.clear();
    reopen(&mut cluster).await;
    until(&cluster.nodes[&1], |status| status.leader_ready).await;
    assert_eq!(cluster.journals[&1].texts(), ["kept"]);
}

/// Goal: a single manager has its state back before it serves, without electing itself first.
/// Method: after a clean stop, look at the machine when `open` returns.
#[tokio::test]
async fn the_state_is_back_when_open_returns() {
    let mut cluster = Cluster::of(1, RaftConfig::lan()).await;
    for number in 0..20 {
        put(&cluster.nodes[&1], &format!("{number}")).await;
    }
    let before = cluster.journals[&1].texts();
    cluster.stop(1).await;
    let node = cluster.open(1).await;
    assert_eq!(cluster.journals[&1].texts(), before);
    assert!(node.status().is_initialized());
    assert!(node.status().last_applied >= 20);
}

#[tokio::test]
async fn a_directory_in_use_or_of_another_node_is_refused_by_name() {
    let mut cluster = Cluster::of(1, RaftConfig::lan()).await;
    let folder = cluster.folder(1);
    let config = || RaftConfig::lan();
    let transport = cluster.transport(1);
    let key = key();
    let storage =
        |raft_id| Storage { dir: &folder, raft_id, key: &key, presence: Presence::Existing };
    let error = RaftNode::open(storage(1), Journal::default(), transport.clone(), config())
        .await
        .unwrap_err();
    let path = folder.join("raft/log.redb").display().to_string();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&path), "{error}");

    cluster.stop(1).await;
    let error =
        RaftNode::open(storage(2), Journal::default(), transport, config()).await.unwrap_err();
    assert!(matches!(error, Error::Foreign { stored: 1, given: 2, .. }), "{error}");
    cluster.open(1).await;
}

#[tokio::test]
async fn a_file_that_is_no_log_is_refused_by_name() {
    let cluster = Cluster::empty(RaftConfig::lan());
    let folder = cluster.folder(1).join("raft");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("log.redb"), b"something else entirely").unwrap();
    let error = log(&folder, 1, Presence::Existing).err().unwrap();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("log.redb"), "{error}");
}

#[tokio::test]
async fn a_stopped_node_says_so() {
    let cluster = Cluster::of(1, RaftConfig::lan()).await;
    let node = cluster.nodes[&1].clone();
    node.shutdown().await.unwrap();
    let error = node.propose(b"late".to_vec()).await.unwrap_err();
    assert!(matches!(error, ProposeError::Stopped { .. }), "{error}");
    let error = node.read_barrier().await.unwrap_err();
    assert!(matches!(error, crate::ReadError::Stopped { .. }), "{error}");
    assert!(node.status().stopped.is_some());
}
