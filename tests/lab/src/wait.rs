//! Waits for a condition, with a limit; the error shows the last state.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Time between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Looks at a condition again and again until it holds, and gives what it answered.
///
/// # Errors
/// When `limit` has passed: the error names `what` and carries what the last look complained of.
pub fn wait_for<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = now();
    loop {
        let error = match look() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let waited = begin.elapsed();
        if waited >= limit {
            let seconds = waited.as_secs_f64();
            return Err(anyhow!("waited {seconds:.1} s for {what}; at last: {error:#}"));
        }
        pause(LOOK_AGAIN);
    }
}

/// The lab's clock: it measures real daemons, so it is a real one.
#[expect(clippy::disallowed_methods, reason = "the lab observes real processes in real time")]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// A beat: lets a program do something at a bounded rate.
#[derive(Debug)]
pub struct Pace {
    period: Duration,
    next: Instant,
}

impl Pace {
    /// A beat every `period`, the first one a period from now.
    #[must_use]
    pub fn new(period: Duration) -> Self {
        Self { period, next: now() + period }
    }

    /// Returns at the next beat. Beats that were missed are not made up for.
    pub fn wait(&mut self) {
        let time = now();
        if self.next > time {
            pause(self.next - time);
        }
        self.next = (self.next + self.period).max(time);
    }
}

#[expect(clippy::disallowed_methods, reason = "the only place that waits between two looks")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn a_condition_that_never_holds_says_what_was_seen_last() {
    let mut looks = 0;
    let error = wait_for::<()>(Duration::from_millis(50), "the moon", || {
        looks += 1;
        Err(anyhow!("look {looks} saw clouds"))
    })
    .expect_err("the condition never holds");
    let text = error.to_string();
    assert!(looks > 1 && text.contains("for the moon; at last: look"), "{text}");
}

#[test]
fn a_condition_that_holds_ends_the_wait() {
    let mut looks = 0;
    let answer = wait_for(Duration::from_secs(5), "three looks", || {
        looks += 1;
        if looks == 3 { Ok(looks) } else { Err(anyhow!("not yet")) }
    });
    assert_eq!(answer.expect("it holds at the third look"), 3);
}
