//! Whom nodes trust: the cluster's CA, and the one that takes its place.

use serde::{Deserialize, Serialize};

use super::Cluster;
use crate::time::Timestamp;

/// Names a CA: SHA-256 of its certificate (DER), which join tokens carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CaDigest(pub [u8; 32]);

/// Who signed a node's certificate, and whom the node trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// The CA that signed, also where another one vouches for it.
    pub issuer: CaDigest,
    /// All CAs that are trusted, the newest one first.
    pub roots: Vec<CaDigest>,
}

/// A CA on its way to take the place of the cluster's. It signs from the start; a node that trusts
/// only the old one accepts it by `cross_signed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaRotation {
    /// The new CA's certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
    /// The same subject and key in a certificate that the old CA signed, PEM.
    pub cross_signed: String,
    /// The old CA.
    pub from: CaDigest,
    /// The new CA.
    pub to: CaDigest,
    /// Token that admits workers from the end of the rotation on.
    pub worker_token: String,
    /// The same for managers.
    pub manager_token: String,
    /// When it began: the leader's time.
    pub begun_at: Timestamp,
}

impl Cluster {
    /// Who is to sign nodes' certificates, and whom nodes are to trust; none while the CA is the
    /// one that the cluster was made with.
    #[must_use]
    pub fn trust(&self) -> Option<Trust> {
        let rotation = self.ca_rotation.as_ref();
        let moving = rotation.map(|new| Trust { issuer: new.to, roots: vec![new.to, new.from] });
        moving.or_else(|| self.ca.map(|ca| Trust { issuer: ca, roots: vec![ca] }))
    }

    /// The longest life that a certificate which is in use may have been signed for.
    #[must_use]
    pub fn longest_certificate_ms(&self) -> u64 {
        self.certificate_ms_max.max(self.spec.certificate_ms())
    }
}
