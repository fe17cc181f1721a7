//! The role of this node while it runs: a worker that is to be a manager opens its office, a
//! manager that is none any more closes it. The managers say so in the assignment, by the Raft id
//! that this node has there. Tasks, kernel and gossip do not notice.

use std::sync::Arc;
use std::time::Duration;

use cluster::assignment::Assignment;
use cluster::state::State;
use nix::sys::statvfs::statvfs;
use tokio::sync::watch;

use super::error::MemberError;
use super::office::{Broken, Office, Premises, listen};
use crate::causes::chain;
use crate::identity::{DataDir, Identity};
use crate::telemetry::Seldom;
use crate::transport::access::Membership;
use crate::worker::shell::WorkerHandle;

/// Pause after a disk was full, before it is looked at.
const ROOM_PAUSE: Duration = Duration::from_secs(10);
/// Pause after a change of role that failed, as when a port is taken.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A manager whose disk was full is one again when so much is free: the log in it can go on.
const ROOM_BYTES: u64 = 4 << 20;

/// What follows the role.
pub(super) struct Follower {
    pub(super) premises: Premises,
    pub(super) membership: Membership,
    /// As it is on disk.
    pub(super) identity: Identity,
    pub(super) office: watch::Sender<Option<Office>>,
    pub(super) worker: WorkerHandle,
    /// Why this manager has no office: its disk is full.
    pub(super) no_room: watch::Sender<Option<String>>,
}

/// What could not be done, and why.
struct Complaint {
    what: &'static str,
    reason: String,
}

fn complaint(what: &'static str) -> impl Fn(String) -> Complaint {
    move |reason| Complaint { what, reason }
}

/// Says that this manager is none until its disk has room.
pub(super) fn note_no_room(to: &watch::Sender<Option<String>>, data: &DataDir) {
    let path = data.path().display().to_string();
    let line = "the disk of this manager is full: it has no vote until there is room, its tasks \
                go on";
    tracing::error!(path, "{line}");
    to.send_replace(Some(format!("no space left for {path}")));
}

impl Follower {
    /// Runs until the member stops. Only an assignment that came from a manager counts: one from
    /// disk may be older than this node's place in Raft.
    pub(super) async fn run(mut self) {
        let mut told = self.worker.told.clone();
        let mut complaints = Seldom::default();
        loop {
            let newest = told.borrow_and_update().clone();
            if let Err(complaint) = self.follow(newest.as_deref()).await {
                let Complaint { what, reason } = complaint;
                if let Some(more) = complaints.say() {
                    tracing::error!(reason, more, "{what}");
                }
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
            let is_waiting = self.waits_for_room().is_some();
            tokio::select! {
                changed = told.changed() => if changed.is_err() { return },
                () = self.full() => {
                    self.close().await;
                    // A quota may leave no room where the disk has some.
                    tokio::time::sleep(ROOM_PAUSE).await;
                }
                () = tokio::time::sleep(RETRY_PAUSE), if is_waiting => {}
            }
        }
    }

    /// Does what the newest assignment asks for, and what the disk allows again.
    async fn follow(&mut self, newest: Option<&Assignment>) -> Result<(), Complaint> {
        if let Some(lost) = newest.and_then(|newest| lost(newest, &self.identity)) {
            let reseated = self.worker.reseat(lost).await;
            reseated.map_err(complaint("get the log of the managers again"))?;
            tracing::info!(lost, "the managers give this one the log again");
        }
        let wanted = newest.map(|assignment| wanted(assignment, self.identity.raft_id));
        let is_new = |wanted: &Option<u64>| {
            *wanted != self.identity.raft_id
                && (wanted.is_none() || *wanted != self.identity.log_of)
        };
        if let Some(wanted) = wanted.filter(is_new) {
            let turned = self.turn(wanted).await.map_err(|error| chain(&error));
            turned.map_err(complaint("change this node's role"))?;
        }
        if let Some(raft_id) = self.waits_for_room()
            && self.has_room()
        {
            let opened = self.take_office(raft_id).await.map_err(|error| chain(&error));
            opened.map_err(complaint("be a manager again, as the disk has room"))?;
        }
        Ok(())
    }

    /// The Raft id of a manager that has no office: its disk was full.
    fn waits_for_room(&self) -> Option<u64> {
        self.identity.raft_id.filter(|_| self.office.borrow().is_none())
    }

    fn has_room(&self) -> bool {
        let free = statvfs(self.premises.data.path());
        free.is_ok_and(|disk| disk.blocks_free() * disk.fragment_size() >= ROOM_BYTES)
    }

    /// Ends when the office could not write for want of room.
    async fn full(&self) {
        let office = self.office.borrow().clone();
        match office {
            Some(office) => match office.broken().await {
                Broken::NoRoom => {}
                Broken::ForGood(_) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// Gives up the office and nothing of what is on disk. The other managers go on, and this node
    /// with them.
    async fn close(&mut self) {
        if let Some(office) = self.office.send_replace(None) {
            office.close().await;
        }
        self.premises.publish.send_replace(Arc::<State>::default());
        note_no_room(&self.no_room, &self.premises.data);
    }

    /// Whatever fails is tried again from its beginning: each step may be done twice.
    async fn turn(&mut self, wanted: Option<u64>) -> Result<(), MemberError> {
        self.step_down().await?;
        match wanted {
            Some(raft_id) => self.take_office(raft_id).await,
            None => Ok(()),
        }
    }

    /// Closes the office and forgets its log, which has the CA's key in it. The identity comes
    /// first: a log that no identity names is removed when the daemon starts.
    async fn step_down(&mut self) -> Result<(), MemberError> {
        let office = self.office.send_replace(None);
        if let Some(office) = office {
            office.close().await;
            tracing::info!("this node is no manager any more");
        }
        self.no_room.send_replace(None);
        self.premises.publish.send_replace(Arc::<State>::default());
        let identity = Identity { raft_id: None, ..self.identity.clone() };
        self.premises.data.save_identity(&identity).map_err(MemberError::Disk)?;
        self.identity = identity;
        Ok(self.premises.data.forget_raft()?)
    }

    /// Nobody is answered, and so nothing acknowledged, before the identity is on disk.
    async fn take_office(&mut self, raft_id: u64) -> Result<(), MemberError> {
        let listener = listen(&self.identity).await?;
        let office = self.premises.open(&mut self.identity, raft_id).await?;
        self.premises.answer(&office, listener, self.membership.clone());
        self.office.send_replace(Some(office));
        self.no_room.send_replace(None);
        tracing::info!(raft_id, "this node becomes a manager");
        Ok(())
    }
}

/// The Raft id that the managers know this node by, if it has given up the log of that id: it must
/// not vote under it again.
fn lost(assignment: &Assignment, identity: &Identity) -> Option<u64> {
    let given_up = identity.log_of.filter(|_| identity.raft_id.is_none());
    given_up.filter(|id| assignment.raft_id == Some(*id))
}

/// The Raft id that this node is to have. A leader of a version before roles could change does not
/// tell the id of a manager: that one stays what it is.
fn wanted(assignment: &Assignment, own: Option<u64>) -> Option<u64> {
    assignment.raft_id.or(own.filter(|_| assignment.is_of_manager()))
}

#[test]
fn a_manager_stays_one_under_a_leader_that_tells_no_ids() {
    use cluster::id::NodeId;
    let state = crate::fixture::cluster();
    let assignment = |id| cluster::assignment_for(&state, NodeId(id)).expect("a member's");
    let (manager, worker) = (assignment(1), assignment(2));
    let older = Assignment { raft_id: None, ..manager.clone() };
    assert_eq!(wanted(&manager, Some(1)), Some(1));
    assert_eq!(wanted(&manager, Some(7)), Some(1), "demoted and promoted meanwhile");
    assert_eq!(wanted(&older, Some(7)), Some(7));
    assert_eq!(wanted(&worker, Some(7)), None);
    assert_eq!(wanted(&worker, None), None);
}
