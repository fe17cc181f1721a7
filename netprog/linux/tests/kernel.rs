//! The real kernel, as root, in namespaces of this process: every operation is applied and then
//! seen by observing.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

mod kernel {
    pub(crate) mod world;

    mod conformance;
    mod dns;
    mod drift;
    mod large;
    mod operations;
    mod overlay;
    mod tables;
}
