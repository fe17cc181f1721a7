//! Whether a write failed because the disk was full. It is the only disk failure after which the
//! data can be opened and checked again.

use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Clones share one flag, which is never cleared.
#[derive(Debug, Clone, Default)]
pub(crate) struct DiskFull(Arc<AtomicBool>);

impl DiskFull {
    /// Records a failed write.
    pub(crate) fn note(&self, error: &Error) {
        if is_disk_full(error) {
            self.0.store(true, Ordering::Release);
        }
    }

    /// Whether any write failed because the disk was full.
    pub(crate) fn was_seen(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Whether a write failed because the disk was full.
pub(crate) fn is_disk_full(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
