//! The `skein` binary: daemon and client, and the small processes that outlive the daemon.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use skein::cli::{Cli, run};

fn main() -> ExitCode {
    // The processes that outlive the daemon have one thread and no runtime.
    let small = supervise::dispatch(std::env::args_os().skip(1));
    small.unwrap_or_else(|| run(Cli::parse()))
}
