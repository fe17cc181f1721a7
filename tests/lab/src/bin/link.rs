//! The lab's slow link: holds frames of an underlay back, as a kernel without netem cannot.
//!
//! `skein-lab-link SOCKET TAP`; a lab starts it. `tests/lab/src/faults/link.rs`
//! describes what it does.

use std::path::Path;

use anyhow::{Result, bail};
use lab::faults::link::serve;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.as_slice() {
        [socket, tap] => serve(Path::new(socket), tap),
        _ => bail!("usage: skein-lab-link SOCKET TAP"),
    }
}
