//! Keeping and opening network namespaces.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use cluster::id::{NetworkId, TaskId};
use netprog::plane::Place;
use nix::sched::{CloneFlags, unshare};

/// The keeper of a node's namespaces.
///
/// In the daemon fabrics are kept by the holder process and sandboxes by their supervisors, so
/// that both outlive it; tests keep them in their own process.
pub trait Spaces: Send {
    /// Opens the namespace; `None` if there is none.
    fn open(&self, place: Place) -> io::Result<Option<OwnedFd>>;
    /// Makes a fabric's namespace; one that exists is kept.
    fn create_fabric(&mut self, network: NetworkId) -> io::Result<()>;
    /// Releases a fabric's namespace; succeeds if there is none.
    fn delete_fabric(&mut self, network: NetworkId) -> io::Result<()>;
    /// Fabrics that exist.
    fn fabrics(&self) -> io::Result<BTreeSet<NetworkId>>;
    /// Sandboxes that exist.
    fn sandboxes(&self) -> io::Result<BTreeSet<TaskId>>;
}

/// Makes a network namespace that lives as long as the descriptor is open. Its `lo` is down.
///
/// Needs CAP_SYS_ADMIN.
pub fn new_namespace() -> io::Result<OwnedFd> {
    let thread = std::thread::Builder::new().name("new-namespace".to_owned()).spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        own_namespace()
    })?;
    thread.join().map_err(|_panic| io::Error::other("the thread that makes a namespace died"))?
}

/// The calling thread's own namespace.
pub fn own_namespace() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Namespaces kept by descriptors of this process.
#[derive(Debug)]
pub struct HeldSpaces {
    host: OwnedFd,
    fabrics: BTreeMap<NetworkId, OwnedFd>,
    sandboxes: BTreeMap<TaskId, OwnedFd>,
}

impl HeldSpaces {
    /// With this namespace as the host's.
    #[must_use]
    pub fn new(host: OwnedFd) -> Self {
        Self { host, fabrics: BTreeMap::new(), sandboxes: BTreeMap::new() }
    }

    /// Makes a sandbox.
    pub fn create_sandbox(&mut self, task: TaskId) -> io::Result<()> {
        self.adopt_sandbox(task, new_namespace()?);
        Ok(())
    }

    /// Adopts an existing namespace as a sandbox.
    pub fn adopt_sandbox(&mut self, task: TaskId, namespace: OwnedFd) {
        self.sandboxes.insert(task, namespace);
    }

    /// Releases a sandbox.
    pub fn delete_sandbox(&mut self, task: TaskId) {
        self.sandboxes.remove(&task);
    }
}

impl Spaces for HeldSpaces {
    fn open(&self, place: Place) -> io::Result<Option<OwnedFd>> {
        let fd = match place {
            Place::Host => Some(&self.host),
            Place::Fabric(network) => self.fabrics.get(&network),
            Place::Sandbox(task) => self.sandboxes.get(&task),
        };
        fd.map(OwnedFd::try_clone).transpose()
    }

    fn create_fabric(&mut self, network: NetworkId) -> io::Result<()> {
        if let Entry::Vacant(vacant) = self.fabrics.entry(network) {
            vacant.insert(new_namespace()?);
        }
        Ok(())
    }

    fn delete_fabric(&mut self, network: NetworkId) -> io::Result<()> {
        self.fabrics.remove(&network);
        Ok(())
    }

    fn fabrics(&self) -> io::Result<BTreeSet<NetworkId>> {
        Ok(self.fabrics.keys().copied().collect())
    }

    fn sandboxes(&self) -> io::Result<BTreeSet<TaskId>> {
        Ok(self.sandboxes.keys().copied().collect())
    }
}
