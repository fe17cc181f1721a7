//! Writing to the log.

use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;

use crate::error::ProposeError;
use crate::node::RaftNode;
use crate::types::{LeaderId, Payload, Peer, TypeConfig};

/// A payload of more bytes is refused; it has to fit into one message with room to spare.
pub const PAYLOAD_BYTES_MAX: usize = 8 << 20;

type Outcome = openraft::alias::OneshotReceiverOf<TypeConfig, ClientWriteResult<TypeConfig>>;

/// A payload that a majority has on disk and that the machine of this node has applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub index: u64,
    pub term: u64,
    /// What [`crate::Machine::apply`] returned.
    pub response: Vec<u8>,
}

/// A payload in the leader's queue. Dropping it does not take the payload back.
#[derive(Debug)]
#[must_use = "the outcome tells whether the payload was applied"]
pub struct Proposal {
    outcome: Outcome,
    node: RaftNode,
}

impl RaftNode {
    /// Writes a payload and waits until it is applied here.
    ///
    /// Fails at once where this node is not the leader or the leader has lost its majority, and
    /// with [`ProposeError::OutcomeUnknown`] after `propose_ms_max`.
    pub async fn propose(&self, payload: Vec<u8>) -> Result<Applied, ProposeError> {
        self.submit(payload, None).await?.outcome().await
    }

    /// Puts a payload into the queue and returns without waiting for its outcome.
    ///
    /// Payloads whose `submit` returned one after the other are applied in that order. With
    /// `term`, nothing is written unless this node is the leader of that term when the payload
    /// comes to the front: a payload that was decided on the state of one leadership must not be
    /// written in a later one.
    pub async fn submit(
        &self,
        payload: Vec<u8>,
        term: Option<u64>,
    ) -> Result<Proposal, ProposeError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            let bytes = payload.len();
            return Err(ProposeError::TooLarge { bytes, max: PAYLOAD_BYTES_MAX });
        }
        let (responder, outcome) = ProgressResponder::complete_only();
        let mut write = self.raft().write(Payload(Bytes::from(payload))).responder(responder);
        if let Some(term) = term {
            write = write.with_leader(LeaderId { term, node_id: self.raft_id() });
        }
        write.await.map_err(|fatal| ProposeError::Stopped { reason: fatal.to_string() })?;
        Ok(Proposal { outcome, node: self.clone() })
    }
}

impl Proposal {
    /// Waits until the payload is applied, refused, or `propose_ms_max` has passed.
    pub async fn outcome(self) -> Result<Applied, ProposeError> {
        let Self { outcome, node } = self;
        let limit_ms = node.config().propose_ms_max;
        let result = match tokio::time::timeout(Duration::from_millis(limit_ms), outcome).await {
            Ok(Ok(result)) => result,
            Ok(Err(_dropped)) => return Err(ProposeError::Stopped { reason: node.stop_reason() }),
            Err(_elapsed) => {
                return Err(ProposeError::OutcomeUnknown {
                    reason: format!("no majority of managers confirmed within {limit_ms} ms"),
                });
            }
        };
        match result {
            Ok(written) => Ok(Applied {
                index: written.log_id.index,
                term: written.log_id.leader_id.term,
                response: written.data,
            }),
            Err(ClientWriteError::ForwardToLeader(forward)) => Err(refused(&node, &forward)),
            Err(ClientWriteError::LogEntryDiscarded(_)) => Err(ProposeError::OutcomeUnknown {
                reason: "another manager became the leader".to_owned(),
            }),
            Err(
                error @ (ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_)),
            ) => Err(ProposeError::OutcomeUnknown { reason: error.to_string() }),
        }
    }
}

fn refused(node: &RaftNode, forward: &ForwardToLeader<TypeConfig>) -> ProposeError {
    match forward.reason {
        ForwardReason::LeaseExpired => ProposeError::NoQuorum,
        ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
            ProposeError::NotLeader { leader: leader_of(node, forward) }
        }
    }
}

/// The leader that openraft names, unless that is this node itself or one that has gone silent.
pub(crate) fn leader_of(node: &RaftNode, forward: &ForwardToLeader<TypeConfig>) -> Option<Peer> {
    let named = forward.leader_id.zip(forward.leader_node.as_ref());
    let named = named.map(|(raft_id, member)| Peer { raft_id, address: member.address.clone() });
    let heard = node.status().leader;
    match forward.reason {
        ForwardReason::LeadershipTransfer => named,
        ForwardReason::NotLeader | ForwardReason::LeaseExpired => {
            named.filter(|_| heard.is_some()).filter(|peer| peer.raft_id != node.raft_id())
        }
    }
}
