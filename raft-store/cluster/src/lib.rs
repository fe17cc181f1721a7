//! The pure heart of Skein: objects, replicated state, and every decision about them.
//!
//! Nothing here reads a clock, draws a random number, opens a socket or iterates in hash order:
//! the same log gives the same state in every process and version.

pub mod apply;
pub mod assignment;
pub mod codec;
pub mod id;
pub mod lookup;
pub mod net;
pub mod object;
pub mod rejection;
pub mod request;
pub mod spec;
pub mod state;
pub mod time;
pub mod transaction;
pub mod view;

pub use crate::state::State;

#[cfg(test)]
mod fixture;
