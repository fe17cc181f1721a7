//! Feeds committed entries to the caller's machine and makes and installs its snapshots.
//!
//! The machine lives in memory. On disk are its snapshots and the log; `RaftNode::open` restores
//! the newest good snapshot and openraft applies the committed rest of the log again.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, Raft, RaftSnapshotBuilder};

use crate::snapshot::{Snapshot, SnapshotFile, SnapshotFolder};
use crate::types::{LogId, Machine, SnapshotContent, SnapshotMeta, StoredMembership, TypeConfig};

pub(crate) type OpenRaft = Raft<TypeConfig, StateMachine>;

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
            content: Some(self.machine.snapshot()),
            snapshots: self.snapshots.clone(),
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
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
            let applied = match &entry.payload {
                EntryPayload::Blank | EntryPayload::Membership(_) => self.machine.apply(index, &[]),
                EntryPayload::Normal(payload) => self.machine.apply(index, &payload.0),
            };
            let response = applied.map_err(|reason| {
                io::Error::new(io::ErrorKind::InvalidData, format!("entry {index}: {reason}"))
            })?;
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            self.applied = Some(entry.log_id);
            if let Some(responder) = responder {
                responder.send(response);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        Some(self.builder())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder()
    }

    /// The state comes first: a snapshot that the machine refuses gets no name.
    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> io::Result<()> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        self.machine.restore(index, &mut snapshot.reader()?).map_err(|reason| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("restoring the state from {}: {reason}", snapshot.path().display()),
            )
        })?;
        self.snapshots.place(meta, snapshot)?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.snapshots.newest_good().await
    }
}

/// The state as it was at one entry; it is written while others are applied.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    content: Option<SnapshotContent>,
    snapshots: Arc<SnapshotFolder>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let content = self.content.take();
        let content = content.ok_or_else(|| io::Error::other("the snapshot is written"))?;
        let snapshot = self.snapshots.save(self.meta.clone(), content).await.map_err(|e| {
            io::Error::new(e.kind(), format!("writing a snapshot of the state: {e}"))
        })?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot })
    }
}
