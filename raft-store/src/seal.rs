//! What is written to disk is sealed: AES-256-GCM (NIST SP 800-38D) under the node's disk key.
//!
//! Sealing hides the content (the CA's key is in the log) and is the checksum of every row: a row
//! that was changed, or that is in the place of another one, does not open.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes of a disk key.
pub const DISK_KEY_BYTES: usize = 32;
/// Bytes that sealing adds: nonce and tag.
pub(crate) const SEAL_BYTES: usize = NONCE_LEN + 16;
const PREFIX_BYTES: usize = 8;

/// The key under which one node keeps its log and snapshots.
#[derive(Clone, PartialEq, Eq)]
pub struct DiskKey([u8; DISK_KEY_BYTES]);

impl DiskKey {
    /// A new key.
    pub fn generate() -> io::Result<Self> {
        random().map(Self)
    }

    #[must_use]
    pub fn from_bytes(bytes: [u8; DISK_KEY_BYTES]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; DISK_KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for DiskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskKey(..)")
    }
}

pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_unspecified| io::Error::other("the system gives no random bytes"))?;
    Ok(bytes)
}

/// The content does not open: it was changed, belongs elsewhere, or was sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its checksum does not hold")]
pub struct Broken;

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        Self::new(io::ErrorKind::InvalidData, broken)
    }
}

/// Seals and opens under one key.
pub struct Sealer {
    key: LessSafeKey,
    nonces: Mutex<Nonces>,
}

/// A nonce is 64 random bits, drawn once per start, and a counter: it cannot repeat within a start,
/// and two starts in 2^32 would have to draw the same bits.
struct Nonces {
    prefix: [u8; PREFIX_BYTES],
    next: u32,
}

impl Nonces {
    fn draw() -> io::Result<Self> {
        Ok(Self { prefix: random()?, next: 0 })
    }

    fn take(&mut self) -> io::Result<[u8; NONCE_LEN]> {
        let mut nonce = [0; NONCE_LEN];
        nonce[..PREFIX_BYTES].copy_from_slice(&self.prefix);
        nonce[PREFIX_BYTES..].copy_from_slice(&self.next.to_be_bytes());
        match self.next.checked_add(1) {
            Some(next) => self.next = next,
            None => *self = Self::draw()?,
        }
        Ok(nonce)
    }
}

impl Sealer {
    pub fn new(key: &DiskKey) -> io::Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, key.as_bytes())
            .map_err(|_unspecified| io::Error::other("the disk key is not of 32 bytes"))?;
        Ok(Self { key: LessSafeKey::new(key), nonces: Mutex::new(Nonces::draw()?) })
    }

    /// Seals content for one place; it opens nowhere else.
    pub fn seal(&self, place: &[u8], content: &[u8]) -> io::Result<Vec<u8>> {
        let nonce = self.nonces.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let mut sealed = Vec::with_capacity(content.len() + SEAL_BYTES);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(content);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(place), &mut sealed[NONCE_LEN..])
            .map_err(|_unspecified| io::Error::other("the content is too long to be sealed"))?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// The inverse of [`Sealer::seal`].
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Broken> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_length| Broken)?;
        let mut body = body.to_vec();
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(place), &mut body)
            .map_err(|_unspecified| Broken)?
            .len();
        body.truncate(opened);
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer() -> Sealer {
        Sealer::new(&DiskKey::from_bytes([7; DISK_KEY_BYTES])).unwrap()
    }

    #[test]
    fn content_opens_in_its_place_unchanged_and_under_its_key() {
        let sealer = sealer();
        let sealed = sealer.seal(b"here", b"content").unwrap();
        assert_eq!(sealed.len(), b"content".len() + SEAL_BYTES);
        assert_eq!(sealer.open(b"here", &sealed).unwrap(), b"content");
        assert_eq!(sealer.open(b"there", &sealed), Err(Broken));
        let other = Sealer::new(&DiskKey::generate().unwrap()).unwrap();
        assert_eq!(other.open(b"here", &sealed), Err(Broken));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(sealer.open(b"here", &flipped), Err(Broken), "bit {bit}");
        }
        for end in 0..sealed.len() {
            assert_eq!(sealer.open(b"here", &sealed[..end]), Err(Broken), "cut at {end}");
        }
    }

    #[test]
    fn a_nonce_is_used_once_also_when_the_counter_ends() {
        let mut nonces = Nonces { prefix: [1; PREFIX_BYTES], next: u32::MAX - 1 };
        let drawn: Vec<_> = (0..4).map(|_| nonces.take().unwrap()).collect();
        assert_eq!(drawn[1], [1, 1, 1, 1, 1, 1, 1, 1, 0xFF, 0xFF, 0xFF, 0xFF]);
        assert_ne!(drawn[2][..PREFIX_BYTES], [1; PREFIX_BYTES], "drawn again");
        assert_eq!(drawn[2][PREFIX_BYTES..], [0; 4]);
        assert_ne!(drawn[2], drawn[3]);
    }
}
