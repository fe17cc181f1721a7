//! The bytes of one message. Those to a syslog server are Docker's (moby `daemon/logger/syslog`,
//! RackSec/srslog): the tag stands for the program, and each message ends in a newline.

use std::fmt::Write;

use cluster::log_driver::{Format, Syslog};
use time::OffsetDateTime;

use crate::logs::{LogLine, LogStream};

/// RFC 5424, section 6.2.1: standard error is an error, standard output informational.
fn severity(line: &LogLine) -> u8 {
    match line.stream {
        LogStream::Stdout => 6,
        LogStream::Stderr => 3,
    }
}

/// What sends.
pub(super) struct Origin {
    pub(super) hostname: String,
    pub(super) pid: u32,
}

/// RFC 3164 (with or without the host's name) or RFC 5424. `time` is local.
pub(super) fn syslog(
    to: &Syslog,
    origin: &Origin,
    time: OffsetDateTime,
    line: &LogLine,
) -> Vec<u8> {
    let priority = to.facility * 8 + severity(line);
    let (tag, Origin { hostname, pid }) = (&to.tag, origin);
    let head = match to.format {
        Format::Unix => format!("<{priority}>{} {tag}[{pid}]: ", stamp(time)),
        Format::Rfc3164 => format!("<{priority}>{} {hostname} {tag}[{pid}]: ", stamp(time)),
        Format::Rfc5424 => {
            format!("<{priority}>1 {} {hostname} {tag} {pid} {tag} - ", moment(time, ""))
        }
        Format::Rfc5424Micro => {
            let part = format!(".{:06}", time.microsecond());
            format!("<{priority}>1 {} {hostname} {tag} {pid} {tag} - ", moment(time, &part))
        }
    };
    let mut message = head.into_bytes();
    message.extend_from_slice(&line.text);
    message.push(b'\n');
    message
}

/// The journal's own form (systemd: docs/JOURNAL_NATIVE_PROTOCOL.md).
pub(super) fn journal(
    fields: &[(String, String)],
    time: OffsetDateTime,
    line: &LogLine,
) -> Vec<u8> {
    let mut message = Vec::new();
    entry(&mut message, "MESSAGE", &line.text);
    entry(&mut message, "PRIORITY", severity(line).to_string().as_bytes());
    for (name, value) in fields {
        entry(&mut message, name, value.as_bytes());
    }
    if line.partial {
        entry(&mut message, "CONTAINER_PARTIAL_MESSAGE", b"true");
    }
    let at = moment(time, &format!(".{:09}", time.nanosecond()));
    entry(&mut message, "SYSLOG_TIMESTAMP", at.as_bytes());
    message
}

fn entry(message: &mut Vec<u8>, name: &str, value: &[u8]) {
    message.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        message.push(b'\n');
        message.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        message.push(b'=');
    }
    message.extend_from_slice(value);
    message.push(b'\n');
}

/// RFC 3164, section 4.1.2: `Oct  9 22:33:20`.
fn stamp(time: OffsetDateTime) -> String {
    let (month, (hour, minute, second)) = (time.month().to_string(), time.to_hms());
    format!("{} {:>2} {hour:02}:{minute:02}:{second:02}", &month[..3], time.day())
}

/// RFC 3339.
fn moment(time: OffsetDateTime, part: &str) -> String {
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second) = time.to_hms();
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{part}");
    let (hours, minutes, _) = time.offset().as_hms();
    if (hours, minutes) == (0, 0) {
        text.push('Z');
    } else {
        let sign = if time.offset().is_negative() { '-' } else { '+' };
        let _ = write!(text, "{sign}{:02}:{:02}", hours.abs(), minutes.abs());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use cluster::log_driver::Address;
    use time::UtcOffset;

    use super::*;

    fn line(stream: LogStream, text: &[u8]) -> LogLine {
        let time = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        LogLine { time, stream, partial: false, text: text.to_vec() }
    }

    fn at(offset: i8) -> OffsetDateTime {
        let time = OffsetDateTime::from(line(LogStream::Stdout, b"").time);
        time.to_offset(UtcOffset::from_hms(offset, 0, 0).unwrap())
    }

    /// Goal: what a server gets is what Docker sends. Method: the forms of moby and srslog, byte by
    /// byte.
    #[test]
    fn messages_to_a_syslog_server() {
        let origin = Origin { hostname: "alpha".to_owned(), pid: 7 };
        let out = line(LogStream::Stdout, b"hello \xff");
        for (facility, format, offset, head) in [
            (3, Format::Unix, 0, "<30>Nov 14 22:13:20 web[7]: "),
            (3, Format::Unix, 10, "<30>Nov 15 08:13:20 web[7]: "),
            (16, Format::Rfc3164, 0, "<134>Nov 14 22:13:20 alpha web[7]: "),
            (0, Format::Rfc5424, 0, "<6>1 2023-11-14T22:13:20Z alpha web 7 web - "),
            (0, Format::Rfc5424, -3, "<6>1 2023-11-14T19:13:20-03:00 alpha web 7 web - "),
            (
                23,
                Format::Rfc5424Micro,
                2,
                "<190>1 2023-11-15T00:13:20.123456+02:00 alpha web 7 web - ",
            ),
        ] {
            let address = Address::Unixgram("/dev/log".to_owned());
            let to = Syslog { address, facility, format, tag: "web".to_owned() };
            let expected = [head.as_bytes(), b"hello \xff\n"].concat();
            let message = syslog(&to, &origin, at(offset), &out);
            assert_eq!(message, expected, "{}", message.escape_ascii());
            let error = syslog(&to, &origin, at(offset), &line(LogStream::Stderr, b"x"));
            let priority = format!("<{}>", facility * 8 + 3);
            assert!(error.starts_with(priority.as_bytes()));
        }
        let first = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(stamp(first), "Jan  1 00:00:00");
    }

    #[test]
    fn entries_of_the_journal() {
        let fields = [("CONTAINER_NAME", "web.1.x"), ("A", "one\ntwo")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut out = line(LogStream::Stdout, b"hello");
        out.partial = true;
        let expected = b"MESSAGE=hello\nPRIORITY=6\nCONTAINER_NAME=web.1.x\n\
            A\n\x07\0\0\0\0\0\0\0one\ntwo\nCONTAINER_PARTIAL_MESSAGE=true\n\
            SYSLOG_TIMESTAMP=2023-11-14T22:13:20.123456789Z\n";
        assert_eq!(journal(&fields, at(0), &out), expected);
        let error = journal(&[], at(0), &line(LogStream::Stderr, b""));
        assert!(error.starts_with(b"MESSAGE=\nPRIORITY=3\nSYSLOG_TIMESTAMP="));
    }
}
