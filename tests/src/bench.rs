//! Figures of the first vertical: how long it takes until a request, a new backend, a lost node
//! and a lost leader have had their effect, seen from outside the daemons.
//!
//! A figure is the time from just before the cause until the effect was seen by a probe that is
//! much quicker than what it measures: connections from inside sandboxes, and dumps of the
//! kernel's own maps. No daemon is asked whether it is done.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

pub mod leader;
pub mod rows;
pub mod sandbox;
pub mod slots;
pub mod stand_in;
pub mod vertical;
pub mod writes;

/// How often a probe looks; the error of a figure is at most this and one look.
pub const LOOK_PERIOD: Duration = Duration::from_millis(1);
/// The longest that any effect may take before the run counts as failed.
pub const EFFECT_MAX: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Request to create a service → its VIP answers on all three nodes.
    Create,
    /// Request to scale a service up → the new backend is in every balancer.
    Scale,
    /// A whole node is killed → its backend is out of every balancer that is left.
    NodeLoss,
    /// The leader is killed → the next write is accepted.
    LeaderLoss,
}

impl Figure {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Create, Self::Scale, Self::NodeLoss, Self::LeaderLoss];

    /// The letter by which the command line names it.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Create => 'a',
            Self::Scale => 'b',
            Self::NodeLoss => 'c',
            Self::LeaderLoss => 'd',
        }
    }

    /// For people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Create => "service requested → its VIP answers on all three nodes",
            Self::Scale => "backend requested → in every balancer",
            Self::NodeLoss => "node killed → its backend out of every balancer",
            Self::LeaderLoss => "leader killed → next accepted write",
        }
    }

    /// What p99 should be below.
    #[must_use]
    pub fn aim(self) -> Duration {
        match self {
            Self::Create | Self::Scale => Duration::from_millis(100),
            Self::NodeLoss => Duration::from_secs(3),
            Self::LeaderLoss => Duration::from_millis(1_500),
        }
    }
}

/// The value that `percent` of the times do not exceed (nearest rank).
///
/// # Errors
/// Without any time.
pub fn percentile(times: &[Duration], percent: usize) -> Result<Duration> {
    ensure!((1..=100).contains(&percent), "{percent} is no percentage");
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().context("no run was measured")
}

/// One line of the Markdown table.
///
/// # Errors
/// Without any time.
pub fn row(figure: Figure, times: &[Duration]) -> Result<String> {
    let show = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1_000.0);
    let (half, most) = (percentile(times, 50)?, percentile(times, 99)?);
    Ok(format!(
        "| {} | {} | {} | {} | {} ms |",
        figure.title(),
        times.len(),
        show(half),
        show(most),
        figure.aim().as_millis()
    ))
}

/// The head of the Markdown table.
pub const HEAD: &str = "| from → to | runs | p50 | p99 | aim of p99 |\n|---|---|---|---|---|";

#[test]
fn percentiles_are_nearest_ranks() {
    let times: Vec<Duration> = (1..=50).rev().map(Duration::from_millis).collect();
    let at = |percent| percentile(&times, percent).expect("there are times").as_millis();
    assert_eq!([at(1), at(50), at(98), at(99), at(100)], [1, 25, 49, 50, 50]);
    assert!(percentile(&[], 50).is_err());
    assert!(percentile(&times, 0).is_err());
}

#[test]
fn a_row_is_markdown() {
    let row = row(Figure::Scale, &[Duration::from_micros(12_340)]).expect("there is a time");
    let expected = "| backend requested → in every balancer | 1 | 12.3 ms | 12.3 ms | 100 ms |";
    assert_eq!(row, expected);
}
