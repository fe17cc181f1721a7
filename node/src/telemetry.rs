//! Log lines of the daemon; its metrics are in `meters` and `scrape`.

use std::time::Duration;

use anyhow::Context as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::clock;
use crate::config::LogFormat;

mod lines;
pub mod meters;
mod scrape;

pub use scrape::{METRICS_TYPE, metrics};

/// Environment variable that sets the log level; `info` unless given.
const LEVEL: &str = "SKEIN_LOG";

/// openraft tells every step at `info` and every heartbeat that got no answer at `warn`; who leads
/// and whose lease ran out is told by the manager. hickory tells every query.
const DEFAULT_FILTER: &str = "info,openraft=error,hickory_server=warn";

/// Starts logging to standard error.
///
/// # Errors
/// When the environment asks for levels that are none.
pub fn start(format: LogFormat) -> anyhow::Result<()> {
    let given = std::env::var_os(LEVEL).map(|value| value.to_string_lossy().into_owned());
    let filter = levels(given.as_deref().unwrap_or(DEFAULT_FILTER))?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter).with(lines::Limit::default());
    match format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).init(),
        LogFormat::Json => registry.with(lines.json()).init(),
    }
    Ok(())
}

/// A level for all, or one for each of some parts.
fn levels(text: &str) -> anyhow::Result<Targets> {
    text.parse().with_context(|| {
        format!("{LEVEL} {text:?}: say a level, as debug, or parts with one, as skein=debug,info")
    })
}

/// A line that a peer or a task can cause is written this often at most.
const SELDOM: Duration = Duration::from_secs(10);

/// Lets one line of many through, and counts the others.
#[derive(Debug, Default)]
pub struct Seldom {
    last: Option<Duration>,
    kept_back: u64,
}

impl Seldom {
    /// Whether to write the line now: with how many others were kept back since the last one.
    pub fn say(&mut self) -> Option<u64> {
        self.say_at(clock::monotonic())
    }

    fn say_at(&mut self, now: Duration) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + SELDOM) {
            self.kept_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.kept_back))
    }
}

#[test]
fn levels_are_read_and_others_refused() {
    let filter = levels(DEFAULT_FILTER).expect("the default");
    let told = |target: &str, level| filter.would_enable(target, &level);
    assert!(told("skein::worker", tracing::Level::INFO));
    assert!(!told("openraft::core", tracing::Level::WARN));
    let error = format!("{:#}", levels("skein=loud").expect_err("no level"));
    assert!(error.contains("SKEIN_LOG") && error.contains("\"skein=loud\""), "{error}");
}

#[test]
fn a_line_is_said_seldom_and_tells_how_many_were_not() {
    let mut line = Seldom::default();
    let at = |ms| Duration::from_millis(ms);
    assert_eq!(line.say_at(at(0)), Some(0));
    assert_eq!((line.say_at(at(1)), line.say_at(at(9_999))), (None, None));
    assert_eq!((line.say_at(at(10_000)), line.say_at(at(20_000))), (Some(2), Some(0)));
}
