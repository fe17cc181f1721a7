//! A slow line, as a pure core: frames go in, and come out when their time has come.
//!
//! A frame takes what its pair of addresses takes, and a random part of the spread for
//! each: where the spread is wider than their distance, frames change places.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

/// Most frames that are held at once; further ones are dropped and counted.
pub const HELD_FRAMES_MAX: usize = 16_384;

/// How slow the way from one address to another is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The sender.
    pub from: Ipv4Addr,
    /// The receiver.
    pub to: Ipv4Addr,
    /// Milliseconds that each frame takes at least.
    pub ms: u32,
    /// Up to so many more.
    pub spread_ms: u32,
}

/// What became of frames.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Held now.
    pub held: usize,
    /// Given back.
    pub sent: u64,
    /// Dropped because too many were held.
    pub dropped: u64,
}

type Addresses = (Ipv4Addr, Ipv4Addr);

/// The line. It owns no clock: every call says what time it is.
#[derive(Debug)]
pub struct Line {
    pairs: BTreeMap<Addresses, Pair>,
    /// By the time when each is due, then in the order in which they came.
    held: BTreeMap<(Duration, u64), (Addresses, Vec<u8>)>,
    came: u64,
    sent: u64,
    dropped: u64,
    random: StdRng,
}

impl Line {
    /// A line that slows nothing yet. The seed decides about all that is drawn.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let (pairs, held) = (BTreeMap::new(), BTreeMap::new());
        Self { pairs, held, came: 0, sent: 0, dropped: 0, random }
    }

    /// Replaces the set of slow pairs. Frames held for others are due at once.
    pub fn set_pairs(&mut self, pairs: &[Pair]) {
        self.pairs = pairs.iter().map(|pair| ((pair.from, pair.to), *pair)).collect();
        let held = std::mem::take(&mut self.held);
        for ((due, number), (addresses, frame)) in held {
            let due = if self.pairs.contains_key(&addresses) { due } else { Duration::ZERO };
            self.held.insert((due, number), (addresses, frame));
        }
    }

    /// Takes a frame, if one came, and gives those whose time has come, in their order.
    ///
    /// A frame of a pair that is not slow goes through; one that is not IPv4 has no business here.
    pub fn step(&mut self, frame: Option<&[u8]>, now: Duration) -> Vec<Vec<u8>> {
        if let Some((addresses, frame)) = frame.and_then(|frame| Some((read(frame)?, frame))) {
            if self.held.len() >= HELD_FRAMES_MAX {
                self.dropped += 1;
            } else {
                let due = self.pairs.get(&addresses).map_or(now, |pair| {
                    let spread = self.random.random_range(0..=u64::from(pair.spread_ms));
                    now + Duration::from_millis(u64::from(pair.ms) + spread)
                });
                self.came += 1;
                self.held.insert((due, self.came), (addresses, frame.to_vec()));
            }
        }
        let mut sent = Vec::new();
        while let Some(first) = self.held.first_entry().filter(|first| first.key().0 <= now) {
            sent.push(first.remove().1);
            self.sent += 1;
        }
        sent
    }

    /// When the next frame is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.held.first_key_value().map(|((due, _), _)| *due)
    }

    /// What became of frames so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { held: self.held.len(), sent: self.sent, dropped: self.dropped }
    }
}

/// Sender and receiver of an Ethernet frame that carries IPv4 (RFC 894, RFC 791).
fn read(frame: &[u8]) -> Option<Addresses> {
    const ETHERTYPE: std::ops::Range<usize> = 12..14;
    const IPV4: [u8; 2] = [0x08, 0x00];
    let address = |at: usize| {
        let bytes: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    };
    if frame.get(ETHERTYPE)? != IPV4 {
        return None;
    }
    Some((address(26)?, address(30)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 11);
    const B: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 12);

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    fn frame(from: Ipv4Addr, to: Ipv4Addr, mark: u8) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        bytes.extend([0x08, 0x00]);
        bytes.extend([0; 12]);
        bytes.extend(from.octets());
        bytes.extend(to.octets());
        bytes.push(mark);
        bytes
    }

    fn marks(frames: &[Vec<u8>]) -> Vec<u8> {
        frames.iter().filter_map(|frame| frame.last().copied()).collect()
    }

    fn slow(delay_ms: u32, spread_ms: u32) -> Line {
        let mut line = Line::new(7);
        line.set_pairs(&[Pair { from: A, to: B, ms: delay_ms, spread_ms }]);
        line
    }

    #[test]
    fn a_frame_comes_out_when_its_time_has_come_and_not_before() {
        let mut line = slow(20, 0);
        assert_eq!(line.next_due(), None);
        // (a frame, the time, what comes out)
        for (came, now, out) in [
            (Some(1), 100, vec![]),
            (None, 119, vec![]),
            (Some(2), 119, vec![]),
            (None, 120, vec![1]),
            (None, 138, vec![]),
            (None, 500, vec![2]),
        ] {
            let came = came.map(|mark| frame(A, B, mark));
            assert_eq!(marks(&line.step(came.as_deref(), ms(now))), out, "at {now} ms");
        }
        assert_eq!(line.counts(), Counts { held: 0, sent: 2, dropped: 0 });
    }

    #[test]
    fn a_spread_puts_frames_out_of_order_within_its_bounds() {
        let mut line = slow(10, 50);
        for mark in 0..100 {
            assert!(line.step(Some(&frame(A, B, mark)), ms(0)).is_empty());
        }
        assert!(line.step(None, ms(9)).is_empty(), "each takes 10 ms at least");
        assert!(line.next_due() >= Some(ms(10)));
        let mut out = Vec::new();
        for now in 10..=60 {
            out.extend(marks(&line.step(None, ms(now))));
        }
        assert_eq!(out.len(), 100, "each takes 60 ms at most");
        assert!(!out.is_sorted(), "none changed places");
        out.sort_unstable();
        assert_eq!(out, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let order = || {
            let mut line = slow(1, 100);
            for mark in 0..50 {
                line.step(Some(&frame(A, B, mark)), ms(0));
            }
            (0..=101).flat_map(|now| marks(&line.step(None, ms(now)))).collect::<Vec<_>>()
        };
        assert_eq!(order(), order());
    }

    #[test]
    fn other_pairs_go_through_and_what_is_not_ipv4_goes_nowhere() {
        let mut line = slow(20, 0);
        assert_eq!(marks(&line.step(Some(&frame(B, A, 3)), ms(1))), [3]);
        let mut arp = frame(A, B, 4);
        arp[13] = 0x06;
        assert!(line.step(Some(&arp), ms(1)).is_empty());
        assert!(line.step(Some(b"short"), ms(1)).is_empty());
        assert!(line.step(None, ms(1_000)).is_empty());
        assert_eq!(line.counts(), Counts { held: 0, sent: 1, dropped: 0 });
    }

    #[test]
    fn a_pair_that_is_healed_gets_back_what_is_held() {
        let mut line = slow(1_000, 0);
        line.step(Some(&frame(A, B, 1)), ms(0));
        line.step(Some(&frame(A, B, 2)), ms(1));
        line.set_pairs(&[Pair { from: A, to: B, ms: 5, spread_ms: 0 }]);
        assert!(line.step(None, ms(10)).is_empty(), "what is under way keeps its time");
        line.set_pairs(&[]);
        assert_eq!(marks(&line.step(None, ms(11))), [1, 2]);
    }

    #[test]
    fn a_full_line_drops_and_counts() {
        let mut line = slow(1_000, 0);
        for _ in 0..HELD_FRAMES_MAX + 3 {
            line.step(Some(&frame(A, B, 0)), ms(0));
        }
        assert_eq!(line.counts(), Counts { held: HELD_FRAMES_MAX, sent: 0, dropped: 3 });
        assert_eq!(line.step(None, ms(1_000)).len(), HELD_FRAMES_MAX);
    }
}
