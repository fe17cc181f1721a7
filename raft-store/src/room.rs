//! Whether the disk refused a write for want of room: the one failure of a disk after which what it
//! holds can be opened and checked again.

use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Clones share one fact, which stays once it is so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room(Arc<AtomicBool>);

impl Room {
    /// Takes note of a write that failed.
    pub(crate) fn note(&self, error: &Error) {
        if is_lacking(error) {
            self.0.store(true, Ordering::Release);
        }
    }

    /// Whether some write found none.
    pub(crate) fn was_lacking(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Whether a write failed for want of room.
pub(crate) fn is_lacking(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
