//! How late changes reach the kernel, for people and metrics: since when the oldest one waits that
//! is not programmed, and how long the last one took.

use std::time::Duration;

/// A change that is programmed later than this is a fault to be told.
pub const LATE_MAX: Duration = Duration::from_secs(5);
/// For so long a late change is reported after it was programmed.
pub const TOLD_FOR: Duration = Duration::from_secs(60);

/// What is known of changes: times are the monotonic clock's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lateness {
    /// Since when the oldest change is known that the pass under way, or the next try, programs.
    oldest: Option<Duration>,
    /// Since when the oldest change is known that came after that pass had begun.
    next: Option<Duration>,
    /// When the last change was programmed, and how long after it came.
    last: Option<(Duration, Duration)>,
    /// The same of the slowest one that is still reported.
    late: Option<(Duration, Duration)>,
}

impl Lateness {
    /// Something that is wanted has changed, before a pass or while one is under way, by what
    /// reached the node at that time.
    pub fn news(&mut self, since: Duration) {
        self.next = Some(self.next.map_or(since, |next| next.min(since)));
    }

    /// A pass begins: it takes all changes that are known.
    pub fn begin(&mut self) {
        let next = self.next.take();
        self.oldest = self.oldest.or(next);
    }

    /// The pass has ended. Where something failed, its changes still wait.
    pub fn end(&mut self, done: bool, now: Duration) {
        if done && let Some(since) = self.oldest.take() {
            let took = now.saturating_sub(since);
            self.last = Some((now, took));
            let slowest = self.told(now).map_or(LATE_MAX, |(_, slowest)| slowest);
            if took > slowest {
                self.late = Some((now, took));
            }
        }
    }

    /// Whether changes are known that no pass has begun to program.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.next.is_some()
    }

    /// For how long the oldest change waits that is not programmed; zero if there is none.
    #[must_use]
    pub fn waiting(&self, now: Duration) -> Duration {
        self.oldest.or(self.next).map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// How long the last change took.
    #[must_use]
    pub fn last(&self) -> Duration {
        self.last.map_or(Duration::ZERO, |(_, took)| took)
    }

    /// What is wrong, in words. `before` is for how long the oldest change waits that reached the
    /// node and is not made out yet.
    #[must_use]
    pub fn trouble(&self, before: Duration, now: Duration) -> Option<String> {
        let limit = LATE_MAX.as_secs();
        let waiting = self.waiting(now).max(before);
        if waiting > LATE_MAX {
            return Some(format!(
                "the kernel is behind: a change has waited {} s to be programmed, over {limit} s",
                waiting.as_secs()
            ));
        }
        let took = self.told(now)?.1.as_secs();
        Some(format!("a change was programmed {took} s after it came, over {limit} s"))
    }

    /// The slowest change that is still reported: when it was programmed, and how long it took.
    fn told(&self, now: Duration) -> Option<(Duration, Duration)> {
        self.late.filter(|(at, _)| now.saturating_sub(*at) < TOLD_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_long_pass_is_told_of_while_it_lasts_and_for_a_while_after() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.trouble(Duration::ZERO, at(1_000)), None, "nothing has changed");
        lateness.news(at(1_000));
        lateness.begin();
        assert_eq!(lateness.trouble(Duration::ZERO, at(1_005)), None);
        let told = lateness.trouble(Duration::ZERO, at(1_224)).unwrap();
        assert!(told.contains("waited 224 s") && told.contains("over 5 s"), "{told}");
        lateness.end(true, at(1_230));
        assert_eq!(lateness.waiting(at(1_231)), Duration::ZERO);
        assert!(lateness.trouble(Duration::ZERO, at(1_289)).unwrap().contains("230 s after"));
        assert_eq!(lateness.trouble(Duration::ZERO, at(1_290)), None);
    }

    /// Goal: with passes that follow each other, each short of the limit, a change that waits for
    /// two of them is late.
    #[test]
    fn a_change_that_comes_during_a_pass_waits_from_then_on() {
        let mut lateness = Lateness::default();
        lateness.news(at(0));
        lateness.begin();
        lateness.news(at(1));
        lateness.news(at(3));
        lateness.end(true, at(4));
        assert!(lateness.has_news());
        assert_eq!(lateness.waiting(at(4)), at(3));
        lateness.begin();
        assert!(!lateness.has_news() && lateness.trouble(Duration::ZERO, at(6)).is_none());
        assert!(lateness.trouble(Duration::ZERO, at(7)).unwrap().contains("waited 6 s"));
        lateness.end(true, at(8));
        assert_eq!(lateness.last(), at(7));
        lateness.news(at(10));
        lateness.begin();
        lateness.end(true, at(11));
        let told = lateness.trouble(Duration::ZERO, at(67)).unwrap();
        assert!(told.contains("7 s after"), "a quick one takes nothing back: {told}");
        assert_eq!(lateness.trouble(Duration::ZERO, at(68)), None);
    }

    #[test]
    fn what_failed_still_waits_and_a_check_without_news_is_no_change() {
        let mut lateness = Lateness::default();
        lateness.begin();
        lateness.end(true, at(60));
        assert_eq!(
            (lateness.last(), lateness.trouble(Duration::ZERO, at(60))),
            (Duration::ZERO, None)
        );
        lateness.news(at(60));
        for start in 60..66 {
            lateness.begin();
            lateness.end(false, at(start));
        }
        assert!(lateness.trouble(Duration::ZERO, at(66)).unwrap().contains("waited 6 s"));
    }

    /// Goal: a daemon that is behind says so before it has made out what it was told.
    #[test]
    fn what_waits_before_a_pass_is_told_of_and_counts_when_it_is_programmed() {
        let mut lateness = Lateness::default();
        assert!(lateness.trouble(at(7), at(7)).unwrap().contains("waited 7 s"));
        lateness.news(at(9));
        lateness.news(at(0));
        lateness.begin();
        lateness.end(true, at(10));
        assert_eq!(lateness.last(), at(10), "from when the older one came");
        assert!(lateness.trouble(Duration::ZERO, at(11)).unwrap().contains("10 s after it came"));
    }
}
