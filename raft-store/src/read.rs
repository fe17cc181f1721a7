//! Linearizable reads on every manager (Raft dissertation, section 6.4: the read index).

use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};

use crate::error::ReadError;
use crate::network::{ReadIndex, Reply, Request};
use crate::node::RaftNode;
use crate::propose::leader_of;
use crate::status::Status;
use crate::types::Class;

/// While a leader is being elected a read asks again at least this often.
const RETRY_MS: u64 = 100;

/// Why a read has not passed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    NoLeader,
    NoQuorum,
    Behind(u64),
}

impl RaftNode {
    /// Returns when this node's machine has applied everything that any manager had acknowledged
    /// before the call. Reading the machine after that is linearizable.
    ///
    /// The leader makes sure of its majority by a round of heartbeats; a follower asks the leader.
    /// Fails after `read_ms_max`, and at once where the leader says that it has lost its majority.
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        let waited_ms = self.config().read_ms_max;
        let mut obstacle = Obstacle::NoLeader;
        let limit = Duration::from_millis(waited_ms);
        match tokio::time::timeout(limit, self.pass_barrier(&mut obstacle)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(match obstacle {
                Obstacle::NoLeader => ReadError::NoLeader { waited_ms },
                Obstacle::NoQuorum => ReadError::NoQuorum { waited_ms },
                Obstacle::Behind(needed) => {
                    let applied = self.status().last_applied;
                    ReadError::Behind { applied, needed, waited_ms }
                }
            }),
        }
    }

    async fn pass_barrier(&self, obstacle: &mut Obstacle) -> Result<(), ReadError> {
        let mut watch = self.watch();
        loop {
            let status = watch.borrow_and_update().clone();
            if let Some(reason) = status.stopped {
                return Err(ReadError::Stopped { reason });
            }
            match self.ask_leader(&status).await {
                Ok(index) => {
                    *obstacle = Obstacle::Behind(index);
                    return self.wait_applied(index).await;
                }
                // The leader itself has waited for its majority as long as its lease lasts.
                Err(Obstacle::NoQuorum) if status.is_leader => {
                    let waited_ms = self.config().election_ms_max;
                    return Err(ReadError::NoQuorum { waited_ms });
                }
                Err(why) => *obstacle = why,
            }
            // A closed or silent watch is as good a reason to look again as a changed one.
            let pause = Duration::from_millis(RETRY_MS);
            if let Ok(Err(_closed)) = tokio::time::timeout(pause, watch.changed()).await {
                return Err(ReadError::Stopped { reason: self.stop_reason() });
            }
        }
    }

    async fn ask_leader(&self, status: &Status) -> Result<u64, Obstacle> {
        let answer = if status.is_leader {
            self.read_index().await
        } else {
            let leader = status.leader.as_ref().ok_or(Obstacle::NoLeader)?;
            let limit = Duration::from_millis(self.config().read_ms_max);
            let mut watch = self.watch();
            let request = Request::ReadIndex;
            let call = self.network().call(leader.raft_id, Class::Control, request, limit);
            // A dead leader does not answer, and the next one is elected before the limit.
            let replaced = watch.wait_for(|now| now.leader != status.leader);
            let reply = tokio::select! {
                reply = call => reply,
                _ = replaced => return Err(Obstacle::NoLeader),
            };
            let Ok(Reply::ReadIndex(answer)) = reply else { return Err(Obstacle::NoQuorum) };
            answer
        };
        match answer {
            ReadIndex::At(index) => Ok(index),
            ReadIndex::NotLeader { .. } => Err(Obstacle::NoLeader),
            ReadIndex::NoQuorum => Err(Obstacle::NoQuorum),
        }
    }

    /// The read index, if this node is the leader and a majority confirms it now.
    pub(crate) async fn read_index(&self) -> ReadIndex {
        match self.raft().get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => ReadIndex::At(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                ReadIndex::NotLeader { leader: leader_of(self, &forward) }
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                ReadIndex::NoQuorum
            }
            Err(RaftError::Fatal(_)) => ReadIndex::NotLeader { leader: None },
        }
    }

    /// Returns when the machine has applied the entry; without a limit of its own.
    pub async fn wait_applied(&self, index: u64) -> Result<(), ReadError> {
        let mut watch = self.watch();
        let stopped = |reason| ReadError::Stopped { reason };
        let status = watch
            .wait_for(|status| status.last_applied >= index || status.stopped.is_some())
            .await
            .map_err(|_closed| stopped(self.stop_reason()))?;
        match &status.stopped {
            Some(reason) if status.last_applied < index => Err(stopped(reason.clone())),
            Some(_) | None => Ok(()),
        }
    }
}
