//! Whether and when a task that ended by itself is replaced.
//!
//! The delay is the policy's (Docker's default 5 s) for the first replacement. A task that ends
//! within [`QUICK_RUN_MS`] of its start, again and again, is a crash loop: from the second such end
//! the delay doubles each time, up to [`DELAY_MS_MAX`], so that a broken program costs the log a
//! few entries a minute. One longer run makes the delay short again. Docker has no such backoff.

use crate::object::{Restarts, Task, TaskState};
use crate::spec::RestartCondition;
use crate::time::{Timestamp, whole_ms};

/// Docker's default delay.
pub const DELAY_MS: u64 = 5_000;
/// The longest delay that backoff alone gives; a longer one of the policy is honoured.
pub const DELAY_MS_MAX: u64 = 60_000;
/// What backoff doubles where the policy says less.
const BACKOFF_MS_MIN: u64 = 1_000;
/// A run shorter than this is part of a crash loop.
pub const QUICK_RUN_MS: u64 = 30_000;

/// What becomes of the slot of a task that ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It gets another task.
    Replace {
        /// Not to be started before.
        start_after: Option<Timestamp>,
        /// What the next verdict needs to know.
        restarts: Restarts,
    },
    /// It stays as it is until the service changes.
    Done(Spent),
}

/// Why a task is not replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spent {
    /// The policy's condition does not ask for it.
    Condition(RestartCondition),
    /// It was so often as the policy allows.
    Attempts(u64),
}

/// Judges a task that ended by itself, by the policy that it was made with.
pub(super) fn verdict(task: &Task, now: Timestamp) -> Verdict {
    let terms = &task.spec.terms().restart;
    let again = match terms.condition {
        RestartCondition::None => false,
        RestartCondition::OnFailure => task.status.state != TaskState::Complete,
        RestartCondition::Any => true,
    };
    let mut restarts = task.restarts;
    let is_past = |window| now > restarts.window_start.plus(window);
    if restarts.attempts == 0 || terms.window.is_some_and(is_past) {
        restarts.attempts = 0;
        restarts.window_start = now;
    }
    if !again {
        return Verdict::Done(Spent::Condition(terms.condition));
    }
    if let Some(max) = terms.attempts_max.filter(|max| restarts.attempts >= *max) {
        return Verdict::Done(Spent::Attempts(max));
    }
    restarts.attempts = restarts.attempts.saturating_add(1);
    restarts.first = task.first_run();
    let started = task.start_after.map_or(task.meta.created_at, |at| at.max(task.meta.created_at));
    let quick = now.since_ms(started) < QUICK_RUN_MS;
    restarts.streak = if quick { restarts.streak.saturating_add(1) } else { 0 };
    let delay_ms = delay_ms(terms.delay.map_or(DELAY_MS, whole_ms), restarts.streak);
    let start_after = (delay_ms > 0).then(|| now.plus_ms(delay_ms));
    Verdict::Replace { start_after, restarts }
}

/// The delay after so many quick runs in a row.
fn delay_ms(base_ms: u64, streak: u32) -> u64 {
    let doublings = streak.saturating_sub(1);
    if doublings == 0 {
        return base_ms;
    }
    let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
    let grown = base_ms.max(BACKOFF_MS_MIN).saturating_mul(factor);
    grown.min(base_ms.max(DELAY_MS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, NOW};
    use crate::spec::{RestartPolicy, TaskSpec};

    #[test]
    fn delay_grows_with_quick_ends() {
        let delays: Vec<u64> = (0..8).map(|streak| delay_ms(5_000, streak)).collect();
        assert_eq!(delays, [5_000, 5_000, 10_000, 20_000, 40_000, 60_000, 60_000, 60_000]);
        assert_eq!((delay_ms(0, 1), delay_ms(0, 2), delay_ms(0, 99)), (0, 2_000, 60_000));
        assert_eq!(delay_ms(120_000, 9), 120_000, "a longer delay of the policy is honoured");
    }

    fn ended(state: TaskState, attempts: u64) -> Task {
        let mut task = fixture::task(6, 5, Vec::new());
        task.status.state = state;
        task.restarts.attempts = attempts;
        task.restarts.window_start = NOW;
        task
    }

    fn replaced(policy: &RestartPolicy, task: &Task, after_ms: u64) -> bool {
        let mut task = task.clone();
        let restart_policy = Some(policy.clone());
        task.spec = TaskSpec { restart_policy, ..TaskSpec::default() }.into();
        matches!(verdict(&task, NOW.plus_ms(after_ms)), Verdict::Replace { .. })
    }

    #[test]
    fn conditions() {
        use RestartCondition::{Any, None, OnFailure};
        for (condition, failed, complete) in
            [(None, false, false), (OnFailure, true, false), (Any, true, true)]
        {
            let policy = RestartPolicy { condition: Some(condition), ..RestartPolicy::default() };
            assert_eq!(replaced(&policy, &ended(TaskState::Failed, 0), 0), failed);
            assert_eq!(replaced(&policy, &ended(TaskState::Rejected, 0), 0), failed);
            assert_eq!(replaced(&policy, &ended(TaskState::Complete, 0), 0), complete);
        }
    }

    #[test]
    fn attempts_count_within_the_window() {
        let mut policy = RestartPolicy { max_attempts: Some(3), ..RestartPolicy::default() };
        assert!(replaced(&policy, &ended(TaskState::Failed, 2), 0));
        assert!(!replaced(&policy, &ended(TaskState::Failed, 3), 1_000_000));
        policy.window = Some(10_000_000_000);
        assert!(!replaced(&policy, &ended(TaskState::Failed, 3), 9_000));
        assert!(replaced(&policy, &ended(TaskState::Failed, 3), 11_000));
    }

    #[test]
    fn a_long_run_ends_the_crash_loop() {
        let mut task = ended(TaskState::Failed, 4);
        task.restarts.streak = 4;
        task.meta.created_at = NOW;
        let streak = |after_ms| match verdict(&task, NOW.plus_ms(after_ms)) {
            Verdict::Replace { restarts, .. } => restarts.streak,
            Verdict::Done(_) => panic!("the default policy replaces always"),
        };
        assert_eq!((streak(QUICK_RUN_MS - 1), streak(QUICK_RUN_MS)), (5, 0));
    }
}
