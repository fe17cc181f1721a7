//! Fuzzes the target of this name in `fuzz::TARGETS`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::write_seeds("gossip_datagram"),
    |bytes: &[u8]| {
        fuzz::run("gossip_datagram", bytes);
    }
);
