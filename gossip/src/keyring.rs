//! Seals datagrams with the cluster's rotating keys.
//!
//! A sealed datagram is `[key id 1][nonce 12][ciphertext][tag 16]`: AES-256-GCM (NIST SP 800-38D)
//! with the cluster id as associated data, so that a datagram of another cluster cannot be opened
//! even with equal keys. Nonces are random: rotate before 2^32 datagrams under one key (SP 800-38D
//! section 8.3).

use std::collections::BTreeMap;
use std::fmt;

use cluster::id::ClusterId;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Keys that a ring may hold: the primary, its predecessors, and one that is being spread.
pub const KEYS_MAX: usize = 8;
/// Bytes that sealing adds.
pub const SEAL_BYTES: usize = 1 + NONCE_BYTES + TAG_BYTES;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// A set of keys that cannot be a ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The key that should seal is not among the keys.
    #[error("gossip key {0} should seal datagrams but is not in the key ring")]
    PrimaryMissing(u8),
    /// More keys than a rotation ever needs.
    #[error("a gossip key ring of {0} keys: at most {KEYS_MAX} may be in use at once")]
    TooMany(usize),
    /// The cryptographic library refused the key.
    #[error("loading gossip key {0}")]
    Refused(u8),
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

/// The keys of a cluster by id: the primary seals, all of them open.
pub struct Keyring {
    primary: u8,
    keys: BTreeMap<u8, LessSafeKey>, // invariant: holds the primary
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
        let keys = keys
            .iter()
            .map(|(id, bytes)| {
                UnboundKey::new(&AES_256_GCM, bytes)
                    .map(|key| (*id, LessSafeKey::new(key)))
                    .map_err(|_unspecified| KeyringError::Refused(*id))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { primary, keys })
    }

    /// Ids of the keys, the primary's first.
    pub fn ids(&self) -> impl Iterator<Item = u8> {
        let others = self.keys.keys().copied().filter(|id| *id != self.primary);
        std::iter::once(self.primary).chain(others)
    }

    /// Seals; `None` only if the library refuses, which it does for gigabytes.
    pub(crate) fn seal(
        &self,
        cluster: ClusterId,
        nonce: [u8; NONCE_BYTES],
        plain: &[u8],
    ) -> Option<Vec<u8>> {
        let key = self.keys.get(&self.primary)?;
        let mut sealed = Vec::with_capacity(plain.len() + SEAL_BYTES);
        sealed.push(self.primary);
        sealed.extend_from_slice(&nonce);
        let mut body = plain.to_vec();
        let aad = Aad::from(cluster.0.to_be_bytes());
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body).ok()?;
        sealed.append(&mut body);
        Some(sealed)
    }

    /// Opens what any member sealed.
    pub(crate) fn open(&self, cluster: ClusterId, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (id, rest) = sealed.split_first().ok_or(OpenError::Short(0))?;
        let (nonce, body) = rest
            .split_first_chunk::<NONCE_BYTES>()
            .filter(|(_, body)| body.len() >= TAG_BYTES)
            .ok_or(OpenError::Short(sealed.len()))?;
        let key = self.keys.get(id).ok_or(OpenError::UnknownKey(*id))?;
        let mut body = body.to_vec();
        let aad = Aad::from(cluster.0.to_be_bytes());
        let plain = key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut body)
            .map_err(|_unspecified| OpenError::Forged(*id))?
            .len();
        body.truncate(plain);
        Ok(body)
    }
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

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_any_flipped_bit_does_not(
            plain in proptest::collection::vec(any::<u8>(), 0..200),
            nonce: [u8; 12],
            flip in any::<proptest::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let ring = ring(1, &[1]);
            let mut sealed = ring.seal(CLUSTER, nonce, &plain).unwrap();
            prop_assert_eq!(sealed.len(), plain.len() + SEAL_BYTES);
            prop_assert_eq!(ring.open(CLUSTER, &sealed), Ok(plain));
            let at = flip.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(ring.open(CLUSTER, &sealed).is_err());
        }
    }

    #[test]
    fn rotation_opens_old_and_new_keys() {
        let (old, both, new) = (ring(1, &[1]), ring(1, &[1, 2]), ring(2, &[1, 2]));
        let by_old = old.seal(CLUSTER, [0; 12], b"x").unwrap();
        let by_new = new.seal(CLUSTER, [0; 12], b"x").unwrap();
        assert_eq!(both.open(CLUSTER, &by_new), Ok(b"x".to_vec()));
        assert_eq!(new.open(CLUSTER, &by_old), Ok(b"x".to_vec()));
        assert_eq!(old.open(CLUSTER, &by_new), Err(OpenError::UnknownKey(2)));
        assert_eq!(format!("{new:?}"), "[2, 1]");
    }

    #[test]
    fn another_cluster_and_short_datagrams_are_refused() {
        let ring = ring(1, &[1]);
        let sealed = ring.seal(CLUSTER, [0; 12], b"x").unwrap();
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
