//! Fuzzes the target of this name in `fuzz::TARGETS`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::write_seeds("raft_mark"),
    |bytes: &[u8]| {
        fuzz::run("raft_mark", bytes);
    }
);
