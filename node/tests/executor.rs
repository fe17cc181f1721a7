//! The process executor, its supervisors and the holder on the real kernel. Needs root.
//!
//! Every test has its own run and data directory and removes all that it has started.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

#[path = "executor/adoption.rs"]
mod adoption;
#[path = "executor/contract.rs"]
mod contract;
#[path = "executor/ends.rs"]
mod ends;
#[path = "executor/execs.rs"]
mod execs;
#[path = "executor/forwarding.rs"]
mod forwarding;
#[path = "executor/health.rs"]
mod health;
#[path = "executor/holder.rs"]
mod holder;
#[path = "executor/limits.rs"]
mod limits;
#[path = "executor/node.rs"]
mod node;
#[path = "executor/output.rs"]
mod output;
#[path = "executor/rights.rs"]
mod rights;
#[path = "executor/seccomp.rs"]
mod seccomp;
#[path = "executor/surroundings.rs"]
mod surroundings;
