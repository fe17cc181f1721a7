//! Objects in Docker's JSON. Field names, optional fields and zero values are those of the Engine
//! API v1.44; golden files in `tests` check them.

use cluster::object::Meta;
use cluster::time::Timestamp;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(crate) mod certificate;
pub(crate) mod cluster_info;
pub(crate) mod info;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod service;
pub(crate) mod task;

/// Docker's `ObjectVersion`.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Version {
    index: u64,
}

impl From<Meta> for Version {
    fn from(meta: Meta) -> Self {
        Self { index: meta.version.0 }
    }
}

/// RFC 3339 in UTC, as Go prints a time: no fraction where it is zero.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    moment(at).format(&Rfc3339).unwrap_or_else(|_year_out_of_range| GO_ZERO_TIME.to_owned())
}

/// RFC 3339 with all nine digits, as log lines have it (Docker's `RFC3339NanoFixed`).
pub(crate) fn rfc3339_fixed(at: Timestamp) -> String {
    let at = moment(at);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.nanosecond()
    )
}

/// How Go prints a time that was never set.
pub(crate) const GO_ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// A time after the year 9999 is invalid and shown as the epoch.
fn moment(at: Timestamp) -> OffsetDateTime {
    let nanos = i128::from(at.0) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_go_prints_them() {
        assert_eq!(rfc3339(Timestamp(1_763_929_349_123)), "2025-11-23T20:22:29.123Z");
        assert_eq!(rfc3339(Timestamp(1_763_929_349_000)), "2025-11-23T20:22:29Z");
        assert_eq!(rfc3339_fixed(Timestamp(1_763_929_349_120)), "2025-11-23T20:22:29.120000000Z");
        assert_eq!(rfc3339(Timestamp(u64::MAX)), "1970-01-01T00:00:00Z");
    }
}
