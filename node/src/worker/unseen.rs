//! When news reached this node that the worker's loop has not taken yet: others read it while the
//! loop is busy.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// When the oldest news came that waits for the worker's loop. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Unseen(Arc<Mutex<Option<Duration>>>);

impl Unseen {
    /// News goes to the loop: to be called before it does.
    pub fn note(&self, arrived: Duration) {
        let mut oldest = self.hold();
        *oldest = Some(oldest.map_or(arrived, |oldest| oldest.min(arrived)));
    }

    /// The loop looks at all of it.
    #[must_use]
    pub fn take(&self) -> Option<Duration> {
        self.hold().take()
    }

    /// For how long the oldest has waited; zero if there is none.
    #[must_use]
    pub fn waiting(&self, now: Duration) -> Duration {
        self.hold().map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest))
    }

    fn hold(&self) -> MutexGuard<'_, Option<Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
