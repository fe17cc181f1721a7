//! One line of a log file, in the format of the Kubernetes CRI: time, stream, `F` or `P` (more of
//! the same line follows), text. The text may be any bytes.

use std::io::Write;
use std::time::SystemTime;

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// A longer line is split into several entries, as Docker does (moby `logger/copier.go`).
pub const TEXT_BYTES_MAX: usize = 16 << 10;

/// Where a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    fn word(self) -> &'static str {
        match self {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
        }
    }
}

/// One entry of a task's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When the supervisor read it.
    pub time: SystemTime,
    /// Where it was written to.
    pub stream: LogStream,
    /// Whether the line goes on in the next entry of this stream.
    pub partial: bool,
    /// The text without its newline.
    pub text: Vec<u8>,
}

impl LogLine {
    /// Writes an entry with its newline.
    pub fn encode(&self, to: &mut Vec<u8>) {
        let time = OffsetDateTime::from(self.time);
        let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
        let (hour, minute, second) = time.to_hms();
        // Writing to a vector cannot fail.
        let _ = write!(
            to,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z {} {} ",
            time.nanosecond(),
            self.stream.word(),
            if self.partial { 'P' } else { 'F' },
        );
        to.extend_from_slice(&self.text);
        to.push(b'\n');
    }

    /// Reads an entry without its newline. `None` for one that a crash has cut, or of a time that
    /// no clock of a node shows.
    pub fn decode(bytes: &[u8]) -> Option<LogLine> {
        let mut parts = bytes.splitn(4, |byte| *byte == b' ');
        let time = str::from_utf8(parts.next()?).ok()?;
        let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
        let time = time.checked_to_offset(UtcOffset::UTC).filter(|time| time.year() >= 1970)?;
        let time = time.into();
        let stream = match parts.next()? {
            b"stdout" => LogStream::Stdout,
            b"stderr" => LogStream::Stderr,
            _ => return None,
        };
        let partial = match parts.next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some(LogLine { time, stream, partial, text: parts.next()?.to_vec() })
    }
}
