//! Who this node is: kept in its data directory, so that a restart comes back as the same node.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster::id::{ClusterId, NodeId};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::disk::{self, DiskError};
use crate::key_file::{KeyFile, KeyFileError};
use crate::pki::Credentials;

/// Folders of a manager's log.
const LOG_PARTS: [&str; 2] = ["raft", "snapshots"];
/// Folder of a log that is to take their place, and of the ones that it took the place of.
const PENDING: &str = "pending";
const BEFORE: &str = "before-recovery";
const IDENTITY: &str = "node.json";

/// A member's identity and addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Its Raft id, if it is a manager.
    pub raft_id: Option<u64>,
    /// The Raft id for which this disk has had a log. Under that id it does not vote without it.
    #[serde(default)]
    pub log_of: Option<u64>,
    /// Address that peers reach it at.
    pub advertise: IpAddr,
    /// VTEP.
    pub data_path: IpAddr,
    /// Cluster listener of a manager.
    pub listen: SocketAddr,
    /// Port of gossip.
    pub gossip_port: u16,
    /// Managers known when it joined; later ones come with assignments.
    pub managers: Vec<SocketAddr>,
    /// Grows with each start: versions of gossip rows begin with it.
    pub generation: u64,
    /// Where peers reach its cluster listener; none: where it listens, at the advertised address.
    #[serde(default)]
    pub cluster_address: Option<SocketAddr>,
    /// The daemon's flags when these addresses were decided.
    #[serde(default)]
    pub flags: AddressFlags,
}

impl Identity {
    /// Where peers reach its cluster listener, if it is a manager.
    #[must_use]
    pub fn manager_address(&self) -> SocketAddr {
        let derived = SocketAddr::new(self.advertise, self.listen.port());
        self.cluster_address.unwrap_or(derived)
    }
}

/// The daemon's flags for addresses, as typed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AddressFlags {
    /// `--advertise-addr`.
    pub advertise: Option<String>,
    /// `--data-path-addr`.
    pub data_path: Option<String>,
    /// `--listen-addr`.
    pub listen: Option<(Option<IpAddr>, u16)>,
}

/// A data directory, locked by this process.
pub struct DataDir {
    path: PathBuf,
    keys: Arc<KeyFile>,
    _lock: Flock<File>,
}

/// A data directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A file in it cannot be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Its keys.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// Another process has it.
    #[error(
        "data directory {0} is in use by another daemon: stop that one, or give another --data-dir"
    )]
    InUse(PathBuf),
    /// What is in it does not belong together.
    #[error("data directory {path}: {reason}; give another --data-dir, or remove it to start over")]
    Mixed {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl DataDir {
    /// Makes the directory if needed and locks it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        disk::private_dir(path)?;
        let file = path.join("lock");
        let lock = File::create(&file).map_err(|e| DiskError {
            activity: "write",
            path: file.clone(),
            reason: e.to_string(),
        })?;
        let locked = Flock::lock(lock, FlockArg::LockExclusiveNonblock);
        let lock = locked.map_err(|_held| DataDirError::InUse(path.to_owned()))?;
        let keys = Arc::new(KeyFile::at(path.join("certs").join("node.json")));
        Ok(Self { path: path.to_owned(), keys, _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The worker's part of it.
    #[must_use]
    pub fn worker(&self) -> PathBuf {
        self.path.join("worker")
    }

    /// Who the node is, whether its keys open or not.
    pub fn identity(&self) -> Result<Option<Identity>, DiskError> {
        self.finish_adoption()?;
        disk::read_json(&self.identity_file())
    }

    /// Who the node is, if it is a member of a cluster.
    pub fn load(&self) -> Result<Option<(Identity, Credentials)>, DataDirError> {
        let identity = self.identity()?;
        if identity.is_none() {
            return Ok(None);
        }
        match (identity, self.keys.load()?) {
            (Some(identity), Some(credentials)) => {
                let owner = crate::pki::certificate_der(&credentials.certificate)
                    .and_then(|der| crate::pki::identity_of(&der))
                    .map_err(|e| self.mixed(e.to_string()))?;
                if owner.cluster == identity.cluster && owner.node == identity.node {
                    return Ok(Some((identity, credentials)));
                }
                Err(self.mixed(format!(
                    "its certificate is for node {} of cluster {}, its identity for node {} of \
                     cluster {}",
                    owner.node, owner.cluster, identity.node, identity.cluster
                )))
            }
            (None, _) => Ok(None),
            (Some(_), None) => Err(self.mixed("it has an identity but no certificate".to_owned())),
        }
    }

    fn mixed(&self, reason: String) -> DataDirError {
        DataDirError::Mixed { path: self.path.clone(), reason }
    }

    /// Records who the node is. The identity comes last: without it the rest counts as nothing.
    pub fn save(&self, identity: &Identity, credentials: &Credentials) -> Result<(), KeyFileError> {
        self.save_credentials(credentials)?;
        Ok(disk::write_json(&self.identity_file(), identity)?)
    }

    /// Records the keys of a node that is yet to be one.
    pub fn save_credentials(&self, credentials: &Credentials) -> Result<(), KeyFileError> {
        disk::private_dir(&self.path.join("certs"))?;
        self.keys.write(credentials)
    }

    /// Records a change of identity alone.
    pub fn save_identity(&self, identity: &Identity) -> Result<(), DiskError> {
        disk::write_json(&self.identity_file(), identity)
    }

    /// An empty folder for a log that is to take the place of the one that there is.
    pub fn pending(&self) -> Result<PathBuf, DiskError> {
        let pending = self.path.join(PENDING);
        disk::remove(&pending)?;
        disk::private_dir(&pending)?;
        Ok(pending)
    }

    /// Puts the pending log in the place of the one that there is, and the node goes by another
    /// identity. The old log is kept aside. From the first write on it is done, by the next start
    /// if not by this call.
    pub fn adopt(&self, identity: &Identity) -> Result<(), DiskError> {
        disk::write_json(&self.path.join(PENDING).join(IDENTITY), identity)?;
        self.finish_adoption()
    }

    fn finish_adoption(&self) -> Result<(), DiskError> {
        let pending = self.path.join(PENDING);
        let identity: Option<Identity> = disk::read_json(&pending.join(IDENTITY))?;
        let Some(identity) = identity else { return Ok(()) };
        let aside = self.path.join(BEFORE);
        disk::private_dir(&aside)?;
        for part in LOG_PARTS {
            if pending.join(part).exists() {
                // It is aside already if an earlier call came that far.
                if self.path.join(part).exists() {
                    disk::remove(&aside.join(part))?;
                    disk::rename(&self.path.join(part), &aside.join(part))?;
                }
                disk::rename(&pending.join(part), &self.path.join(part))?;
            }
        }
        self.save_identity(&identity)?;
        disk::remove(&pending)
    }

    /// Gives up a manager's log, damaged or gone: the node comes back as a worker, and is given the
    /// log of the other managers under another Raft id.
    pub fn give_up_log(&self, identity: &Identity) -> Result<(), DiskError> {
        let log_of = identity.raft_id.or(identity.log_of);
        self.save_identity(&Identity { raft_id: None, log_of, ..identity.clone() })?;
        self.remove_log()
    }

    /// Forgets what only a manager has: the log and its snapshots, with the CA's key in them.
    pub fn forget_raft(&self) -> Result<(), KeyFileError> {
        self.remove_log()?;
        self.keys.lock_with(None)?;
        self.keys.forget_disk_key()
    }

    fn remove_log(&self) -> Result<(), DiskError> {
        for part in LOG_PARTS.into_iter().chain([PENDING, BEFORE]) {
            disk::remove(&self.path.join(part))?;
        }
        Ok(())
    }

    /// Forgets the cluster: identity first, so that a crash half-way leaves no half member.
    pub fn forget(&self) -> Result<(), DiskError> {
        disk::remove(&self.identity_file())?;
        self.remove_log()?;
        self.keys.forget()?;
        for part in ["certs", "worker"] {
            disk::remove(&self.path.join(part))?;
        }
        Ok(())
    }

    /// The node's keys.
    #[must_use]
    pub fn keys(&self) -> &Arc<KeyFile> {
        &self.keys
    }

    /// Where who the node is is kept.
    #[must_use]
    pub fn identity_file(&self) -> PathBuf {
        self.path.join(IDENTITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("in use by another daemon"), "{error}");
        assert!(first.load().unwrap().is_none());
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }

    fn identity() -> Identity {
        Identity {
            cluster: ClusterId(1),
            node: NodeId(2),
            raft_id: Some(3),
            log_of: Some(3),
            advertise: IpAddr::from([192, 0, 2, 1]),
            data_path: IpAddr::from([192, 0, 2, 1]),
            listen: SocketAddr::from(([0, 0, 0, 0], 2377)),
            gossip_port: 7946,
            managers: Vec::new(),
            generation: 1,
            cluster_address: None,
            flags: AddressFlags::default(),
        }
    }

    /// Goal: a crash while one log takes the place of another loses neither.
    /// Method: each state that the disk can have in between, and the next start.
    #[test]
    fn a_log_that_was_put_aside_stays_there() {
        for renamed in 0..=2 * LOG_PARTS.len() {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::open(dir.path()).unwrap();
            let pending = data.pending().unwrap();
            std::fs::create_dir(dir.path().join(BEFORE)).unwrap();
            disk::write_json(&pending.join(IDENTITY), &identity()).unwrap();
            for (number, part) in LOG_PARTS.iter().enumerate() {
                for (folder, content) in [(dir.path(), "old"), (&pending, "new")] {
                    std::fs::create_dir(folder.join(part)).unwrap();
                    std::fs::write(folder.join(part).join("log"), content).unwrap();
                }
                let own = dir.path().join(part);
                if renamed > 2 * number {
                    std::fs::rename(&own, dir.path().join(BEFORE).join(part)).unwrap();
                }
                if renamed > 2 * number + 1 {
                    std::fs::rename(pending.join(part), &own).unwrap();
                }
            }
            assert_eq!(data.identity().unwrap(), Some(identity()));
            for part in LOG_PARTS {
                let read = |folder: &Path| std::fs::read_to_string(folder.join(part).join("log"));
                assert_eq!(read(dir.path()).unwrap(), "new", "{part} after {renamed} renames");
                let aside = read(&dir.path().join(BEFORE)).unwrap();
                assert_eq!(aside, "old", "{part} after {renamed} renames");
            }
            assert!(!pending.exists());
        }
    }

    #[test]
    fn the_lock_of_one_cluster_is_not_that_of_the_next() {
        use cluster::object::UnlockKey;
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let keys =
            || Credentials { ca: "CA".into(), certificate: "C".into(), key: "SECRET".into() };
        data.save(&identity(), &keys()).unwrap();
        data.keys().lock_with(Some(&UnlockKey([1; 32]))).unwrap();
        data.forget().unwrap();
        data.save(&identity(), &keys()).unwrap();
        // As the next process reads it.
        let again = KeyFile::at(dir.path().join("certs").join("node.json"));
        assert_eq!(again.load().unwrap().unwrap().key, "SECRET");
    }
}
