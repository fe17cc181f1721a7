//! A machine that records what it applied, and managers joined by function calls.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use crate::{
    Class, DISK_KEY_BYTES, DiskKey, Error, Machine, Peer, Presence, RaftConfig, RaftNode,
    SnapshotContent, Status, Storage, Transport, TransportError,
};

/// No condition waited for here takes longer on a machine that works at all.
const WAIT: Duration = Duration::from_secs(60);

/// A payload that no machine here can read.
pub(super) const UNREADABLE: &[u8] = b"\xFFunreadable";

/// What a machine applied: index and payload, the log's own entries left out.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    entries: Arc<Mutex<Entries>>,
}

type Entries = Vec<(u64, Vec<u8>)>;

impl Journal {
    fn hold(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap()
    }

    pub(super) fn payloads(&self) -> Vec<Vec<u8>> {
        self.hold().iter().map(|(_, payload)| payload.clone()).collect()
    }

    pub(super) fn texts(&self) -> Vec<String> {
        self.payloads().into_iter().map(|p| String::from_utf8(p).unwrap()).collect()
    }
}

impl Machine for Journal {
    fn apply(&mut self, index: u64, payload: &[u8]) -> Result<Vec<u8>, String> {
        if payload == UNREADABLE {
            return Err("it cannot be read".to_owned());
        }
        let mut entries = self.hold();
        assert!(entries.last().is_none_or(|(last, _)| *last < index), "index moves on");
        if !payload.is_empty() {
            entries.push((index, payload.to_vec()));
        }
        Ok(entries.len().to_string().into_bytes())
    }

    fn snapshot(&self) -> SnapshotContent {
        let bytes = crate::codec::encode(&*self.hold()).unwrap();
        Box::new(move |file| file.write_all(&bytes))
    }

    fn restore(&mut self, index: u64, snapshot: &mut dyn Read) -> Result<(), String> {
        let mut bytes = Vec::new();
        snapshot.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        let entries: Entries = crate::codec::decode(&bytes).map_err(|e| e.to_string())?;
        assert!(entries.last().is_none_or(|(last, _)| *last <= index));
        *self.hold() = entries;
        Ok(())
    }
}

/// The network between managers: addresses, and who is cut off.
#[derive(Default)]
pub(super) struct Mesh {
    nodes: Mutex<BTreeMap<String, RaftNode>>,
    cut: Mutex<BTreeSet<u64>>,
    /// Messages that a node could not send because it is cut off.
    refused: Mutex<BTreeMap<(u64, Class), usize>>,
    classes: Mutex<BTreeSet<Class>>,
}

impl Mesh {
    pub(super) fn isolate(&self, raft_id: u64) {
        self.cut.lock().unwrap().insert(raft_id);
    }

    /// Waits until a node has failed to send this many messages of a class since the call.
    pub(super) async fn until_refused(&self, raft_id: u64, class: Class, count: usize) {
        let key = (raft_id, class);
        self.refused.lock().unwrap().remove(&key);
        let reached = || self.refused.lock().unwrap().get(&key).is_some_and(|n| *n >= count);
        tokio::time::timeout(WAIT, async {
            while !reached() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("messages to refuse");
    }

    pub(super) fn heal(&self, raft_id: u64) {
        self.cut.lock().unwrap().remove(&raft_id);
    }

    pub(super) fn attach(&self, address: &str, node: &RaftNode) {
        self.nodes.lock().unwrap().insert(address.to_owned(), node.clone());
    }

    pub(super) fn detach(&self, address: &str) {
        self.nodes.lock().unwrap().remove(address);
    }

    /// Classes of messages that have been carried so far.
    pub(super) fn classes(&self) -> BTreeSet<Class> {
        self.classes.lock().unwrap().clone()
    }
}

struct Port {
    own: u64,
    mesh: Arc<Mesh>,
}

#[async_trait::async_trait]
impl Transport for Port {
    async fn call(&self, peer: &Peer, class: Class, body: Bytes) -> Result<Bytes, TransportError> {
        let unreachable = |reason: &str| TransportError::Unreachable {
            address: peer.address.clone(),
            reason: reason.to_owned(),
        };
        let is_cut = |mesh: &Mesh, id: &u64| mesh.cut.lock().unwrap().contains(id);
        let node = self.mesh.nodes.lock().unwrap().get(&peer.address).cloned();
        let node = node.ok_or_else(|| unreachable("nobody is there"))?;
        if is_cut(&self.mesh, &self.own) || is_cut(&self.mesh, &node.raft_id()) {
            *self.mesh.refused.lock().unwrap().entry((self.own, class)).or_default() += 1;
            return Err(unreachable("cut off"));
        }
        self.mesh.classes.lock().unwrap().insert(class);
        node.serve(class, body).await.map_err(|e| TransportError::Failed {
            address: peer.address.clone(),
            reason: e.to_string(),
        })
    }
}

/// Managers of one test; node N has its data in folder `nN` and the address `nN:2377`.
pub(super) struct Cluster {
    pub(super) mesh: Arc<Mesh>,
    pub(super) nodes: BTreeMap<u64, RaftNode>,
    pub(super) journals: BTreeMap<u64, Journal>,
    pub(super) config: RaftConfig,
    /// Nodes that have been open.
    begun: BTreeSet<u64>,
    dir: TempDir,
}

/// The disk key of every node here.
pub(super) fn key() -> DiskKey {
    DiskKey::from_bytes([7; DISK_KEY_BYTES])
}

pub(super) fn peer(raft_id: u64) -> Peer {
    Peer { raft_id, address: format!("n{raft_id}:2377") }
}

impl Cluster {
    pub(super) fn empty(config: RaftConfig) -> Self {
        Self {
            mesh: Arc::default(),
            nodes: BTreeMap::new(),
            journals: BTreeMap::new(),
            config,
            begun: BTreeSet::new(),
            dir: TempDir::new().unwrap(),
        }
    }

    /// A node 1 whose data is in a folder that another cluster made.
    pub(super) fn at(folder: &Path, config: RaftConfig) -> Self {
        let mut cluster = Self::empty(config);
        std::os::unix::fs::symlink(folder, cluster.folder(1)).unwrap();
        cluster.begun.insert(1);
        cluster
    }

    /// Nodes 1 to `count` as voters, node 1 leading.
    pub(super) async fn of(count: u64, config: RaftConfig) -> Self {
        let mut cluster = Self::empty(config);
        cluster.open(1).await;
        cluster.nodes[&1].initialize(peer(1)).await.unwrap();
        until(&cluster.nodes[&1], |status| status.leader_ready).await;
        for raft_id in 2..=count {
            cluster.open(raft_id).await;
            cluster.nodes[&1].add_member(peer(raft_id)).await.unwrap();
        }
        cluster
    }

    pub(super) fn folder(&self, raft_id: u64) -> PathBuf {
        self.dir.path().join(format!("n{raft_id}"))
    }

    pub(super) fn transport(&self, own: u64) -> Arc<dyn Transport> {
        Arc::new(Port { own, mesh: self.mesh.clone() })
    }

    /// Opens a node: one that was open before must find its log again.
    pub(super) async fn open(&mut self, raft_id: u64) -> RaftNode {
        self.try_open(raft_id).await.unwrap()
    }

    pub(super) async fn try_open(&mut self, raft_id: u64) -> Result<RaftNode, Error> {
        let journal = Journal::default();
        let folder = self.folder(raft_id);
        let is_new = self.begun.insert(raft_id);
        let presence = if is_new { Presence::New } else { Presence::Existing };
        let storage = Storage { dir: &folder, raft_id, key: &key(), presence };
        let transport = self.transport(raft_id);
        let node = RaftNode::open(storage, journal.clone(), transport, self.config.clone()).await?;
        self.mesh.attach(&peer(raft_id).address, &node);
        self.nodes.insert(raft_id, node.clone());
        self.journals.insert(raft_id, journal);
        Ok(node)
    }

    pub(super) async fn stop(&mut self, raft_id: u64) {
        self.mesh.detach(&peer(raft_id).address);
        let node = self.nodes.remove(&raft_id).unwrap();
        node.shutdown().await.unwrap();
    }

    /// The one leader that is ready, among the nodes that are open and not cut off.
    pub(super) async fn leader(&self) -> RaftNode {
        let cut = self.mesh.cut.lock().unwrap().clone();
        let open: Vec<&RaftNode> =
            self.nodes.iter().filter(|(id, _)| !cut.contains(id)).map(|(_, node)| node).collect();
        tokio::time::timeout(WAIT, async {
            loop {
                let mut watches: Vec<_> = open.iter().map(|node| node.watch()).collect();
                let ready = |node: &&&RaftNode| {
                    let status = node.status();
                    status.leader_ready && status.has_quorum
                };
                if let Some(leader) = open.iter().find(ready) {
                    return (*leader).clone();
                }
                let changes = watches.iter_mut().map(|watch| Box::pin(watch.changed()));
                futures_util::future::select_all(changes).await.0.unwrap();
            }
        })
        .await
        .expect("a leader")
    }

    /// Waits until every open node has applied everything that was acknowledged.
    pub(super) async fn level(&self) {
        self.leader().await;
        for node in self.nodes.values() {
            node.read_barrier().await.unwrap();
        }
    }
}

/// Waits for a condition of one node's status.
pub(super) async fn until(node: &RaftNode, condition: impl Fn(&Status) -> bool) -> Status {
    let mut watch = node.watch();
    match tokio::time::timeout(WAIT, watch.wait_for(|status| condition(status))).await {
        Ok(Ok(status)) => status.clone(),
        Ok(Err(_closed)) => panic!("the node stopped: {:?}", node.status()),
        Err(_elapsed) => panic!("the condition was not met: {:?}", node.status()),
    }
}

pub(super) async fn put(node: &RaftNode, text: &str) -> u64 {
    node.propose(text.as_bytes().to_vec()).await.unwrap().index
}
