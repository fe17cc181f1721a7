//! The pure heart of Skein: objects, replicated state, and every decision about them.
//!
//! Nothing here reads a clock, draws a random number, opens a socket or iterates in hash order:
//! the same log gives the same state in every process and version.

pub mod assignment;
pub mod id;
pub mod net;
pub mod object;
pub mod spec;
pub mod time;
pub mod view;
