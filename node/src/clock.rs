//! The only place that reads a clock. Cores take the time as an input; shells read it here.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

/// The wall clock: for display and for log lines only, never for deciding what is due.
pub fn wall() -> SystemTime {
    #[allow(clippy::disallowed_methods, reason = "this function is where the wall clock is read")]
    SystemTime::now()
}

/// Time since an arbitrary start that is the same for all processes of this boot, never running
/// backwards and unmoved by changes of the wall clock (`CLOCK_MONOTONIC`).
pub fn monotonic() -> Duration {
    // The kernel refuses this clock id to nobody, so an error cannot happen; zero makes every
    // deadline wait rather than fire.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
