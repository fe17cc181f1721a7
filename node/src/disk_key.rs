//! The key under which a manager keeps its log and snapshots on disk.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use raft_store::{DISK_KEY_BYTES, DiskKey, Presence};
use serde::{Deserialize, Serialize};

use crate::disk::{self, DiskError};

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// Base64 of the key.
    key: String,
}

/// A disk key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskKeyError {
    /// Its file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is a log, and no key for it.
    #[error("{0} is gone, and nothing else opens the Raft log")]
    Gone(String),
    /// The file holds something else.
    #[error("{0} is damaged: it holds no key of {DISK_KEY_BYTES} bytes")]
    Damaged(String),
    /// No random bytes.
    #[error("make a disk key: {0}")]
    Make(#[from] std::io::Error),
}

/// Reads the key, or makes one for a log that is yet to be made.
pub fn load(path: &Path, presence: Presence) -> Result<DiskKey, DiskKeyError> {
    if let Some(stored) = disk::read_json::<Stored>(path)? {
        let bytes = STANDARD.decode(&stored.key).ok().and_then(|key| key.try_into().ok());
        let damaged = || DiskKeyError::Damaged(path.display().to_string());
        return bytes.map(DiskKey::from_bytes).ok_or_else(damaged);
    }
    if presence == Presence::Existing {
        return Err(DiskKeyError::Gone(path.display().to_string()));
    }
    let key = DiskKey::generate()?;
    disk::write_json(path, &Stored { key: STANDARD.encode(key.as_bytes()) })?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_never_again_for_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk-key.json");
        let error = load(&path, Presence::Existing).unwrap_err().to_string();
        assert!(error.contains("is gone"), "{error}");
        let made = load(&path, Presence::New).unwrap();
        assert_eq!(load(&path, Presence::Existing).unwrap(), made);
        assert_eq!(load(&path, Presence::New).unwrap(), made);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, r#"{"key":"AAAA"}"#).unwrap();
        let error = load(&path, Presence::Existing).unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{error}");
    }
}
