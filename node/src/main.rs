//! The `skein` binary.
use std::process::ExitCode;

fn main() -> ExitCode {
    skein::supervise::dispatch(std::env::args_os().skip(1)).unwrap_or(ExitCode::from(2))
}
