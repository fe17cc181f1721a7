//! The pure heart of Skein: objects, replicated state, and every decision about them.
//!
//! Nothing here reads a clock, draws a random number, opens a socket or iterates in hash order:
//! the same log gives the same state in every process and version.
//!
//! A [`request::Request`] is decided on a [`State`] by [`decide()`], which gives a
//! [`transaction::Transaction`] (bytes by [`codec`]) and an answer; [`State::apply`] stores it;
//! [`plan()`] adds what falls due by time alone, and says when there will be more;
//! [`assignment_for`] tells one worker what it must realise. [`spec`] is what users want,
//! [`object`] what the system makes of it.

pub mod apply;
pub mod assign;
pub mod assignment;
pub mod codec;
mod constraint;
pub mod decide;
mod draft;
pub mod exec;
pub mod frame;
pub mod generic;
pub mod id;
pub mod invariant;
mod ipam;
pub mod log_driver;
pub mod lookup;
pub mod net;
pub mod object;
pub mod plan;
pub mod rejection;
pub mod request;
pub mod rights;
pub mod session;
pub mod spec;
pub mod state;
mod template;
pub mod time;
pub mod transaction;
pub mod view;

pub use crate::assign::assignment_for;
pub use crate::decide::decide;
pub use crate::plan::{Planned, plan};
pub use crate::state::State;

#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, reason = "what a test or a fuzz target begins with is good")]
mod fixture;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod growth;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod script;
