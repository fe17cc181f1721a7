//! What a restart needs, on disk: who the node is, the last assignment, its tasks' addresses.
//!
//! Files are replaced whole or not at all. What is written when, and again after a failure, is the
//! core's to say (`node/agent/src/disk.rs`).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent::{Files, OnDisk, WRITE_LIMIT};
use cluster::assign::Held;
use cluster::object::{first_schema, newest_schema};
use serde::Deserialize;

use crate::clock;
use crate::disk::{self, DiskError};
use crate::identity::{DataDir, Identity};
use crate::pki::digest_of;
use crate::telemetry::Seldom;

const ASSIGNMENT: &str = "assignment.json";

/// What a newer version of Skein left here.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} has schema {schema}, and this version of Skein reads up to schema {reads}: install the \
     version that ran here before",
    path.display()
)]
pub struct TooNew {
    path: PathBuf,
    schema: u32,
    reads: u32,
}

/// Refuses the last assignment of a newer version: it would be realised in part.
pub fn check_schema(data: &DataDir) -> Result<(), TooNew> {
    #[derive(Deserialize)]
    struct Written {
        #[serde(default = "first_schema")]
        schema: u32,
    }
    let (path, reads) = (data.worker().join(ASSIGNMENT), newest_schema());
    // One that is damaged or missing says nothing; it is told when it is read.
    match disk::read_json::<Written>(&path) {
        Ok(Some(Written { schema })) if schema > reads => Err(TooNew { path, schema, reads }),
        Ok(_) | Err(_) => Ok(()),
    }
}

pub(super) struct Kept {
    identity: Identity,
    identity_file: PathBuf,
    assignment_file: PathBuf,
    egress_file: PathBuf,
    has_failed: bool,
    is_closed: Arc<AtomicBool>,
    line: Seldom,
}

impl Kept {
    /// Once `is_closed` nothing is written: a node that leaves removes what is there.
    pub(super) fn new(data: &DataDir, identity: &Identity, is_closed: Arc<AtomicBool>) -> Self {
        let dir = data.worker();
        Self {
            identity: identity.clone(),
            identity_file: data.identity_file(),
            assignment_file: dir.join(ASSIGNMENT),
            egress_file: dir.join("egress.json"),
            has_failed: false,
            is_closed,
            line: Seldom::default(),
        }
    }

    /// What an earlier run left.
    pub(super) fn found(&self) -> OnDisk {
        let identity = disk::read_json::<Identity>(&self.identity_file).ok().flatten();
        let assignment = self.assignment().unwrap_or_else(|error| {
            tracing::error!("last assignment: {error:#}");
            None
        });
        let egress = disk::read_json(&self.egress_file).unwrap_or_else(|error| {
            tracing::error!(%error, "addresses of tasks; they are read from the kernel");
            None
        });
        OnDisk {
            has_identity: identity.as_ref() == Some(&self.identity),
            assignment,
            egress: egress.unwrap_or_default(),
        }
    }

    fn assignment(&self) -> anyhow::Result<Option<Arc<Held>>> {
        let Some(kept) = disk::read_json(&self.assignment_file)? else { return Ok(None) };
        Ok(Some(Arc::new(Held::restore(self.identity.node, kept, digest_of)?)))
    }

    /// Writes files; whether the disk has taken them.
    pub(super) fn write(&mut self, files: &Files) -> bool {
        let began = clock::monotonic();
        let written = self.try_write(files);
        let took = clock::monotonic().saturating_sub(began);
        if took >= WRITE_LIMIT
            && let Some(more) = self.line.say()
        {
            let what = "the data directory took long for a write: a restart in that time would \
                        have come back from older files";
            tracing::warn!(took_ms = took.as_millis(), more, "{what}");
        }
        match written {
            Ok(false) => false,
            Ok(true) => {
                if std::mem::take(&mut self.has_failed) {
                    tracing::info!(
                        "the data directory takes writes again; nothing is missing there"
                    );
                }
                true
            }
            Err(error) => {
                self.has_failed = true;
                if let Some(more) = self.line.say() {
                    let what = "a restart comes back from older files until there is room";
                    tracing::error!(%error, more, "{what}");
                }
                false
            }
        }
    }

    /// Whether all was written; not if it was closed before the end.
    fn try_write(&self, files: &Files) -> Result<bool, DiskError> {
        let is_closed = || self.is_closed.load(Ordering::Acquire);
        if files.identity && !is_closed() {
            disk::write_json(&self.identity_file, &self.identity)?;
        }
        if let Some(assignment) = files.assignment.as_ref().filter(|_| !is_closed()) {
            disk::write_json(&self.assignment_file, &assignment.kept())?;
        }
        if let Some(egress) = files.egress.as_ref().filter(|_| !is_closed()) {
            disk::write_json(&self.egress_file, egress)?;
        }
        Ok(!is_closed())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use cluster::id::{ClusterId, NodeId};

    use super::*;

    fn identity() -> Identity {
        let address: IpAddr = [192, 0, 2, 1].into();
        Identity {
            cluster: ClusterId(1),
            node: NodeId(1),
            raft_id: None,
            log_of: None,
            advertise: address,
            data_path: address,
            listen: (address, 2377).into(),
            gossip_port: 7946,
            managers: Vec::new(),
            generation: 1,
            cluster_address: None,
            flags: Default::default(),
        }
    }

    /// Goal: a write that begins after the worker has ended brings nothing back that a node which
    /// leaves has removed.
    #[test]
    fn after_the_end_nothing_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(directory.path()).unwrap();
        disk::private_dir(&data.worker()).unwrap();
        let files = Files { identity: true, egress: Some(Default::default()), ..Files::default() };
        let is_closed = Arc::new(AtomicBool::new(false));
        let mut kept = Kept::new(&data, &identity(), is_closed.clone());
        assert!(kept.write(&files));
        assert!(kept.found().has_identity);
        std::fs::remove_file(data.identity_file()).unwrap();
        is_closed.store(true, Ordering::Release);
        assert!(!kept.write(&files));
        assert!(!data.identity_file().exists());
    }
}
