//! What a process that outlives the daemon says to people: lines on standard error, which is a file
//! in its directory.

use std::io::{self, Write};
use std::process::ExitCode;

/// Writes a line.
pub(crate) fn note(text: &str) {
    // There is nobody else to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes why this process ends.
pub(crate) fn give_up(text: &str) -> ExitCode {
    note(text);
    ExitCode::FAILURE
}
