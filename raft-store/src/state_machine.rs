//! Feeds committed entries to the caller's machine and makes and installs its snapshots.
//!
//! The machine lives in memory. On disk are its snapshots and the log; `RaftNode::open` restores
//! the newest good snapshot and openraft applies the committed rest of the log again.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use crate::snapshot::{SNAPSHOT_BYTES_MAX, SnapshotFolder};
use crate::types::{LogId, Machine, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

pub(crate) struct StateMachine {
    machine: Box<dyn Machine>,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: Arc<SnapshotFolder>,
}

impl StateMachine {
    pub(crate) fn new(machine: Box<dyn Machine>, snapshots: Arc<SnapshotFolder>) -> Self {
        Self { machine, applied: None, membership: StoredMembership::default(), snapshots }
    }

    fn builder(&self) -> Builder {
        Builder {
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            body: Bytes::from(self.machine.snapshot()),
            snapshots: self.snapshots.clone(),
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let index = entry.log_id.index;
            let response = match entry.payload {
                EntryPayload::Blank => self.machine.apply(index, &[]),
                EntryPayload::Normal(payload) => self.machine.apply(index, &payload.0),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    self.machine.apply(index, &[])
                }
            };
            self.applied = Some(entry.log_id);
            if let Some(responder) = responder {
                responder.send(response);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let builder = self.builder();
        // A snapshot that cannot be sent or read back is worth less than a long log.
        if builder.body.len() > SNAPSHOT_BYTES_MAX && !force {
            tracing::error!(
                bytes = builder.body.len(),
                max = SNAPSHOT_BYTES_MAX,
                "the state is too large for a snapshot; the log is kept instead"
            );
            return None;
        }
        Some(builder)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, body: Bytes) -> io::Result<()> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let saved = self.snapshots.save(meta.clone(), body.clone()).await?;
        self.machine.restore(index, &body).map_err(|reason| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("restoring the state from snapshot {}: {reason}", saved.display()),
            )
        })?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.snapshots.newest_good().await
    }
}

/// A snapshot's bytes, taken while no entry was applied; writing them may take its time.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    body: Bytes,
    snapshots: Arc<SnapshotFolder>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        self.snapshots.save(self.meta.clone(), self.body.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: self.body.clone() })
    }
}
