//! [`Decider`]: what is proposed next. The requests that wait are decided together, on the newest
//! state, then the planners have their turn; there is one proposal at a time.

use std::collections::VecDeque;
use std::time::Duration;

use cluster::decide::{Added, Batch};
use cluster::plan::plan;
use cluster::rejection::Rejection;
use cluster::request::{Answer, Attempt, Request};
use cluster::state::State;
use cluster::time::Timestamp;
use cluster::transaction::Transaction;

/// Requests that are decided together at most; the draft has limits of its own ([`Batch`]).
pub const BATCH_REQUESTS_MAX: usize = 256;
/// Decisions that lost a race are made again, this often at most.
const RACES_MAX: usize = 5;
/// Plans in a row before requests get their turn.
const PLANS_MAX: usize = 16;
/// The planners look at least this often.
pub const PLAN_INTERVAL: Duration = Duration::from_secs(1);

/// A request, and where its answer goes: `R` is the shell's.
#[derive(Debug)]
pub struct Ask<R> {
    /// What is asked.
    pub request: Request,
    /// Which request of a client it is, if it is one.
    pub attempt: Option<Attempt>,
    /// Where the answer goes.
    pub reply: R,
}

/// Why a leader gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undecided {
    /// The asker's news.
    Rejected(Rejection),
    /// Nothing was written: that manager does not lead.
    NotLeader,
    /// Nothing was written, and why.
    NotWritten(String),
    /// It may have been written, or may yet be.
    Unknown(String),
}

/// What Raft says of this manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Another one leads, or none.
    Follows,
    /// It was elected; an entry of its own term is not yet applied, so its state may be old.
    Elected,
    /// It leads, on the newest state.
    Leads,
}

/// What is to be done.
#[derive(Debug)]
pub enum Next<R> {
    /// Propose this, and say what became of it: [`Decider::outcome`].
    Propose(Proposal),
    /// Give these answers; nothing of them is to be written.
    Answer(Vec<Answered<R>>),
    /// Nothing, for so long or until something changes.
    Wait(Duration),
}

/// To be the next entry.
#[derive(Debug)]
pub struct Proposal {
    /// The change.
    pub transaction: Transaction,
    /// How many requests led to it; a plan has none.
    pub requests: usize,
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposed {
    /// It is in the state.
    Applied,
    /// Another entry came first, with which it does not agree.
    Raced,
    /// It is not, as far as is known.
    Failed(Undecided),
}

/// A request with its answer.
pub type Answered<R> = (Ask<R>, Result<Answer, Undecided>);

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Requests,
    Planners {
        /// Since the last requests.
        plans: usize,
    },
}

/// The requests that wait at this manager, and the planners.
#[derive(Debug)]
pub struct Decider<R> {
    /// The answers that are ready are those of the first ones.
    waiting: VecDeque<Ask<R>>,
    answers: Vec<Result<Answer, Undecided>>,
    races: usize,
    turn: Turn,
    /// The last plan could not be written: it would not be now.
    plan_failed: bool,
}

impl<R> Default for Decider<R> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            answers: Vec::new(),
            races: 0,
            turn: Turn::Requests,
            plan_failed: false,
        }
    }
}

impl<R> Decider<R> {
    /// Whether one more can be decided together with those that wait.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting.len() < BATCH_REQUESTS_MAX
    }

    /// A request waits from now on.
    pub fn ask(&mut self, ask: Ask<R>) {
        self.waiting.push_back(ask);
    }

    /// Forgets requests for whose answers nobody waits. Not while something is proposed.
    pub fn forget(&mut self, is_gone: impl Fn(&R) -> bool) {
        self.waiting.retain(|ask| !is_gone(&ask.reply));
    }

    /// What is to be done at this state. `seeds` are random, one for each request.
    pub fn next(
        &mut self,
        state: &State,
        standing: Standing,
        now: Timestamp,
        seeds: &mut dyn FnMut() -> u128,
    ) -> Next<R> {
        match standing {
            Standing::Follows if self.waiting.is_empty() => return Next::Wait(PLAN_INTERVAL),
            Standing::Follows => {
                return Next::Answer(self.all(&Undecided::NotLeader));
            }
            Standing::Elected => return Next::Wait(PLAN_INTERVAL),
            Standing::Leads => {}
        }
        let plans = match self.turn {
            Turn::Planners { plans } if plans < PLANS_MAX => plans,
            Turn::Planners { .. } | Turn::Requests if self.waiting.is_empty() => 0,
            Turn::Planners { .. } | Turn::Requests => return self.requests(state, now, seeds),
        };
        self.plans(plans, state, now)
    }

    fn requests(
        &mut self,
        state: &State,
        now: Timestamp,
        seeds: &mut dyn FnMut() -> u128,
    ) -> Next<R> {
        let mut batch = Batch::new(state, now);
        for ask in self.waiting.iter().take(BATCH_REQUESTS_MAX) {
            match batch.add(&ask.request, ask.attempt, seeds()) {
                Added::Decided(answer) => {
                    self.answers.push(answer.map_err(Undecided::Rejected));
                }
                Added::Later => break,
            }
        }
        let transaction = batch.finish();
        if transaction.is_empty() {
            return Next::Answer(self.answered());
        }
        Next::Propose(Proposal { transaction, requests: self.answers.len() })
    }

    fn plans(&mut self, plans: usize, state: &State, now: Timestamp) -> Next<R> {
        self.turn = Turn::Requests;
        if std::mem::take(&mut self.plan_failed) {
            return Next::Wait(PLAN_INTERVAL);
        }
        let planned = plan(state, now);
        if planned.transaction.is_empty() {
            let until = planned.next_due.map(|due| Duration::from_millis(due.since_ms(now)));
            let pause = until.unwrap_or(PLAN_INTERVAL).min(PLAN_INTERVAL);
            // Those that did not go into the last batch.
            return Next::Wait(if self.waiting.is_empty() { pause } else { Duration::ZERO });
        }
        self.turn = Turn::Planners { plans: plans + 1 };
        Next::Propose(Proposal { transaction: planned.transaction, requests: 0 })
    }

    /// What became of the proposal. Returns who is answered.
    pub fn outcome(&mut self, outcome: Proposed) -> Vec<Answered<R>> {
        if self.answers.is_empty() {
            // A plan that lost a race is made again on the state that won.
            if let Proposed::Failed(_) = outcome {
                self.turn = Turn::Requests;
                self.plan_failed = true;
            }
            return Vec::new();
        }
        match outcome {
            Proposed::Applied => self.answered(),
            Proposed::Raced => {
                self.races += 1;
                if self.races < RACES_MAX {
                    self.answers.clear();
                    return Vec::new();
                }
                let why = Undecided::NotWritten("the state changed too often".to_owned());
                self.unanswered(&why)
            }
            Proposed::Failed(why) => self.unanswered(&why),
        }
    }

    /// Those whose answers are ready; then the planners have their turn.
    fn answered(&mut self) -> Vec<Answered<R>> {
        self.races = 0;
        self.turn = Turn::Planners { plans: 0 };
        let answers = std::mem::take(&mut self.answers);
        self.waiting.drain(..answers.len()).zip(answers).collect()
    }

    /// The same, but none was written.
    fn unanswered(&mut self, why: &Undecided) -> Vec<Answered<R>> {
        self.answers.fill(Err(why.clone()));
        self.answered()
    }

    fn all(&mut self, why: &Undecided) -> Vec<Answered<R>> {
        self.answers = vec![Err(why.clone()); self.waiting.len()];
        self.answered()
    }
}

#[cfg(test)]
mod tests;
