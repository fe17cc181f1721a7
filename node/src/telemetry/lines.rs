//! A limit on how often each place in the code may write to the log.
//!
//! Peers, tasks and strangers cause lines, in this program and in the libraries that it speaks to
//! them by: a flood of malformed queries or handshakes must not fill the disk. Every place has
//! some lines at once and then one a second; what is withheld is counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::layer::{Context, Layer};

use crate::clock;

/// Lines of one place that may follow each other at once.
const LINES_BURST: u32 = 64;
/// After that one may be written this often.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

static WITHHELD: AtomicU64 = AtomicU64::new(0);

/// Lines that were withheld since the daemon started.
pub(super) fn withheld() -> u64 {
    WITHHELD.load(Ordering::Relaxed)
}

/// Where a line comes from: its target, file and number.
type Place = (String, Option<String>, Option<u32>);

/// The place in the code of a line, also of one that a library wrote by the crate `log`.
fn place(event: &Event<'_>) -> Place {
    let normalized = event.normalized_metadata();
    let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
    (metadata.target().to_owned(), metadata.file().map(str::to_owned), metadata.line())
}

/// The limit, as a layer of the subscriber.
#[derive(Default)]
pub(super) struct Limit(Mutex<BTreeMap<Place, Bucket>>);

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let place = place(event);
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::monotonic();
        let allowed = buckets.entry(place).or_insert_with(|| Bucket::new(now)).take(now);
        if !allowed {
            WITHHELD.fetch_add(1, Ordering::Relaxed);
        }
        allowed
    }
}

/// The lines that a place may still write.
struct Bucket {
    left: u32,
    /// Up to when it has been filled.
    filled: Duration,
}

impl Bucket {
    fn new(now: Duration) -> Self {
        Self { left: LINES_BURST, filled: now }
    }

    fn take(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.filled).as_secs() / LINE_INTERVAL.as_secs();
        let earned = u32::try_from(earned).unwrap_or(LINES_BURST).min(LINES_BURST);
        if earned > 0 {
            self.left = (self.left + earned).min(LINES_BURST);
            self.filled = now;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_place_has_a_burst_and_then_one_line_a_second() {
        let at = Duration::from_millis;
        let mut bucket = Bucket::new(at(0));
        let burst = (0..1000).filter(|_| bucket.take(at(10))).count();
        assert_eq!(burst, LINES_BURST as usize);
        let flood = (0..10_000).filter(|ms| bucket.take(at(10 + ms))).count();
        assert_eq!(flood, 10);
        assert!((0..1000).filter(|_| bucket.take(at(1_000_000))).count() == LINES_BURST as usize);
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Goal: one place that is flooded takes nothing from another, and what is withheld is counted.
    #[test]
    fn a_flood_of_one_line_leaves_the_others_alone() {
        let written = Written::default();
        let writer = written.clone();
        let lines = fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(Limit::default()).with(lines);
        let before = withheld();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..1000 {
                tracing::warn!("a peer says this");
            }
            tracing::warn!("another line");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let count = |words: &str| text.lines().filter(|line| line.contains(words)).count();
        // A second may pass meanwhile.
        let flood = count("a peer says this");
        assert!((64..=70).contains(&flood), "{flood}");
        assert_eq!(count("another line"), 1);
        assert!(withheld() - before >= 930);
    }

    /// Goal: libraries that log by the crate `log` have places too.
    #[test]
    fn lines_of_libraries_are_told_apart() {
        use tracing_log::log::{Level, Log as _, Record};
        let written = Written::default();
        let writer = written.clone();
        let lines = fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(Limit::default()).with(lines);
        let line = |text: &str, number| {
            let arguments = format_args!("{text}");
            let mut record = Record::builder();
            record.level(Level::Warn).target("library").file(Some("library.rs"));
            tracing_log::LogTracer::new().log(&record.line(Some(number)).args(arguments).build());
        };
        tracing::subscriber::with_default(subscriber, || {
            (0..1000).for_each(|_| line("a handshake failed", 1));
            line("something else", 2);
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().filter(|line| line.contains("something else")).count(), 1);
        assert!(text.lines().filter(|line| line.contains("handshake")).count() <= 70);
    }
}
