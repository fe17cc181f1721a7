//! Fuzzes the target of this name in `fuzz::TARGETS`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::write_seeds("cluster_request"),
    |bytes: &[u8]| {
        fuzz::run("cluster_request", bytes);
    }
);
