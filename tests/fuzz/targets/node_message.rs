//! Fuzzes the target of this name in `fuzz::TARGETS`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::write_seeds("node_message"),
    |bytes: &[u8]| {
        fuzz::run("node_message", bytes);
    }
);
