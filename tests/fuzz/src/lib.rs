//! Fuzz targets: every decoder that faces a peer or the disk, given any bytes.
//!
//! What a target calls is in the crate of its decoder (`fuzzing.rs`, by the feature `fuzzing`): it
//! decodes and checks the laws. Here is which targets there are, with which seeds they begin, and
//! how much memory they may take. How they are run is in CONTRIBUTING.md.

mod memory;
mod targets;

pub use targets::{TARGETS, Target};

#[global_allocator]
static MEMORY: memory::Counting = memory::Counting;

/// Names the folder into which a target writes its seeds instead of running.
const SEEDS: &str = "SKEIN_FUZZ_SEEDS";

fn named(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("no target is named {name}"))
}

/// Writes a target's seeds where [`SEEDS`] asks for them, and ends the program. The target does
/// that itself because code that is instrumented for libFuzzer links with it alone.
///
/// # Panics
/// Where the folder takes no files, or a seed does not decode: fuzzing would begin, and mostly end,
/// before the first check of a decoder.
pub fn write_seeds(name: &str) {
    let Some(folder) = std::env::var_os(SEEDS).map(std::path::PathBuf::from) else { return };
    let seeds = (named(name).seeds)();
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for (number, seed) in seeds.into_iter().enumerate() {
        assert!(run(name, &seed), "seed {number} of {name} does not decode");
        std::fs::write(folder.join(number.to_string()), seed).expect("the folder takes files");
    }
    std::process::exit(0);
}

/// Runs a target, and panics where it takes more memory than it may. Says whether there was
/// something to decode.
///
/// # Panics
/// Where the target has found something, or there is none of this name.
pub fn run(name: &str, bytes: &[u8]) -> bool {
    let target = named(name);
    let mut decoded = false;
    let most = memory::most_during(|| decoded = (target.run)(bytes));
    let limit = target.limit + memory::BYTES_PER_INPUT_BYTE * bytes.len();
    assert!(most <= limit, "{most} bytes of memory for an input of {}", bytes.len());
    decoded
}
