//! Leaving a cluster, so that the node may join again.

use std::time::Duration;

use api::ApiError;
use bytes::Bytes;
use cluster::object::NodeState;

use super::Daemon;
use crate::member::Member;
use crate::transport::Lane;

/// How long the managers may take to record that the node leaves.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// How long the others may take to take this manager out of Raft: its vote may be needed for it.
const RAFT_LIMIT: Duration = Duration::from_secs(3);

const LAST_MANAGER: &str = "You are attempting to leave the swarm on a node that is participating \
     as a manager. ";

impl Daemon {
    /// Leaves. Tasks of this node stop; what the cluster knew of it goes from this disk.
    pub async fn leave(&self, force: bool) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        if self.is_locked() {
            return Err(ApiError::locked());
        }
        let member = self.member.read().await.clone().ok_or_else(ApiError::not_member)?;
        if member.manager().is_some() && !force {
            return Err(ApiError::unavailable(manager_refusal(&member)));
        }
        // While it leads: once it has left the others listen to it only to take it out of Raft.
        member.hand_over().await;
        if let Err(reason) = announce(&member).await {
            if !force {
                return Err(ApiError::unavailable(format!(
                    "no manager recorded that this node leaves: {reason}; use --force to leave \
                     all the same"
                )));
            }
            tracing::warn!(%reason, "left by force");
        }
        member.wait_out_of_raft(RAFT_LIMIT).await;
        member.worker.stop_tasks().await;
        member.worker.tear_down().await;
        *self.member.write().await = None;
        member.leave().await;
        forget_tasks(&member).await;
        let run_dir = self.config.run_dir.clone();
        let _ = tokio::task::spawn_blocking(move || crate::spaces::clear(&run_dir)).await;
        self.begun.send_replace(());
        self.states.send_replace(std::sync::Arc::default());
        self.data.forget().map_err(|e| ApiError::internal(e.to_string()))
    }
}

/// Nobody will ask how this node's tasks ended.
async fn forget_tasks(member: &Member) {
    let (supervisors, executor) = (&member.worker.supervisors, &member.worker.executor);
    let sandboxes = supervisors.adopt_all().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "find ended tasks");
        Vec::new()
    });
    for sandbox in sandboxes {
        let forgotten = executor.forget(&sandbox).await;
        let released = match forgotten {
            Ok(()) => sandbox.release().await,
            refused => refused,
        };
        if let Err(error) = released {
            tracing::warn!(task = sandbox.task(), %error, "forget a task");
        }
    }
}

fn manager_refusal(member: &Member) -> String {
    let managers = member.manager().map_or(0, |manager| {
        manager.newest().nodes.values().filter(|node| node.manager.is_some()).count()
    });
    let consequence = if managers <= 1 {
        "Removing the last manager erases all current state of the swarm. Use `--force` to \
         ignore this message. "
            .to_owned()
    } else {
        format!(
            "Removing this node leaves {} managers out of {managers}. Without a Raft quorum your \
             swarm will be inaccessible. The only way to restore a swarm that has lost consensus \
             is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this \
             message. ",
            managers - 1
        )
    };
    format!("{LAST_MANAGER}{consequence}").trim_end().to_owned()
}

/// Has the leader record it. A manager asks through its own Raft group, a worker any manager.
async fn announce(member: &Member) -> Result<(), String> {
    let node = member.identity.node;
    if let Some(manager) = member.manager() {
        let alone = {
            let state = manager.newest();
            let up = state.nodes.values().filter(|n| n.status.state != NodeState::Disconnected);
            up.filter(|n| n.manager.is_some()).count() <= 1
        };
        if alone {
            return Ok(());
        }
        let request = cluster::request::Request::LeaveNode { id: node };
        return manager.request(request).await.map(|_done| ()).map_err(|r| r.message);
    }
    let assignment = member.worker.assignment.borrow().clone();
    let known = assignment.iter().flat_map(|a| a.nodes.values()).filter_map(|n| n.manager);
    let mut last = "no manager is known".to_owned();
    for address in known.chain(member.identity.managers.iter().copied()) {
        let call =
            member.net.call(address, Lane::Control, "/session/leave", Bytes::new(), LEAVE_LIMIT);
        match call.await {
            Ok(_done) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}
