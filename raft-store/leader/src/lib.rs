//! What the leader decides: who is alive, what each node is told, when a task may stop
//! ([`Leader`]), and what is proposed next ([`Decider`]).
//!
//! Both are pure: they are given the newest state, what nodes and clients say and the time, and
//! return answers, requests and proposals. They do not know Raft: the shell says when this manager
//! leads, whether it has a majority, and what became of a proposal.

mod decider;
mod dispatcher;
#[cfg(test)]
mod fixture;
mod sessions;

pub use self::decider::{
    Answered, Ask, BATCH_REQUESTS_MAX, Decider, Next, PLAN_INTERVAL, Proposal, Proposed, Standing,
    Undecided,
};
pub use self::dispatcher::{LEASE, RESTART_LEASE, Watched};
pub use self::sessions::{Leader, Look, PAUSE_MAX, Refusal, Reported};
