//! What becomes of a task's output: the log drivers that there are, and what their options say.
//!
//! Files of both drivers are Skein's own, so they differ in their defaults alone.

pub use crate::log_driver::sink::{Address, Format, Journald, Sink, Syslog};
use crate::rejection::{Code, Rejection};
use crate::spec::{Driver, TaskSpec};
use crate::template;

pub(crate) mod sink;

/// The smallest file. Docker takes any size; below this, nearly every line would begin a file.
const FILE_BYTES_MIN: u64 = 1_000;
/// The most files of one task.
const FILES_MAX: u32 = 1_000;
/// Docker's for `local`.
const LOCAL: Files = Files { file_bytes_max: Some(20_000_000), files_max: Some(5) };

/// What becomes of a task's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogDriver {
    /// It is dropped.
    None,
    /// It is kept on the node.
    Files(Files),
    /// It is sent elsewhere.
    Sent {
        /// Where to.
        sink: Sink,
        /// What is kept of it on the node.
        cache: Option<Files>,
    },
}

/// Limits of a task's log; what is not given is the node's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Files {
    /// A file of this size is closed, and the next one begun.
    pub file_bytes_max: Option<u64>,
    /// Files that are kept.
    pub files_max: Option<u32>,
}

/// What there is, and what the user should know of the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The driver.
    pub driver: LogDriver,
    /// Options without effect.
    pub warnings: Vec<String>,
}

impl Default for LogDriver {
    fn default() -> Self {
        Self::Files(Files::default())
    }
}

impl LogDriver {
    /// Reads a driver and its options.
    ///
    /// # Errors
    /// What is not supported, or wrong, by name.
    pub fn check(driver: &Driver) -> Result<Checked, Rejection> {
        let checked = Self::read(driver)?;
        if let (Self::Sent { .. }, Some(tag)) = (&checked.driver, driver.options.get("tag")) {
            let refused = |reason| Rejection::invalid(format!("log option tag={tag:?}: {reason}"));
            template::check_tag(tag).map_err(refused)?;
        }
        Ok(checked)
    }

    fn read(driver: &Driver) -> Result<Checked, Rejection> {
        let name = driver.name.as_str();
        let mut files = match name {
            "" | "json-file" => Files::default(),
            "local" => LOCAL,
            "none" => return Ok(Checked { driver: Self::None, warnings: Vec::new() }),
            "syslog" | "journald" => return sink::read(name, &driver.options),
            name => {
                let message = format!(
                    "log driver {name:?} is not supported: use json-file, local, syslog, journald \
                     or none"
                );
                return Err(Rejection::new(Code::Unimplemented, message));
            }
        };
        let mut warnings = Vec::new();
        for (option, value) in &driver.options {
            let no_effect =
                |instead: &str| format!("log option {option}={value} is not supported: {instead}");
            match (option.as_str(), value.as_str()) {
                ("max-size", size) => files.file_bytes_max = Some(file_bytes("max-size", size)?),
                ("max-file", count) => files.files_max = Some(file_count("max-file", count)?),
                ("mode", "blocking") | ("compress", "false") => {}
                ("mode", "non-blocking") => warnings.push(no_effect("a task waits for its log")),
                ("max-buffer-size", _) => warnings.push(no_effect("there is no buffer")),
                ("compress", "true") => warnings.push(no_effect("files are not compressed")),
                ("labels" | "labels-regex" | "env" | "env-regex" | "tag", _) => {
                    warnings.push(no_effect("lines have no such details"));
                }
                ("mode" | "compress", _) => {
                    let message = format!("invalid value {value:?} of log option {option}");
                    return Err(Rejection::invalid(message));
                }
                _ => {
                    let driver = if name.is_empty() { "json-file" } else { name };
                    return Err(Rejection::invalid(format!(
                        "unknown log opt '{option}' for {driver} log driver: use max-size and \
                         max-file"
                    )));
                }
            }
        }
        // Who limits the size of a json-file alone wants one file, as in Docker.
        if files.file_bytes_max.is_some() {
            files.files_max.get_or_insert(1);
        }
        Ok(Checked { driver: Self::Files(files), warnings })
    }

    /// What a task's spec asks for. Specs are checked when they are stored; on its node, the tag is
    /// written out.
    #[must_use]
    pub fn of(spec: &TaskSpec) -> Self {
        let checked = spec.log_driver.as_ref().map(Self::read);
        checked.and_then(Result::ok).map_or_else(Self::default, |checked| checked.driver)
    }

    /// Whether there is something to read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        match self {
            Self::None | Self::Sent { cache: None, .. } => false,
            Self::Files(_) | Self::Sent { cache: Some(_), .. } => true,
        }
    }
}

/// `10m`, `10MB`, `1024`: units are of 1,000, as in Docker (`units.FromHumanSize`).
fn file_bytes(option: &str, text: &str) -> Result<u64, Rejection> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = lower[digits.len()..].trim_start();
    let unit = unit.strip_suffix('b').unwrap_or(unit);
    let factor = match unit.strip_suffix('i').unwrap_or(unit) {
        "" => Some(1),
        "k" => Some(1_000),
        "m" => Some(1_000_000),
        "g" => Some(1_000_000_000),
        "t" => Some(1_000_000_000_000),
        _ => None,
    };
    let bytes = factor.and_then(|factor| digits.parse::<u64>().ok()?.checked_mul(factor));
    match bytes {
        Some(bytes) if bytes >= FILE_BYTES_MIN => Ok(bytes),
        _ => Err(Rejection::invalid(format!(
            "log option {option}={text:?}: give a size of at least {FILE_BYTES_MIN} bytes, like 10m"
        ))),
    }
}

fn file_count(option: &str, text: &str) -> Result<u32, Rejection> {
    match text.parse::<u32>() {
        Ok(count) if (1..=FILES_MAX).contains(&count) => Ok(count),
        _ => Err(Rejection::invalid(format!(
            "log option {option}={text:?}: give a number from 1 to {FILES_MAX}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(name: &str, options: &[(&str, &str)]) -> Driver {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Driver { name: name.to_owned(), options: options.collect(), ..Driver::default() }
    }

    #[test]
    fn drivers_and_their_limits() {
        let files =
            |bytes, count| LogDriver::Files(Files { file_bytes_max: bytes, files_max: count });
        for (name, options, expected) in [
            ("", [].as_slice(), files(None, None)),
            ("json-file", [].as_slice(), files(None, None)),
            ("json-file", [("max-size", "10m")].as_slice(), files(Some(10_000_000), Some(1))),
            ("json-file", [("max-file", "3")].as_slice(), files(None, Some(3))),
            ("", [("max-size", "2000"), ("max-file", "7")].as_slice(), files(Some(2000), Some(7))),
            ("json-file", [("max-size", "1 KiB")].as_slice(), files(Some(1000), Some(1))),
            ("local", [].as_slice(), files(Some(20_000_000), Some(5))),
            ("local", [("max-size", "1gb")].as_slice(), files(Some(1_000_000_000), Some(5))),
            ("none", [("max-size", "10m")].as_slice(), LogDriver::None),
        ] {
            let checked = LogDriver::check(&driver(name, options)).unwrap();
            assert_eq!(
                checked,
                Checked { driver: expected, warnings: vec![] },
                "{name} {options:?}"
            );
        }
    }

    #[test]
    fn what_is_not_served_is_named() {
        for (name, option, code, part) in [
            ("syslog", ("tag", "{{.Nam}}"), Code::Invalid, "tag=\"{{.Nam}}\": .Nam is unknown"),
            ("journald", ("tag", "a\nb"), Code::Invalid, "tag=\"a\\nb\""),
            ("json", ("tag", "x"), Code::Unimplemented, "log driver \"json\""),
            ("local", ("colour", "red"), Code::Invalid, "unknown log opt 'colour' for local"),
            ("", ("colour", "red"), Code::Invalid, "unknown log opt 'colour' for json-file"),
            ("local", ("max-size", "-1"), Code::Invalid, "max-size=\"-1\""),
            ("local", ("max-size", "0"), Code::Invalid, "max-size=\"0\""),
            ("local", ("max-size", "10x"), Code::Invalid, "max-size=\"10x\""),
            ("local", ("max-size", "20000000t"), Code::Invalid, "max-size=\"20000000t\""),
            ("local", ("max-size", ""), Code::Invalid, "max-size=\"\""),
            ("local", ("max-file", "0"), Code::Invalid, "max-file=\"0\""),
            ("local", ("max-file", "1001"), Code::Invalid, "max-file=\"1001\""),
            ("local", ("mode", "fast"), Code::Invalid, "invalid value \"fast\" of log option mode"),
        ] {
            let rejection = LogDriver::check(&driver(name, &[option])).unwrap_err();
            assert_eq!(rejection.code, code, "{name} {option:?}");
            assert!(rejection.message.contains(part), "{}", rejection.message);
        }
    }

    #[test]
    fn what_has_no_effect_is_told() {
        for option in [("compress", "true"), ("tag", "x"), ("mode", "non-blocking")] {
            let checked = LogDriver::check(&driver("json-file", &[option])).unwrap();
            let named = format!("log option {}={}", option.0, option.1);
            assert!(checked.warnings[0].starts_with(&named), "{:?}", checked.warnings);
        }
    }
}
