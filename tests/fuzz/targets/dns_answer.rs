//! Fuzzes the target of this name in `fuzz::TARGETS`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::write_seeds("dns_answer"),
    |bytes: &[u8]| {
        fuzz::run("dns_answer", bytes);
    }
);
