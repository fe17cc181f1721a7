//! The drivers that send lines elsewhere, `syslog` and `journald`, and their options (moby:
//! `daemon/logger/syslog`, `journald`). What they send is kept in files too, so that `service logs`
//! answers, as Docker's dual logging does.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Checked, Files, LOCAL, LogDriver, file_bytes, file_count};
use crate::rejection::{Code, Rejection};
use crate::spec::Labels;

/// Where the programs of a machine log.
const LOCAL_SYSLOG: &str = "/dev/log";
/// Of syslog over UDP (RFC 5426, section 3.3), and Docker's over TCP.
const SYSLOG_PORT: u16 = 514;
/// `daemon` (RFC 5424, section 6.2.1), Docker's default.
const FACILITY: u8 = 3;
/// By number; those from `local0` on begin at 16.
const FACILITIES: [&str; 12] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp",
];
const FACILITY_MAX: u8 = 23;
/// The first 12 characters of the id, as Docker's.
pub(crate) const TAG: &str = "{{.ID}}";

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// A syslog server.
    Syslog(Syslog),
    /// The node's journal.
    Journald(Journald),
}

/// How a syslog server is reached and spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syslog {
    /// Where it is.
    pub address: Address,
    /// Number of the facility.
    pub facility: u8,
    /// Form of a message.
    pub format: Format,
    /// What names the task in it.
    pub tag: String,
}

/// Where a syslog server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// Datagrams.
    Udp(SocketAddr),
    /// A stream.
    Tcp(SocketAddr),
    /// A stream on the node.
    Unix(String),
    /// Datagrams on the node.
    Unixgram(String),
}

/// Form of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// Docker's default: RFC 3164 without the host's name.
    Unix,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424, seconds.
    Rfc5424,
    /// RFC 5424, microseconds.
    Rfc5424Micro,
}

/// What is told with each line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Journald {
    /// What names the task.
    pub tag: String,
    /// Labels of the task.
    pub labels: Vec<String>,
    /// Variables of the task.
    pub env: Vec<String>,
}

/// Reads the options of `syslog` or `journald`.
pub(super) fn read(name: &str, options: &Labels) -> Result<Checked, Rejection> {
    let mut warnings = Vec::new();
    let mut is_kept = true;
    let mut syslog = Syslog {
        address: Address::Unixgram(LOCAL_SYSLOG.to_owned()),
        facility: FACILITY,
        format: Format::Unix,
        tag: TAG.to_owned(),
    };
    let mut journald = Journald { tag: TAG.to_owned(), ..Journald::default() };
    for (option, value) in options {
        let no_effect =
            |instead: &str| format!("log option {option}={value} is not supported: {instead}");
        match (name, option.as_str(), value.as_str()) {
            (_, "tag", tag) => tag.clone_into(match name {
                "syslog" => &mut syslog.tag,
                _ => &mut journald.tag,
            }),
            (_, "mode", "non-blocking") | (_, "cache-compress" | "cache-disabled", "false") => {}
            (_, "mode", "blocking") => {
                warnings.push(no_effect("lines that cannot be sent in time are dropped"));
            }
            (_, "cache-compress", "true") => warnings.push(no_effect("files are not compressed")),
            (_, "cache-disabled", "true") => is_kept = false,
            (_, "cache-max-size" | "cache-max-file", _) => {}
            (_, "mode" | "cache-compress" | "cache-disabled", value) => {
                let message = format!("invalid value {value:?} of log option {option}");
                return Err(Rejection::invalid(message));
            }
            ("syslog", "syslog-address", url) => syslog.address = address(url)?,
            ("syslog", "syslog-facility", facility) => syslog.facility = number_of(facility)?,
            ("syslog", "syslog-format", format) => syslog.format = format_named(format)?,
            ("syslog", "labels" | "labels-regex" | "env" | "env-regex", _) => {
                warnings.push(no_effect("a message has no such details"));
            }
            ("journald", "labels", names) => journald.labels = words(names),
            ("journald", "env", names) => journald.env = words(names),
            (_, "max-buffer-size", _) | ("journald", "labels-regex" | "env-regex", _) => {
                return Err(unimplemented(&no_effect("leave it out")));
            }
            ("syslog", tls, _) if tls.starts_with("syslog-tls-") => {
                return Err(unimplemented(&no_effect("send to a relay on the node")));
            }
            _ => {
                let message = format!("unknown log opt '{option}' for {name} log driver: {REMEDY}");
                return Err(Rejection::invalid(message));
            }
        }
    }
    let cache = Some(cached(options)?).filter(|_| is_kept);
    let sink = if name == "syslog" { Sink::Syslog(syslog) } else { Sink::Journald(journald) };
    Ok(Checked { driver: LogDriver::Sent { sink, cache }, warnings })
}

const REMEDY: &str = "use tag, cache-max-size, cache-max-file, cache-disabled, for journald labels \
    and env, for syslog syslog-address, syslog-facility and syslog-format";

fn cached(options: &Labels) -> Result<Files, Rejection> {
    let mut files = LOCAL;
    if let Some(size) = options.get("cache-max-size") {
        files.file_bytes_max = Some(file_bytes("cache-max-size", size)?);
    }
    if let Some(count) = options.get("cache-max-file") {
        files.files_max = Some(file_count("cache-max-file", count)?);
    }
    Ok(files)
}

fn unimplemented(message: &str) -> Rejection {
    Rejection::new(Code::Unimplemented, message)
}

fn words(names: &str) -> Vec<String> {
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// `udp://192.0.2.1:514`, `tcp://…`, `unix:///path`, `unixgram:///path`.
fn address(url: &str) -> Result<Address, Rejection> {
    let wrong = || {
        Rejection::invalid(format!(
            "log option syslog-address={url:?}: give udp://ADDRESS:PORT, tcp://ADDRESS:PORT, \
             unix:///PATH or unixgram:///PATH"
        ))
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let socket = || {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let alone = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(rest);
        let alone = alone.parse::<IpAddr>().map(|address| SocketAddr::new(address, SYSLOG_PORT));
        rest.parse::<SocketAddr>().or(alone).map_err(|_no_address| {
            let names = "names are not looked up, give an IP address";
            Rejection::invalid(format!("log option syslog-address={url:?}: {names}"))
        })
    };
    match scheme {
        "udp" => Ok(Address::Udp(socket()?)),
        "tcp" => Ok(Address::Tcp(socket()?)),
        "unix" if rest.starts_with('/') => Ok(Address::Unix(rest.to_owned())),
        "unixgram" if rest.starts_with('/') => Ok(Address::Unixgram(rest.to_owned())),
        "tcp+tls" => Err(unimplemented(&format!(
            "log option syslog-address={url:?}: TLS is not supported: send to a relay on the node"
        ))),
        _ => Err(wrong()),
    }
}

fn number_of(facility: &str) -> Result<u8, Rejection> {
    let named = FACILITIES.iter().position(|name| *name == facility);
    let local = || facility.strip_prefix("local")?.parse::<u8>().ok().filter(|n| *n < 8);
    let number = named.and_then(|at| u8::try_from(at).ok());
    let number = number.or_else(|| local().map(|n| 16 + n)).or_else(|| facility.parse().ok());
    number.filter(|number| *number <= FACILITY_MAX).ok_or_else(|| {
        Rejection::invalid(format!(
            "log option syslog-facility={facility:?}: give a name like daemon or local0, or a \
             number up to {FACILITY_MAX}"
        ))
    })
}

fn format_named(format: &str) -> Result<Format, Rejection> {
    match format {
        "" => Ok(Format::Unix),
        "rfc3164" => Ok(Format::Rfc3164),
        "rfc5424" => Ok(Format::Rfc5424),
        "rfc5424micro" => Ok(Format::Rfc5424Micro),
        other => Err(Rejection::invalid(format!(
            "log option syslog-format={other:?}: give rfc3164, rfc5424 or rfc5424micro"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, options: &[(&str, &str)]) -> Result<Checked, Rejection> {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        read(name, &options.iter().map(pair).collect())
    }

    fn syslog(options: &[(&str, &str)]) -> Syslog {
        match checked("syslog", options).unwrap().driver {
            LogDriver::Sent { sink: Sink::Syslog(syslog), .. } => syslog,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn servers_and_forms_are_docker_s() {
        let address = |url| syslog(&[("syslog-address", url)]).address;
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(address("udp://192.0.2.1"), Address::Udp(at("192.0.2.1:514")));
        assert_eq!(address("tcp://192.0.2.1:1514"), Address::Tcp(at("192.0.2.1:1514")));
        assert_eq!(address("udp://[2001:db8::1]:5"), Address::Udp(at("[2001:db8::1]:5")));
        assert_eq!(address("tcp://[2001:db8::1]"), Address::Tcp(at("[2001:db8::1]:514")));
        assert_eq!(address("unix:///run/log"), Address::Unix("/run/log".to_owned()));
        assert_eq!(address("unixgram:///run/log"), Address::Unixgram("/run/log".to_owned()));
        assert_eq!(syslog(&[]).address, Address::Unixgram("/dev/log".to_owned()));
        for (text, number) in
            [("kern", 0), ("daemon", 3), ("ftp", 11), ("local0", 16), ("local7", 23), ("12", 12)]
        {
            assert_eq!(syslog(&[("syslog-facility", text)]).facility, number, "{text}");
        }
        for (text, format) in [
            ("", Format::Unix),
            ("rfc3164", Format::Rfc3164),
            ("rfc5424", Format::Rfc5424),
            ("rfc5424micro", Format::Rfc5424Micro),
        ] {
            assert_eq!(syslog(&[("syslog-format", text)]).format, format);
        }
    }

    #[test]
    fn what_is_sent_is_kept_too() {
        let cache = |name, options: &[(&str, &str)]| match checked(name, options).unwrap().driver {
            LogDriver::Sent { cache, .. } => cache,
            other => panic!("{other:?}"),
        };
        assert_eq!(cache("syslog", &[]), Some(LOCAL));
        let small = [("cache-max-size", "1m"), ("cache-max-file", "2")];
        let files = Files { file_bytes_max: Some(1_000_000), files_max: Some(2) };
        assert_eq!(cache("journald", &small), Some(files));
        assert_eq!(cache("journald", &[("cache-disabled", "true")]), None);
    }

    #[test]
    fn what_is_not_honoured_is_named() {
        for (name, option, value, code) in [
            ("syslog", "syslog-address", "tcp+tls://192.0.2.1:6514", Code::Unimplemented),
            ("syslog", "syslog-address", "udp://logs.example:514", Code::Invalid),
            ("syslog", "syslog-address", "192.0.2.1:514", Code::Invalid),
            ("syslog", "syslog-address", "unix://run/log", Code::Invalid),
            ("syslog", "syslog-facility", "local8", Code::Invalid),
            ("syslog", "syslog-facility", "24", Code::Invalid),
            ("syslog", "syslog-format", "rfc1", Code::Invalid),
            ("syslog", "syslog-tls-ca-cert", "/ca.pem", Code::Unimplemented),
            ("syslog", "max-buffer-size", "1m", Code::Unimplemented),
            ("syslog", "mode", "fast", Code::Invalid),
            ("syslog", "cache-max-file", "0", Code::Invalid),
            ("journald", "syslog-format", "rfc3164", Code::Invalid),
            ("journald", "labels-regex", ".*", Code::Unimplemented),
        ] {
            let rejection = checked(name, &[(option, value)]).unwrap_err();
            assert_eq!(rejection.code, code, "{name} {option}");
            assert!(rejection.message.contains(option), "{}", rejection.message);
        }
        let warned = checked("syslog", &[("env", "A"), ("mode", "blocking")]).unwrap().warnings;
        assert_eq!(warned.len(), 2, "{warned:?}");
    }
}
