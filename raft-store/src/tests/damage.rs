//! A disk that changes what was written: nothing of it is served, and the error names the file.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::harness::{Cluster, UNREADABLE, key, put};
use crate::{Error, RaftConfig, Storage};

const ENTRIES: usize = 120;
const FLIPS: u64 = 200;

fn often() -> RaftConfig {
    RaftConfig { snapshot_every: 50, ..RaftConfig::lan() }
}

/// A small generator (xorshift64*), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let parts = ["raft", "snapshots"].map(|part| fs::read_dir(folder.join(part)).unwrap());
    let mut files: Vec<_> = parts.into_iter().flatten().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// Waits until nothing was committed for longer than the writer holds anything back.
async fn quiet(mark: &Path) {
    let mut before = Vec::new();
    for _ in 0..100 {
        let now = fs::read(mark).unwrap();
        if now == before {
            return;
        }
        before = now;
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    panic!("the log is written to without end");
}

/// A manager with a log and two snapshots, and copies of its folder: one taken while it runs, as a
/// kill leaves it, and one after a clean stop.
async fn written() -> (TempDir, Vec<String>, [PathBuf; 2]) {
    let copies = TempDir::new().unwrap();
    let mut cluster = Cluster::of(1, often()).await;
    for number in 0..ENTRIES {
        put(&cluster.nodes[&1], &format!("entry {number} {}", "x".repeat(300))).await;
    }
    let texts = cluster.journals[&1].texts();
    let killed = copies.path().join("killed");
    quiet(&cluster.folder(1).join("raft/log.mark")).await;
    copy(&cluster.folder(1), &killed);
    cluster.stop(1).await;
    let stopped = copies.path().join("stopped");
    copy(&cluster.folder(1), &stopped);
    (copies, texts, [killed, stopped])
}

/// Goal: 200 flipped bits in each state of a disk, none served.
/// Method: flip a random bit of a random file, bytes weighing alike; the node refuses and names the
/// file, or has exactly what it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_refused_by_name_or_changes_nothing() {
    let (copies, texts, states) = written().await;
    let mut random = Random(0x5eed);
    for state in states {
        let sizes: Vec<(PathBuf, u64)> = files(&state)
            .into_iter()
            .map(|f| (f.clone(), fs::metadata(f).unwrap().len()))
            .collect();
        assert_eq!(sizes.len(), 4, "log, mark and two snapshots: {sizes:?}");
        let mut refused = 0;
        for flip in 0..FLIPS {
            let damaged = copies.path().join("damaged");
            copy(&state, &damaged);
            // Every file gets its share, and a place within it at random.
            let (file, size) = &sizes[(flip % sizes.len() as u64) as usize];
            let (byte, bit) = (random.below(*size), random.below(8));
            let file = damaged.join(file.strip_prefix(&state).unwrap());
            let mut bytes = fs::read(&file).unwrap();
            bytes[byte as usize] ^= 1 << bit;
            fs::write(&file, bytes).unwrap();

            let case = format!("bit {bit} of byte {byte} of {}", file.display());
            let mut cluster = Cluster::at(&damaged, often());
            match cluster.try_open(1).await {
                Ok(_node) => {
                    assert_eq!(cluster.journals[&1].texts(), texts, "{case}");
                    cluster.stop(1).await;
                }
                Err(error @ Error::Damaged { .. }) => {
                    let text = error.to_string();
                    let folder = cluster.folder(1);
                    assert!(text.contains(folder.to_str().unwrap()), "{case}: {text}");
                    refused += 1;
                }
                Err(other) => panic!("{case}: {other}"),
            }
            fs::remove_dir_all(&damaged).unwrap();
        }
        assert!(refused >= FLIPS / 4, "all flips of the mark at least: {refused}");
    }
}

/// Goal: no single row of a log can be changed unnoticed.
/// Method: flip one bit in the middle of each entry's content as it lies in the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_within_a_row_is_refused() {
    let (copies, texts, states) = written().await;
    let damaged = copies.path().join("damaged");
    let mut refused = 0;
    let log = fs::read(states[1].join("raft/log.redb")).unwrap();
    // Entries are hundreds of random bytes in a row; the rest of a page is mostly zeros.
    let dense = |at: &usize| log[*at..*at + 64].iter().filter(|byte| **byte == 0).count() < 4;
    for at in (0..log.len() - 64).step_by(4096).filter(dense).take(10) {
        copy(&states[1], &damaged);
        let mut bytes = log.clone();
        bytes[at + 32] ^= 1;
        fs::write(damaged.join("raft/log.redb"), bytes).unwrap();
        let mut cluster = Cluster::at(&damaged, often());
        match cluster.try_open(1).await {
            Ok(_node) => {
                assert_eq!(cluster.journals[&1].texts(), texts, "byte {}", at + 32);
                cluster.stop(1).await;
            }
            Err(Error::Damaged { .. }) => refused += 1,
            Err(other) => panic!("byte {}: {other}", at + 32),
        }
        fs::remove_dir_all(&damaged).unwrap();
    }
    assert!(refused > 0, "some of these pages are live");
}

/// Goal: a manager without its log does not vote again under its id.
#[tokio::test]
async fn a_log_that_is_gone_is_not_made_again() {
    let mut cluster = Cluster::of(1, RaftConfig::lan()).await;
    put(&cluster.nodes[&1], "kept").await;
    cluster.stop(1).await;
    let log = cluster.folder(1).join("raft/log.redb");
    let mark = cluster.folder(1).join("raft/log.mark");
    let kept = fs::read(&log).unwrap();
    for emptied in [false, true] {
        fs::remove_file(&log).unwrap();
        if emptied {
            fs::write(&log, b"").unwrap();
        }
        let error = cluster.try_open(1).await.unwrap_err();
        assert!(matches!(&error, Error::Gone { path } if *path == log), "{error}");
        fs::write(&log, &kept).unwrap();
    }
    let kept_mark = fs::read(&mark).unwrap();
    fs::remove_file(&mark).unwrap();
    let error = cluster.try_open(1).await.unwrap_err();
    assert!(error.to_string().contains("log.mark next to it is missing"), "{error}");
    fs::write(&mark, kept_mark).unwrap();
    cluster.open(1).await;
    assert_eq!(cluster.journals[&1].texts(), ["kept"]);
}

/// Goal: a log that lost its newest commits, with whole pages, is refused.
/// Method: put an older copy of the log in its place, as redb's fallback would.
#[tokio::test]
async fn an_older_log_is_refused() {
    let mut cluster = Cluster::of(1, RaftConfig::lan()).await;
    put(&cluster.nodes[&1], "one").await;
    let log = cluster.folder(1).join("raft/log.redb");
    let older = fs::read(&log).unwrap();
    put(&cluster.nodes[&1], "two").await;
    cluster.stop(1).await;
    fs::write(&log, older).unwrap();
    let error = cluster.try_open(1).await.unwrap_err();
    assert!(error.to_string().contains("its newest"), "{error}");
}

/// Goal: a log whose beginning was purged is nothing without its snapshots.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_its_snapshots_is_refused() {
    let (copies, _texts, [_killed, stopped]) = written().await;
    for file in fs::read_dir(stopped.join("snapshots")).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    let mut cluster = Cluster::at(&stopped, often());
    let error = cluster.try_open(1).await.unwrap_err();
    assert!(error.to_string().contains("none is good"), "{error}");
    drop(copies);
}

#[tokio::test]
async fn a_log_under_another_key_is_refused() {
    let mut cluster = Cluster::of(1, RaftConfig::lan()).await;
    cluster.stop(1).await;
    let folder = cluster.folder(1);
    let other = crate::DiskKey::generate().unwrap();
    assert_ne!(other, key());
    let presence = crate::Presence::Existing;
    let storage = Storage { dir: &folder, raft_id: 1, key: &other, presence };
    let journal = super::harness::Journal::default();
    let error = crate::RaftNode::open(storage, journal, cluster.transport(1), RaftConfig::lan())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

/// Goal: an entry that a manager cannot read stops that manager, with the reason, and is not
/// skipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_cannot_be_applied_stops_the_node() {
    let cluster = Cluster::of(1, RaftConfig::lan()).await;
    let node = cluster.nodes[&1].clone();
    assert!(node.propose(UNREADABLE.to_vec()).await.is_err());
    let status = node.watch().wait_for(|status| status.stopped.is_some()).await.unwrap().clone();
    let reason = status.stopped.unwrap();
    assert!(reason.contains("it cannot be read"), "{reason}");
    assert!(cluster.journals[&1].texts().is_empty());
}

/// Goal: nothing of what is replicated can be read on the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_on_disk_in_clear() {
    let (_copies, texts, states) = written().await;
    for file in states.iter().flat_map(|state| files(state)) {
        let bytes = fs::read(&file).unwrap();
        let needle = b"entry 1";
        assert!(texts.iter().any(|text| text.as_bytes().starts_with(needle)));
        let found = bytes.windows(needle.len()).any(|window| window == needle);
        assert!(!found, "{} holds an entry", file.display());
    }
}

/// Goal: what is committed is not cut off, whatever a leader says.
#[tokio::test]
async fn committed_entries_are_not_truncated() {
    use openraft::storage::{RaftLogStorage, RaftLogStorageExt as _};
    let dir = TempDir::new().unwrap();
    let sealer = std::sync::Arc::new(crate::seal::Sealer::new(&key()).unwrap());
    let mut log =
        crate::log_store::LogStore::open(dir.path(), 1, crate::Presence::New, sealer).unwrap();
    let id =
        |index| crate::types::LogId::new(crate::types::LeaderId { term: 1, node_id: 1 }, index);
    let blank =
        |index| crate::types::Entry { log_id: id(index), payload: openraft::EntryPayload::Blank };
    log.blocking_append((0..5).map(blank)).await.unwrap();
    log.save_committed(Some(id(2))).await.unwrap();
    let error = log.truncate_after(Some(id(1))).await.unwrap_err().to_string();
    assert!(error.contains("2 is committed"), "{error}");
    log.truncate_after(Some(id(2))).await.unwrap();
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(id(2)));
}

/// Goal: a manager whose state cannot be written says so, instead of keeping an empty snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_cannot_be_written_stops_the_node() {
    let cluster = Cluster::of(1, often()).await;
    let node = cluster.nodes[&1].clone();
    let folder = cluster.folder(1).join("snapshots");
    fs::remove_dir_all(&folder).unwrap();
    for number in 0..ENTRIES {
        if node.propose(format!("{number}").into_bytes()).await.is_err() {
            break;
        }
    }
    let status = node.watch().wait_for(|status| status.stopped.is_some()).await.unwrap().clone();
    let reason = status.stopped.unwrap();
    assert!(reason.contains("writing a snapshot of the state"), "{reason}");
}
