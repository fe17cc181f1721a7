//! Adding and removing managers, and handing over leadership.
//!
//! A new member is a learner until it has the log, so a slow or unreachable one never counts
//! towards a majority. Changes use joint consensus and are made one after the other. Other changes
//! may be made while a learner receives the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};

use crate::error::MemberError;
use crate::node::RaftNode;
use crate::propose::leader_of;
use crate::status::{self, Metrics};
use crate::types::{Member, Peer, TypeConfig};

type Change = ChangeMembers<u64, Member>;
type WriteError = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

/// Entries that a learner may still lack when it becomes a voter.
const LAG_MAX: u64 = 64;

impl RaftNode {
    /// Makes a node a voter; on the leader only. Doing it again changes nothing, and with another
    /// address it changes the address.
    ///
    /// The node must be open and reachable, with an empty log or as a former member's own one. It
    /// receives the log first; if that takes longer than `catch_up_ms_max` it is dropped again.
    pub async fn add_member(&self, peer: Peer) -> Result<(), MemberError> {
        if self.add_learner(&peer).await? {
            return Ok(());
        }
        let caught_up = self.catch_up(&peer).await;
        let _alone = self.change().lock().await;
        let ids = BTreeSet::from([peer.raft_id]);
        if let Err(error) = caught_up {
            if matches!(error, MemberError::Dropped { .. }) {
                return Err(error);
            }
            if let Err(e) = self.commit(ChangeMembers::RemoveNodes(ids)).await {
                tracing::warn!(raft_id = peer.raft_id, error = %e, "dropping a learner failed");
            }
            return Err(error);
        }
        let metrics = self.settle().await?;
        if !is_listed(&metrics, peer.raft_id) {
            return Err(MemberError::Dropped { raft_id: peer.raft_id });
        }
        self.commit(ChangeMembers::AddVoterIds(ids)).await
    }

    /// Makes a node at least a learner, at this address; whether it is a voter already.
    async fn add_learner(&self, peer: &Peer) -> Result<bool, MemberError> {
        let _alone = self.change().lock().await;
        let metrics = self.settle().await?;
        let members = metrics.membership_config.membership();
        let member = Member { address: peer.address.clone() };
        let known = members.get_node(&peer.raft_id).cloned();
        let is_voter = members.voter_ids().any(|id| id == peer.raft_id);
        let nodes = BTreeMap::from([(peer.raft_id, member.clone())]);
        match known {
            Some(old) if old == member => {}
            Some(_) => self.commit(ChangeMembers::SetNodes(nodes)).await?,
            None => self.commit(ChangeMembers::AddNodes(nodes)).await?,
        }
        // From here on its absence says that it was taken out.
        let listed = |m: &Metrics| is_listed(m, peer.raft_id) || m.current_leader != Some(m.id);
        self.wait(self.config().change_ms_max, listed).await?;
        Ok(is_voter)
    }

    /// Takes a node out of the cluster; on the leader only. Removing one that is not in it changes
    /// nothing.
    ///
    /// A leader may remove itself: it hands over once that is committed. The removed node's
    /// directory must not be used for this cluster again under the same id if it is emptied.
    pub async fn remove_member(&self, raft_id: u64) -> Result<(), MemberError> {
        let _alone = self.change().lock().await;
        let metrics = self.settle().await?;
        let members = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = members.voter_ids().collect();
        let ids = BTreeSet::from([raft_id]);
        if voters == ids {
            return Err(MemberError::LastVoter);
        }
        if voters.contains(&raft_id) {
            self.commit(ChangeMembers::RemoveVoters(ids)).await
        } else if members.get_node(&raft_id).is_some() {
            self.commit(ChangeMembers::RemoveNodes(ids)).await
        } else {
            Ok(())
        }
    }

    /// Hands leadership to another voter and returns when this node knows it as the leader.
    pub async fn transfer_leadership(&self, to: u64) -> Result<(), MemberError> {
        let metrics = self.settle().await?;
        if !metrics.membership_config.voter_ids().any(|id| id == to) {
            return Err(MemberError::Unknown { raft_id: to });
        }
        if to == self.raft_id() {
            return Ok(());
        }
        let stopped = |e: &dyn std::fmt::Display| MemberError::Stopped { reason: e.to_string() };
        self.raft().trigger().transfer_leader(to).await.map_err(|e| stopped(&e))?;
        self.wait(self.config().change_ms_max, |m| m.current_leader == Some(to)).await.map(drop)
    }

    /// Waits until this node is a leader on which members can be changed: an entry of its own term
    /// is committed, and so is the last change of members.
    async fn settle(&self) -> Result<Metrics, MemberError> {
        let own = self.raft_id();
        let metrics = self
            .wait(self.config().change_ms_max, |m| {
                let settled =
                    m.membership_config.log_id() == m.committed_membership_config.log_id();
                let ready = status::is_ready(m);
                m.current_leader != Some(own) || (ready && settled)
            })
            .await?;
        if metrics.current_leader != Some(own) {
            return Err(MemberError::NotLeader { leader: self.status().leader });
        }
        if metrics.membership_config.get_joint_config().len() < 2 {
            return Ok(metrics);
        }
        // An earlier leader stopped between the two halves of a change: finish it.
        self.commit(ChangeMembers::AddVoterIds(BTreeSet::new())).await?;
        self.wait(self.config().change_ms_max, |m| {
            m.membership_config.get_joint_config().len() < 2
                && m.membership_config.log_id() == m.committed_membership_config.log_id()
        })
        .await
    }

    /// Waits until the learner has nearly all of the log, or was removed.
    async fn catch_up(&self, peer: &Peer) -> Result<(), MemberError> {
        let waited_ms = self.config().catch_up_ms_max;
        let own = self.raft_id();
        let metrics = self
            .wait(waited_ms, |m| {
                let matched = m.replication.as_ref().and_then(|all| all.get(&peer.raft_id));
                let matched = matched.and_then(|log_id| log_id.as_ref()).map(|id| id.index);
                let needed = m.last_log_index.unwrap_or(0).saturating_sub(LAG_MAX);
                let is_gone = !is_listed(m, peer.raft_id);
                let is_level = matched.is_some_and(|index| index >= needed);
                m.current_leader != Some(own) || is_gone || is_level
            })
            .await
            .map_err(|error| match error {
                MemberError::NoQuorum { waited_ms } => {
                    MemberError::CatchUp { address: peer.address.clone(), waited_ms }
                }
                other => other,
            })?;
        if metrics.current_leader != Some(own) {
            return Err(MemberError::NotLeader { leader: self.status().leader });
        }
        if !is_listed(&metrics, peer.raft_id) {
            return Err(MemberError::Dropped { raft_id: peer.raft_id });
        }
        Ok(())
    }

    /// Proposes one change and waits until it is committed. Removed voters do not stay as learners.
    async fn commit(&self, change: Change) -> Result<(), MemberError> {
        let waited_ms = self.config().change_ms_max;
        let limit = Duration::from_millis(waited_ms);
        match tokio::time::timeout(limit, self.raft().change_membership(change, false)).await {
            Ok(Ok(_written)) => Ok(()),
            Ok(Err(error)) => Err(self.member_error(error)),
            Err(_elapsed) => Err(MemberError::NoQuorum { waited_ms }),
        }
    }

    async fn wait(
        &self,
        limit_ms: u64,
        condition: impl Fn(&Metrics) -> bool + Send,
    ) -> Result<Metrics, MemberError> {
        let wait = self.raft().wait(Some(Duration::from_millis(limit_ms)));
        wait.metrics(condition, "a change of members").await.map_err(|error| match error {
            openraft::metrics::WaitError::Timeout(_, _) => {
                MemberError::NoQuorum { waited_ms: limit_ms }
            }
            openraft::metrics::WaitError::ShuttingDown => {
                MemberError::Stopped { reason: self.stop_reason() }
            }
        })
    }

    fn member_error(&self, error: WriteError) -> MemberError {
        match error {
            RaftError::Fatal(fatal) => MemberError::Stopped { reason: fatal.to_string() },
            RaftError::APIError(
                ClientWriteError::ForwardToLeader(forward)
                | ClientWriteError::LogEntryDiscarded(forward),
            ) => MemberError::NotLeader { leader: leader_of(self, &forward) },
            RaftError::APIError(ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::EmptyMembership(_),
            )) => MemberError::LastVoter,
            RaftError::APIError(
                refused @ (ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_)),
            ) => MemberError::Refused { reason: refused.to_string() },
        }
    }
}

fn is_listed(metrics: &Metrics, raft_id: u64) -> bool {
    metrics.membership_config.membership().get_node(&raft_id).is_some()
}
