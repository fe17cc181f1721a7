//! Raft's calls over the cluster's transport: heartbeats and votes have their own connection.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use raft_store::{Class, Peer, Transport, TransportError};

use crate::transport::{CallError, Lane, Net};

/// Raft times its calls itself; this only bounds a call to a peer that hangs.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// See the module.
pub struct RaftTransport(pub Net);

#[async_trait]
impl Transport for RaftTransport {
    async fn call(&self, peer: &Peer, class: Class, body: Bytes) -> Result<Bytes, TransportError> {
        let address: SocketAddr = peer
            .address
            .parse()
            .map_err(|_not_an_address| unreachable(peer, "it is no address and port"))?;
        let path = format!("/raft/{}", class.name());
        let called = self.0.call(address, lane_of(class), &path, body, CALL_LIMIT).await;
        called.map_err(|error| match error {
            CallError::Connect { reason, .. } => unreachable(peer, &reason),
            other @ (CallError::Broken { .. } | CallError::Refused { .. }) => {
                TransportError::Failed { address: peer.address.clone(), reason: other.to_string() }
            }
        })
    }
}

fn unreachable(peer: &Peer, reason: &str) -> TransportError {
    TransportError::Unreachable { address: peer.address.clone(), reason: reason.to_owned() }
}

fn lane_of(class: Class) -> Lane {
    match class {
        Class::Heartbeat | Class::Vote => Lane::Pulse,
        Class::Append => Lane::Append,
        Class::Snapshot => Lane::Bulk,
        Class::Control => Lane::Control,
    }
}
