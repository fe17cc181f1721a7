//! The role of this node while it runs: a worker that is to be a manager opens its office, a
//! manager that is none any more closes it. The managers say so in the assignment, by the Raft id
//! that this node has there. Tasks, kernel and gossip do not notice.

use std::sync::Arc;
use std::time::Duration;

use cluster::assignment::Assignment;
use cluster::state::State;
use tokio::sync::watch;

use super::MemberError;
use super::office::{Office, Premises, listen};
use crate::daemon::chain;
use crate::identity::Identity;
use crate::telemetry::Seldom;
use crate::transport::access::Membership;
use crate::worker::shell::WorkerHandle;

/// Pause after a change of role that failed, as when a port is taken.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What follows the role.
pub(super) struct Follower {
    pub(super) premises: Premises,
    pub(super) membership: Membership,
    /// As it is on disk.
    pub(super) identity: Identity,
    pub(super) office: watch::Sender<Option<Office>>,
    pub(super) worker: WorkerHandle,
}

impl Follower {
    /// Asks for another place in Raft; it comes with an assignment.
    async fn reseat(&self, lost: u64) -> Result<(), String> {
        self.worker.reseat(lost).await?;
        tracing::info!(lost, "the managers give this one the log again");
        Ok(())
    }

    /// Runs until the member stops. Only an assignment that came from a manager counts: one from
    /// disk may be older than this node's place in Raft.
    pub(super) async fn run(mut self) {
        let mut told = self.worker.told.clone();
        let mut complaints = Seldom::default();
        loop {
            let newest = told.borrow_and_update().clone();
            if let Some(lost) = newest.as_ref().and_then(|newest| lost(newest, &self.identity))
                && let Err(reason) = self.reseat(lost).await
            {
                if let Some(more) = complaints.say() {
                    tracing::error!(reason, more, "get the log of the managers again");
                }
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
            let wanted = newest.map(|assignment| wanted(&assignment, self.identity.raft_id));
            let is_new = |wanted: &Option<u64>| {
                *wanted != self.identity.raft_id
                    && (wanted.is_none() || *wanted != self.identity.log_of)
            };
            if let Some(wanted) = wanted.filter(is_new) {
                if let Err(error) = self.turn(wanted).await {
                    let reason = chain(&error);
                    if let Some(more) = complaints.say() {
                        tracing::error!(reason, more, "change this node's role");
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                continue;
            }
            if told.changed().await.is_err() {
                return;
            }
        }
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
    let state = crate::dispatcher::tests::cluster();
    let assignment = |id| cluster::assignment_for(&state, NodeId(id)).expect("a member's");
    let (manager, worker) = (assignment(1), assignment(2));
    let older = Assignment { raft_id: None, ..manager.clone() };
    assert_eq!(wanted(&manager, Some(1)), Some(1));
    assert_eq!(wanted(&manager, Some(7)), Some(1), "demoted and promoted meanwhile");
    assert_eq!(wanted(&older, Some(7)), Some(7));
    assert_eq!(wanted(&worker, Some(7)), None);
    assert_eq!(wanted(&worker, None), None);
}
