//! What a restart needs, on disk: who the node is, the last assignment, its tasks' addresses.
//!
//! A disk that takes nothing stops nothing. Files are replaced whole or not at all, tasks and the
//! data path go on with what is in memory, the log says so, and it is tried again until the disk
//! has it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::assignment::Assignment;
use cluster::id::TaskId;
use cluster::object::{first_schema, newest_schema};
use serde::Deserialize;

use crate::disk::{self, DiskError};
use crate::identity::{DataDir, Identity};
use crate::telemetry::Seldom;

/// From a write that failed to the next.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

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
    identity_file: PathBuf,
    assignment_file: PathBuf,
    egress_file: PathBuf,
    /// To be written yet.
    identity: Option<Identity>,
    /// As on disk.
    assignment: Option<Arc<Assignment>>,
    /// As on disk.
    egress: BTreeMap<TaskId, IpAddr>,
    retry_at: Option<Duration>,
    line: Seldom,
}

impl Kept {
    pub(super) fn new(data: &DataDir, identity: &Identity) -> Self {
        let (dir, identity_file) = (data.worker(), data.identity_file());
        let on_disk = disk::read_json::<Identity>(&identity_file).ok().flatten();
        Self {
            identity: (on_disk.as_ref() != Some(identity)).then(|| identity.clone()),
            identity_file,
            assignment_file: dir.join(ASSIGNMENT),
            egress_file: dir.join("egress.json"),
            assignment: None,
            egress: BTreeMap::new(),
            retry_at: None,
            line: Seldom::default(),
        }
    }

    /// The assignment that was in force last.
    pub(super) fn assignment(&mut self) -> Option<Arc<Assignment>> {
        match disk::read_json(&self.assignment_file) {
            Ok(assignment) => self.assignment = assignment.map(Arc::new),
            Err(error) => tracing::error!(%error, "last assignment"),
        }
        self.assignment.clone()
    }

    /// The tasks' addresses that were in use last.
    pub(super) fn egress(&mut self) -> BTreeMap<TaskId, IpAddr> {
        match disk::read_json(&self.egress_file) {
            Ok(addresses) => self.egress = addresses.unwrap_or_default(),
            Err(error) => {
                tracing::error!(%error, "addresses of tasks; they are read from the kernel")
            }
        }
        self.egress.clone()
    }

    /// Writes what is not on disk yet.
    pub(super) fn save(
        &mut self,
        assignment: Option<&Arc<Assignment>>,
        egress: BTreeMap<TaskId, IpAddr>,
        now: Duration,
    ) {
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        match self.write(assignment, egress) {
            Ok(()) => {
                if self.retry_at.take().is_some() {
                    tracing::info!(
                        "the data directory takes writes again; nothing is missing there"
                    );
                }
            }
            Err(error) => {
                self.retry_at = Some(now + RETRY_PAUSE);
                if let Some(more) = self.line.say() {
                    let what = "a restart comes back from older files until there is room";
                    tracing::error!(%error, more, "{what}");
                }
            }
        }
    }

    fn write(
        &mut self,
        assignment: Option<&Arc<Assignment>>,
        egress: BTreeMap<TaskId, IpAddr>,
    ) -> Result<(), DiskError> {
        if let Some(identity) = &self.identity {
            disk::write_json(&self.identity_file, identity)?;
            self.identity = None;
        }
        if let Some(newest) = assignment
            && self.assignment.as_ref().is_none_or(|kept| !Arc::ptr_eq(kept, newest))
        {
            disk::write_json(&self.assignment_file, newest)?;
            self.assignment = Some(newest.clone());
        }
        if egress != self.egress {
            disk::write_json(&self.egress_file, &egress)?;
            self.egress = egress;
        }
        Ok(())
    }
}
