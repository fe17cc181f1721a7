//! The leader's side of sessions: who is alive, what each node is told, and when a task may stop.
//!
//! [`Leader`] is pure: it is given the newest state, what nodes say and the time, and returns what
//! they are answered and which requests are to be decided. It does not know Raft: its shell says
//! when this manager leads, and whether it has a majority.

mod dispatcher;
#[cfg(test)]
mod fixture;
mod sessions;

pub use self::dispatcher::{LEASE, RESTART_LEASE, Watched};
pub use self::sessions::{Leader, Look, PAUSE_MAX, Refusal, Reported};
