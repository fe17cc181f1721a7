//! Sysctls of the calling thread's namespace: files below /proc/sys, whose `net` part follows the
//! namespace of the thread that opens them.

use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use netprog::plan::is_optional_sysctl;

use crate::netlink::Refusal;

const ROOT: &str = "/proc/sys";

/// Only paths below /proc/sys/net: others do not belong to the namespace.
fn path(name: &str) -> Result<PathBuf, Refusal> {
    let relative = Path::new(name);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && relative.starts_with("net") {
        Ok(Path::new(ROOT).join(relative))
    } else {
        Err(Refusal::other(format!("{name:?} is not a sysctl below net/")))
    }
}

/// Its value with single spaces; `None` if the kernel has no such sysctl.
pub(crate) fn read(name: &str) -> Result<Option<String>, Refusal> {
    match std::fs::read_to_string(path(name)?) {
        Ok(text) => Ok(Some(text.split_whitespace().collect::<Vec<_>>().join(" "))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets it. The file is never created: a missing one means a kernel or namespace without that
/// feature, which is a success for what netprog calls optional.
pub(crate) fn write(name: &str, value: &str) -> Result<(), Refusal> {
    match std::fs::OpenOptions::new().write(true).open(path(name)?) {
        Ok(mut file) => Ok(file.write_all(value.as_bytes())?),
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_optional_sysctl(name) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
