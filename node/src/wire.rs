//! What nodes say to each other on the control lane: one codec, a version byte and JSON (specs
//! gain fields, which a positional format cannot follow).

use std::net::SocketAddr;

use bytes::Bytes;
use cluster::id::{ClusterId, NodeId};
use cluster::object::NodeDescription;
use cluster::spec::Role;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// First byte of every message.
const VERSION: u8 = 1;
/// The largest message that is decoded, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A message that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("message of {0} bytes is longer than the limit of {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    /// Made by another version.
    #[error("message of version {0:?}, this node speaks version {VERSION}")]
    Version(Option<u8>),
    /// Not what it should be.
    #[error("malformed message: {0}")]
    Malformed(String),
}

/// Encodes a message.
pub fn encode<T: Serialize>(message: &T) -> Result<Bytes, WireError> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, message).map_err(|e| WireError::Malformed(e.to_string()))?;
    Ok(bytes.into())
}

/// Decodes a message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLong(bytes.len()));
    }
    match bytes.split_first() {
        Some((&VERSION, body)) => {
            serde_json::from_slice(body).map_err(|e| WireError::Malformed(e.to_string()))
        }
        other => Err(WireError::Version(other.map(|(version, _)| *version))),
    }
}

/// `POST /join`: asks for a certificate with a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinCall {
    /// The whole token.
    pub token: String,
    /// Signing request, PEM.
    pub request: String,
    /// What it says of itself; its gossip and VTEP addresses are the ones that peers will use.
    pub description: NodeDescription,
    /// Cluster listener, used if the token is a manager's.
    pub cluster_address: SocketAddr,
    /// `active`, `pause` or `drain`.
    pub availability: cluster::spec::Availability,
}

/// Answer to [`JoinCall`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The cluster.
    pub cluster: ClusterId,
    /// The id that it has from now on.
    pub node: NodeId,
    /// Its Raft id, if it is a manager.
    pub raft_id: Option<u64>,
    /// Role that the token gives.
    pub role: Role,
    /// Certificates of the CAs that it is to trust, PEM.
    pub ca: String,
    /// The node's certificate, PEM; see `Credentials`.
    pub certificate: String,
    /// Where managers answer.
    pub managers: Vec<SocketAddr>,
    /// UDP port of VXLAN.
    pub data_path_port: u16,
}

/// `POST /session/renew`: asks for a new certificate of the key that the node has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewCall {
    /// Signing request, PEM.
    pub request: String,
}

/// Answer to [`RenewCall`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewAnswer {
    /// The node's certificate, PEM; see `Credentials`.
    pub certificate: String,
    /// Certificates of the CAs that it is to trust, PEM; none: as before.
    #[serde(default)]
    pub ca: Option<String>,
}

/// `POST /session/reseat`: the caller was a manager, and its log is gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReseatCall {
    /// The Raft id whose log it had.
    pub lost: u64,
}

/// Answer to [`ReseatCall`]. The new place comes with the assignment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReseatAnswer {
    /// Why there is none.
    pub refused: Option<String>,
}

/// Body of an answer with status 421: this manager does not lead.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NotLeader {
    /// Who does, as far as it knows.
    pub leader: Option<SocketAddr>,
}

/// Status of an answer whose body is [`NotLeader`] (RFC 9110: Misdirected Request).
pub const NOT_LEADER: u16 = 421;

/// Status of an answer that tells why nobody knows whether a request was or will be written (RFC
/// 9110: Gateway Timeout).
pub const OUTCOME_UNKNOWN: u16 = 504;

/// Status of an answer that the leader could not make (RFC 9110: Internal Server Error).
pub const NO_ANSWER: u16 = 500;

/// Status of an answer to a node whose version does not read what the cluster writes (RFC 9110:
/// Upgrade Required).
pub const TOO_OLD: u16 = 426;

/// Status of an answer to a node that was removed from the cluster (RFC 9110: Gone).
pub const NOT_A_MEMBER: u16 = 410;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_and_bad_versions() {
        let message = NotLeader { leader: None };
        let bytes = encode(&message).unwrap();
        assert_eq!(&bytes[..], b"\x01{\"leader\":null}");
        assert!(decode::<NotLeader>(&bytes).unwrap().leader.is_none());
        let error = decode::<NotLeader>(b"\x02{}").unwrap_err().to_string();
        assert_eq!(error, "message of version Some(2), this node speaks version 1");
        assert!(decode::<NotLeader>(b"").is_err());
    }
}
