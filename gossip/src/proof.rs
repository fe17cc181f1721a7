//! Who wrote it: a node signs its rows, its runs and its restarts with a key of its own.
//!
//! The key of gossip is everybody's: it says that a member sealed a datagram, and not which one.
//! What a member says of another node therefore counts only with that node's signature, Ed25519
//! (RFC 8032): it is deterministic, so that a core can sign, and of ring's it verifies the fastest.
//! A proof is made once for each change and verified once by each receiver, and only of what is
//! news to it. What is signed begins with the cluster, the node and the kind of statement, so that
//! no proof serves another cluster, another node or another purpose.

use std::fmt;
use std::sync::Arc;

use cluster::id::{ClusterId, NodeId};
use cluster::object::ProofKey;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec;
use crate::row::{Record, Version};

/// The last generation that there is. Generations count the starts of a node's daemon, so no node
/// comes to it. Who has a node's key can write rows of this one, which the node cannot outrun: it
/// says so, and has to leave and join again with another key.
pub const GENERATION_MAX: u64 = 1 << 40;

/// A signature, in two halves because arrays have no default beyond that length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Proof([[u8; 32]; 2]);

impl Serialize for Proof {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_flattened())
    }
}

impl<'de> Deserialize<'de> for Proof {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(ProofVisitor)
    }
}

struct ProofVisitor;

impl Visitor<'_> for ProofVisitor {
    type Value = Proof;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the 64 bytes of a signature")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Proof, E> {
        let mut proof = Proof::default();
        if bytes.len() != proof.0.as_flattened().len() {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        proof.0.as_flattened_mut().copy_from_slice(bytes);
        Ok(proof)
    }
}

/// The private key by which a node proves that it wrote something.
#[derive(Clone)]
pub struct ProofSecret(Arc<Ed25519KeyPair>);

/// Bytes that are no private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library refuses the key that signs gossip")]
pub struct ProofSecretRefused;

impl ProofSecret {
    /// The key of a seed (RFC 8032, section 5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, ProofSecretRefused> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        Ok(Self(Arc::new(pair.map_err(|_rejected| ProofSecretRefused)?)))
    }

    /// What others verify proofs with.
    #[must_use]
    pub fn key(&self) -> ProofKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        ProofKey(key)
    }
}

impl fmt::Debug for ProofSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProofSecret of {:?}", self.key())
    }
}

/// What is proven. Only grows: the position of a variant is part of what is signed.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum Statement<'a> {
    /// A row of the signer.
    Row(Version, &'a Record),
    /// The signer runs as (generation, renewals).
    Run(u64, u32),
    /// The signer's run of that generation ends, and another one comes at once.
    Restart(u64),
}

/// A node that proves what it says.
#[derive(Debug, Clone)]
pub(crate) struct Author {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) secret: ProofSecret,
}

impl Author {
    pub(crate) fn prove(&self, statement: Statement<'_>) -> Proof {
        let Some(message) = codec::statement(self.cluster, self.node, statement) else {
            // Rows and runs are never too long to encode; an empty proof is refused as forged.
            return Proof::default();
        };
        let signature = self.secret.0.sign(&message);
        let mut proof = Proof::default();
        let (low, high) = signature.as_ref().split_at(32);
        proof.0[0].copy_from_slice(low);
        proof.0[1].copy_from_slice(high);
        proof
    }
}

/// How it is found out whether the holder of a key has signed a message.
pub type Verify = fn(&ProofKey, &[u8], &Proof) -> bool;

/// Verifies the signature. A simulation of many nodes in one process remembers what this said.
#[must_use]
pub fn verify(key: &ProofKey, message: &[u8], proof: &Proof) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(message, proof.0.as_flattened()).is_ok()
}

/// Whether the node with this key made the statement.
pub(crate) fn holds(
    verify: Verify,
    key: &ProofKey,
    cluster: ClusterId,
    node: NodeId,
    statement: Statement<'_>,
    proof: &Proof,
) -> bool {
    codec::statement(cluster, node, statement).is_some_and(|message| verify(key, &message, proof))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::RowKey;

    const CLUSTER: ClusterId = ClusterId(7);

    fn author(node: u128) -> Author {
        let secret = ProofSecret::from_seed(&[5; 32]).unwrap();
        Author { cluster: CLUSTER, node: NodeId(node), secret }
    }

    #[test]
    fn a_proof_is_of_one_statement_of_one_node_of_one_cluster() {
        let author = author(1);
        let key = author.secret.key();
        let dead = Record::tombstone(RowKey::Vtep);
        let version = Version { generation: 1, counter: 0 };
        let later = Version { generation: 1, counter: 1 };
        let proof = author.prove(Statement::Row(version, &dead));
        let other = ProofSecret::from_seed(&[6; 32]).unwrap().key();
        let row = Statement::Row(version, &dead);
        let table = [
            (key, CLUSTER, NodeId(1), row, true),
            (other, CLUSTER, NodeId(1), row, false),
            (key, ClusterId(8), NodeId(1), row, false),
            (key, CLUSTER, NodeId(2), row, false),
            (key, CLUSTER, NodeId(1), Statement::Row(later, &dead), false),
            (key, CLUSTER, NodeId(1), Statement::Run(1, 0), false),
            (key, CLUSTER, NodeId(1), Statement::Restart(1), false),
        ];
        for (key, cluster, node, statement, expected) in table {
            let found = holds(verify, &key, cluster, node, statement, &proof);
            assert_eq!(found, expected, "{statement:?}");
        }
        let restart = author.prove(Statement::Restart(1));
        assert!(!holds(verify, &key, CLUSTER, NodeId(1), Statement::Run(1, 0), &restart));
    }

    #[test]
    fn the_private_key_is_not_printed() {
        let secret = ProofSecret::from_seed(&[5; 32]).unwrap();
        assert!(!format!("{secret:?}").contains("5, 5, 5"), "{secret:?}");
    }
}
