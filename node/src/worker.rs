//! The worker's shells: what carries out what the core, [`agent::Agent`], decides.

pub mod launch;
pub mod names;
mod ports;
mod probes;
pub mod programmer;
pub mod session;
pub mod shell;
mod underlay;
pub mod unseen;
