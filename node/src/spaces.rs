//! Who keeps this node's namespaces: fabrics the holder, sandboxes their supervisors. Both outlive
//! the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cluster::id::{NetworkId, TaskId};
use netprog::plane::Place;
use netprog_linux::spaces::{Spaces, own_namespace};

use supervise::hold;

/// How the holder names a fabric.
const FABRIC: &str = "fabric-";

/// Descriptors of the sandboxes that exist; the worker's shell keeps it current.
#[derive(Clone, Default)]
pub struct Sandboxes(Arc<Mutex<BTreeMap<TaskId, OwnedFd>>>);

impl Sandboxes {
    /// A sandbox that exists.
    pub fn insert(&self, task: TaskId, namespace: OwnedFd) {
        self.lock().insert(task, namespace);
    }

    /// Lets a sandbox go; what runs in it keeps it.
    pub fn remove(&self, task: TaskId) {
        self.lock().remove(&task);
    }

    /// Its namespace, if its descriptor is known.
    pub fn open(&self, task: TaskId) -> io::Result<Option<OwnedFd>> {
        self.lock().get(&task).map(OwnedFd::try_clone).transpose()
    }

    /// Whether its descriptor is known.
    #[must_use]
    pub fn contains(&self, task: TaskId) -> bool {
        self.lock().contains_key(&task)
    }

    /// A sandbox's namespace.
    #[must_use]
    pub fn namespace(&self, task: TaskId) -> Option<OwnedFd> {
        self.lock().get(&task)?.try_clone().ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<TaskId, OwnedFd>> {
        // A map of descriptors is whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This node's namespaces.
pub struct NodeSpaces {
    holder: hold::Client,
    sandboxes: Sandboxes,
    host: OwnedFd,
}

impl NodeSpaces {
    /// Starts the holder unless it runs. Blocks.
    pub fn start(exe: &Path, run_dir: &Path, sandboxes: Sandboxes) -> io::Result<Self> {
        let holder = hold::ensure_running(exe, run_dir)?;
        Ok(Self { holder, sandboxes, host: own_namespace()? })
    }
}

fn name_of(network: NetworkId) -> String {
    format!("{FABRIC}{network}")
}

impl Spaces for NodeSpaces {
    fn open(&self, place: Place) -> io::Result<Option<OwnedFd>> {
        match place {
            Place::Host => self.host.try_clone().map(Some),
            Place::Fabric(network) if self.fabrics()?.contains(&network) => {
                self.holder.open(&name_of(network)).map(Some)
            }
            Place::Fabric(_) => Ok(None),
            Place::Sandbox(task) => self.sandboxes.open(task),
        }
    }

    fn create_fabric(&mut self, network: NetworkId) -> io::Result<()> {
        self.holder.open(&name_of(network)).map(drop)
    }

    fn delete_fabric(&mut self, network: NetworkId) -> io::Result<()> {
        self.holder.close(&name_of(network))
    }

    fn fabrics(&self) -> io::Result<BTreeSet<NetworkId>> {
        let names = self.holder.list()?;
        let fabric = |name: &String| name.strip_prefix(FABRIC)?.parse().ok();
        Ok(names.iter().filter_map(fabric).collect())
    }

    fn sandboxes(&self) -> io::Result<BTreeSet<TaskId>> {
        Ok(self.sandboxes.lock().keys().copied().collect())
    }
}

/// Ends the holder and with it every fabric: the node is no member any more. Blocks.
pub fn clear(run_dir: &Path) {
    if let Err(error) = hold::Client::new(run_dir).quit() {
        tracing::warn!(%error, "end the holder of namespaces");
    }
}
