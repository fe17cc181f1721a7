//! Identifiers: 128 bits shown as 25 base-36 characters, as Docker's are (swarmkit `identity`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Characters of a printed id: 36^25 is the first power that exceeds 2^128.
pub const ID_CHARS: usize = 25;
const CHUNK_CHARS: usize = 12;
const CHUNK: u128 = 36_u128.pow(12);
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("id {0:?} is not 25 characters of 0-9 and a-z")]
pub struct ParseIdError(pub String);

/// The printed form of a raw id.
#[must_use]
pub fn format_id(raw: u128) -> String {
    as_text(&digits(raw)).to_owned()
}

fn digits(mut raw: u128) -> [u8; ID_CHARS] {
    let mut text = [b'0'; ID_CHARS];
    // Twelve digits at a time fit 64 bits, where division is many times faster.
    for chunk in text.rchunks_mut(CHUNK_CHARS) {
        let mut part = (raw % CHUNK) as u64;
        raw /= CHUNK;
        for place in chunk.iter_mut().rev() {
            *place = DIGITS[(part % 36) as usize];
            part /= 36;
        }
    }
    text
}

/// Digits are ASCII.
fn as_text(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).unwrap_or_default()
}

/// The inverse of [`format_id`].
pub fn parse_id(text: &str) -> Result<u128, ParseIdError> {
    let bad = || ParseIdError(text.to_owned());
    if text.len() != ID_CHARS {
        return Err(bad());
    }
    text.bytes().try_fold(0_u128, |raw, byte| {
        let digit = DIGITS.iter().position(|d| *d == byte).ok_or_else(bad)?;
        raw.checked_mul(36).and_then(|r| r.checked_add(digit as u128)).ok_or_else(bad)
    })
}

/// The first and the last raw id whose printed forms begin with `text`: printed ids are in the
/// order of raw ones.
pub(crate) fn ids_with_prefix(text: &str) -> Option<(u128, u128)> {
    let padded = |with: char| {
        let missing = ID_CHARS.checked_sub(text.len())?;
        Some(text.chars().chain(std::iter::repeat_n(with, missing)).collect::<String>())
    };
    let first = parse_id(&padded('0')?).ok()?;
    // Beyond 128 bits there are none.
    Some((first, parse_id(&padded('z')?).unwrap_or(u128::MAX)))
}

/// The bounds of an id, for ranges of keys that end with one.
pub(crate) trait Id: Copy + Ord {
    const MIN: Self;
    const MAX: Self;
}

macro_rules! id_types {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl Id for $name {
            const MIN: Self = Self(0);
            const MAX: Self = Self(u128::MAX);
        }

        impl From<u128> for $name {
            fn from(raw: u128) -> Self {
                Self(raw)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(as_text(&digits(self.0)))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(as_text(&digits(self.0)))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_id(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.serialize_str(as_text(&digits(self.0)))
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    u128::deserialize(deserializer).map(Self)
                }
            }
        }
    )*};
}

id_types! {
    /// A cluster; drawn by `swarm init`.
    ClusterId,
    /// A machine of the cluster; never reused for a new data directory.
    NodeId,
    /// An overlay network.
    NetworkId,
    /// A service.
    ServiceId,
    /// A task: one run of one slot of a service, on one node.
    TaskId,
    /// A request of a client, on all its ways to a leader; drawn by the manager that received it.
    RequestId,
}

impl NetworkId {
    /// The first five characters, used in device names (`ov-001000-abcde`).
    #[must_use]
    pub fn short(&self) -> String {
        format_id(self.0)[..5].to_owned()
    }
}

/// Derives the ids of one transaction from the seed that its request carries, so that deciding
/// stays pure: the same request on the same state gives the same ids.
#[derive(Debug, Clone)]
pub struct IdSource {
    state: u128,
}

impl IdSource {
    /// Starts from the request's seed.
    #[must_use]
    pub fn new(seed: u128) -> Self {
        Self { state: seed }
    }

    /// The next raw id.
    pub fn draw(&mut self) -> u128 {
        // Two SplitMix64 streams (Steele, Lea, Flood 2014), one per half of the state.
        let low = Self::mix(self.state as u64);
        let high = Self::mix((self.state >> 64) as u64 ^ low);
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        (u128::from(high) << 64) | u128::from(low)
    }

    fn mix(value: u64) -> u64 {
        let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Goal: the ids with a prefix are those between two, and no others.
        #[test]
        fn prefixes_of_printed_ids_are_ranges(raw: u128, other: u128, length in 0..=ID_CHARS) {
            let prefix = &format_id(raw)[..length];
            let (first, last) = ids_with_prefix(prefix).unwrap();
            prop_assert!((first..=last).contains(&raw));
            let inside = (first..=last).contains(&other);
            prop_assert_eq!(inside, format_id(other).starts_with(prefix));
        }

        #[test]
        fn text_round_trips(raw: u128) {
            let id = TaskId(raw);
            prop_assert_eq!(id.to_string().parse::<TaskId>(), Ok(id));
            prop_assert_eq!(id.to_string().len(), ID_CHARS);
        }

        #[test]
        fn draws_differ(seed: u128) {
            let mut source = IdSource::new(seed);
            let drawn: std::collections::BTreeSet<u128> = (0..64).map(|_| source.draw()).collect();
            prop_assert_eq!(drawn.len(), 64);
        }
    }

    #[test]
    fn bad_text_is_refused() {
        for text in ["", "abc", "zzzzzzzzzzzzzzzzzzzzzzzzz", "A000000000000000000000000"] {
            assert!(parse_id(text).is_err(), "{text}");
        }
    }
}
