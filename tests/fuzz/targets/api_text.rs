//! Fuzzes the target of this name in `fuzz::TARGETS`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::write_seeds("api_text"),
    |bytes: &[u8]| {
        fuzz::run("api_text", bytes);
    }
);
