//! Seals datagrams with the cluster's rotating keys.
//!
//! A sealed datagram is `[key id 1][sender 16][run 16][counter 8][ciphertext][tag 16]`: AES-256-GCM
//! (NIST SP 800-38D). A key of the cluster seals nothing itself: each run of each node seals with a
//! key of its own, derived by HKDF-SHA-256 (RFC 5869) from the cluster's key, the cluster, the node
//! and a stamp of the run, and numbers its datagrams. So no nonce repeats under one key for as long
//! as the cluster's key lives: within a run the counter never goes back, and two runs of a node
//! differ in their stamp, which has 64 random bits as well as the count of starts and so does not
//! rely on the disk. Random nonces would have to be counted over all nodes (2^32 under one key);
//! XChaCha20 and AES-GCM-SIV would need a second cryptographic library. Deriving costs
//! 0.4 us a datagram (docs/benchmarks.md), so receivers remember no keys of senders.

use std::collections::BTreeMap;
use std::fmt;

use cluster::id::{ClusterId, NodeId};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Keys that a ring may hold: the primary, its predecessors, and one that is being spread.
pub const KEYS_MAX: usize = 8;
/// Bytes that sealing adds.
pub const SEAL_BYTES: usize = 1 + NODE_BYTES + RUN_BYTES + COUNTER_BYTES + TAG_BYTES;
/// Bytes that tell one run of a node from all its others.
pub(crate) const RUN_BYTES: usize = 16;
const NODE_BYTES: usize = 16;
const COUNTER_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
/// Says what the derived keys are for.
const PURPOSE: &[u8] = b"skein gossip datagram";

/// A set of keys that cannot be a ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The key that should seal is not among the keys.
    #[error("gossip key {0} should seal datagrams but is not in the key ring")]
    PrimaryMissing(u8),
    /// More keys than a rotation ever needs.
    #[error("a gossip key ring of {0} keys: at most {KEYS_MAX} may be in use at once")]
    TooMany(usize),
}

/// Why a datagram was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// Too short to hold key id, nonce and tag.
    #[error("a datagram of {0} bytes is too short to be sealed")]
    Short(usize),
    /// Sealed with a key that this ring lacks.
    #[error("a datagram is sealed with the unknown key {0}")]
    UnknownKey(u8),
    /// Tampered with, of another cluster, or sealed with another key of that id.
    #[error("a datagram under key {0} is not authentic")]
    Forged(u8),
}

/// Who seals: one run of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) run: [u8; RUN_BYTES],
}

/// The keys of a cluster by id: the primary seals, all of them open.
pub struct Keyring {
    primary: u8,
    keys: BTreeMap<u8, hkdf::Prk>, // invariant: holds the primary
}

impl Keyring {
    /// Takes the keys by id; `primary` seals.
    pub fn new(primary: u8, keys: &BTreeMap<u8, [u8; KEY_BYTES]>) -> Result<Self, KeyringError> {
        if keys.len() > KEYS_MAX {
            return Err(KeyringError::TooMany(keys.len()));
        }
        if !keys.contains_key(&primary) {
            return Err(KeyringError::PrimaryMissing(primary));
        }
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, PURPOSE);
        let keys = keys.iter().map(|(id, bytes)| (*id, salt.extract(bytes))).collect();
        Ok(Self { primary, keys })
    }

    /// Ids of the keys, the primary's first.
    pub fn ids(&self) -> impl Iterator<Item = u8> {
        let others = self.keys.keys().copied().filter(|id| *id != self.primary);
        std::iter::once(self.primary).chain(others)
    }

    /// Seals; no two calls of one sender may have the same counter. `None` only if the library
    /// refuses, which it does for gigabytes.
    pub(crate) fn seal(&self, sender: &Sender, counter: u64, plain: &[u8]) -> Option<Vec<u8>> {
        let key = derived(self.keys.get(&self.primary)?, sender)?;
        let mut body = plain.to_vec();
        key.seal_in_place_append_tag(nonce(counter), Aad::empty(), &mut body).ok()?;
        let mut sealed = Vec::with_capacity(plain.len() + SEAL_BYTES);
        sealed.push(self.primary);
        sealed.extend_from_slice(&sender.node.0.to_be_bytes());
        sealed.extend_from_slice(&sender.run);
        sealed.extend_from_slice(&counter.to_be_bytes());
        sealed.append(&mut body);
        Some(sealed)
    }

    /// Opens what any member sealed, and says which one it names as its sender.
    pub(crate) fn open(
        &self,
        cluster: ClusterId,
        sealed: &[u8],
    ) -> Result<(NodeId, Vec<u8>), OpenError> {
        let short = OpenError::Short(sealed.len());
        if sealed.len() < SEAL_BYTES {
            return Err(short);
        }
        let (id, rest) = sealed.split_first().ok_or(short)?;
        let (node, rest) = rest.split_first_chunk::<NODE_BYTES>().ok_or(short)?;
        let (run, rest) = rest.split_first_chunk::<RUN_BYTES>().ok_or(short)?;
        let (counter, body) = rest.split_first_chunk::<COUNTER_BYTES>().ok_or(short)?;
        let key = self.keys.get(id).ok_or(OpenError::UnknownKey(*id))?;
        let node = NodeId(u128::from_be_bytes(*node));
        let forged = OpenError::Forged(*id);
        let key = derived(key, &Sender { cluster, node, run: *run }).ok_or(forged)?;
        let mut body = body.to_vec();
        let nonce = nonce(u64::from_be_bytes(*counter));
        let plain = key.open_in_place(nonce, Aad::empty(), &mut body);
        let plain = plain.map_err(|_unspecified| forged)?.len();
        body.truncate(plain);
        Ok((node, body))
    }
}

/// The key of one sender's run.
fn derived(key: &hkdf::Prk, sender: &Sender) -> Option<LessSafeKey> {
    let (cluster, node) = (sender.cluster.0.to_be_bytes(), sender.node.0.to_be_bytes());
    let info = [&cluster[..], &node[..], &sender.run[..]];
    let okm = key.expand(&info, &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(okm)))
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Key ids only: a ring is printed in logs of inputs.
        f.debug_list().entries(self.ids()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLUSTER: ClusterId = ClusterId(7);

    fn ring(primary: u8, ids: &[u8]) -> Keyring {
        let keys = ids.iter().map(|id| (*id, [*id; KEY_BYTES])).collect();
        Keyring::new(primary, &keys).unwrap()
    }

    fn sender(node: u8, run: u8) -> Sender {
        Sender { cluster: CLUSTER, node: NodeId(node.into()), run: [run; RUN_BYTES] }
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_any_flipped_bit_does_not(
            plain in proptest::collection::vec(any::<u8>(), 0..200),
            counter: u64,
            flip in any::<proptest::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let ring = ring(1, &[1]);
            let mut sealed = ring.seal(&sender(3, 9), counter, &plain).unwrap();
            prop_assert_eq!(sealed.len(), plain.len() + SEAL_BYTES);
            prop_assert_eq!(ring.open(CLUSTER, &sealed), Ok((NodeId(3), plain)));
            let at = flip.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(ring.open(CLUSTER, &sealed).is_err());
        }
    }

    /// Equal plaintexts under equal keys and nonces are equal ciphertexts: none may be.
    #[test]
    fn no_two_runs_nodes_or_counters_share_key_and_nonce() {
        let ring = ring(1, &[1]);
        let table = [(3, 1, 0), (3, 1, 1), (3, 2, 0), (4, 1, 0)];
        let bodies: std::collections::BTreeSet<Vec<u8>> = (table.into_iter())
            .map(|(node, run, counter)| {
                let sealed = ring.seal(&sender(node, run), counter, &[0; 64]).unwrap();
                sealed[SEAL_BYTES - TAG_BYTES..].to_vec()
            })
            .collect();
        assert_eq!(bodies.len(), table.len());
    }

    #[test]
    fn golden_seal() {
        let sealed = ring(1, &[1]).seal(&sender(3, 9), 2, b"x").unwrap();
        let parts = [&sealed[..1], &sealed[1..17], &sealed[17..33], &sealed[33..41], &sealed[41..]];
        let hex = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let text = parts.map(|part| hex(part) + "\n").concat();
        expect_test::expect![[r#"
            01
            00000000000000000000000000000003
            09090909090909090909090909090909
            0000000000000002
            2aa08c895cb3e84ca739e0487c37e608d1
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn rotation_opens_old_and_new_keys() {
        let (old, both, new) = (ring(1, &[1]), ring(1, &[1, 2]), ring(2, &[1, 2]));
        let by_old = old.seal(&sender(3, 9), 0, b"x").unwrap();
        let by_new = new.seal(&sender(3, 9), 0, b"x").unwrap();
        assert_eq!(both.open(CLUSTER, &by_new), Ok((NodeId(3), b"x".to_vec())));
        assert_eq!(new.open(CLUSTER, &by_old), Ok((NodeId(3), b"x".to_vec())));
        assert_eq!(old.open(CLUSTER, &by_new), Err(OpenError::UnknownKey(2)));
        assert_eq!(format!("{new:?}"), "[2, 1]");
    }

    #[test]
    fn another_cluster_and_short_datagrams_are_refused() {
        let ring = ring(1, &[1]);
        let sealed = ring.seal(&sender(3, 9), 0, b"x").unwrap();
        assert_eq!(ring.open(ClusterId(8), &sealed), Err(OpenError::Forged(1)));
        for len in 0..SEAL_BYTES {
            assert_eq!(ring.open(CLUSTER, &sealed[..len]), Err(OpenError::Short(len)));
        }
    }

    #[test]
    fn a_ring_without_its_primary_is_refused() {
        let keys = [(1, [1; KEY_BYTES])].into();
        assert_eq!(Keyring::new(2, &keys).unwrap_err(), KeyringError::PrimaryMissing(2));
    }
}
