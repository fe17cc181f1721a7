//! The only place that reads a clock. Cores take the time as an input; shells read it here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster::time::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// The wall clock: for display, log lines and certificates only, never for deciding what is due.
#[must_use]
pub fn wall() -> SystemTime {
    #[allow(clippy::disallowed_methods, reason = "this function is where the wall clock is read")]
    SystemTime::now()
}

/// The wall clock in the form of the replicated state.
#[must_use]
pub fn timestamp() -> Timestamp {
    let since = wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Time since an arbitrary start that is the same for all processes of this boot, never running
/// backwards and unmoved by changes of the wall clock (`CLOCK_MONOTONIC`).
#[must_use]
pub fn monotonic() -> Duration {
    // The kernel refuses this clock id to nobody, so an error cannot happen; zero makes every
    // deadline wait rather than fire.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
