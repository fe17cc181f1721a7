//! Requests that are decided one after the other on one draft, for one log entry: a commit costs
//! the same whatever is in it.
//!
//! Each sees what those before it did. One that is rejected leaves the draft as it was. One that a
//! client's manager puts to a second leader is not done twice: what it was answered is recorded in
//! the entry that did it, and `apply` rejects an entry that would do it again.

use std::sync::Arc;

use super::{NOT_A_MANAGER, check_outcome, step};
use crate::draft::Draft;
use crate::plan;
use crate::rejection::{Code, Rejection};
use crate::request::{Answer, Attempt, Request};
use crate::state::{ANSWERS_MAX, State};
use crate::time::Timestamp;
use crate::transaction::{Answered, Key, Transaction};

/// Bytes of the objects that a batch changes, after which it takes no more requests.
pub const BATCH_BYTES_MAX: usize = 256 << 10;
/// The same for their number.
pub const BATCH_OBJECTS_MAX: usize = 256;

/// Requests that are decided together.
pub struct Batch<'a> {
    draft: Draft<'a>,
    decided: usize,
    answered: Vec<Answered>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Added {
    /// It is part of the batch. The answer holds once the transaction is applied; a rejection may
    /// follow from an earlier request of the batch.
    Decided(Result<Answer, Rejection>),
    /// It is for the next batch: this one is full, or changed the very object whose version the
    /// request names.
    Later,
}

impl<'a> Batch<'a> {
    /// Begins on a state. `now` is the leader's wall time.
    #[must_use]
    pub fn new(state: &'a State, now: Timestamp) -> Self {
        Self { draft: Draft::new(state, 0, now), decided: 0, answered: Vec::new() }
    }

    /// Decides a request, unless an earlier attempt was applied: its answer is given again. `seed`
    /// is drawn by the shell, once per request: every id that the request makes derives from it.
    /// The first request of a batch is never for later.
    pub fn add(&mut self, request: &Request, attempt: Option<Attempt>, seed: u128) -> Added {
        if let Some(known) = attempt.and_then(|attempt| self.known(attempt)) {
            return Added::Decided(known);
        }
        let later = self.decided > 0 && (self.is_full() || self.changed_version_of(request));
        if later {
            return Added::Later;
        }
        let before = self.draft.clone();
        self.draft.draw_from(seed);
        let result = decided(&mut self.draft, request);
        // What is left to the planners of the next transaction is this request's own business.
        if self.decided > 0 && self.draft.is_over_limits() {
            self.draft = before;
            return Added::Later;
        }
        match (&result, attempt) {
            (Ok(answer), Some(Attempt { id: request, .. })) => {
                self.answered.push(Answered { request, answer: Arc::new(answer.recorded()) });
            }
            (Ok(_), None) => {}
            (Err(_), _) => self.draft = before,
        }
        self.decided += 1;
        Added::Decided(result)
    }

    /// What is to be proposed; empty if nothing changed.
    #[must_use]
    pub fn finish(self) -> Transaction {
        let mut transaction = self.draft.finish().0;
        if !transaction.is_empty() {
            transaction.answered = self.answered;
        }
        transaction
    }

    /// What a request was answered before, as far as that is known.
    fn known(&self, attempt: Attempt) -> Option<Result<Answer, Rejection>> {
        let recorded = &self.draft.base().answers;
        if let Some(answer) = recorded.of(attempt.id) {
            return Some(Ok(answer.clone()));
        }
        if let Some(here) = self.answered.iter().find(|other| other.request == attempt.id) {
            return Some(Ok(Answer::clone(&here.answer)));
        }
        let lost = attempt.since.is_some_and(|since| !recorded.reach_back_to(since));
        lost.then(|| {
            let line = format!(
                "the outcome is unknown: more than {ANSWERS_MAX} changes were made since the \
                 leader was lost; look at the state before trying again"
            );
            Err(Rejection::new(Code::Unavailable, line))
        })
    }

    fn is_full(&self) -> bool {
        self.draft.objects() >= BATCH_OBJECTS_MAX || self.draft.bytes() >= BATCH_BYTES_MAX
    }

    /// Whether the request names the version of an object that has another one once this batch is
    /// applied.
    fn changed_version_of(&self, request: &Request) -> bool {
        let key = match request {
            Request::UpdateCluster(_) => Key::Cluster,
            Request::UpdateService { id, .. } | Request::RollbackService { id, .. } => {
                Key::Service(*id)
            }
            Request::UpdateNode { id, .. } => Key::Node(*id),
            Request::InitCluster(_)
            | Request::CreateNetwork { .. }
            | Request::RemoveNetwork { .. }
            | Request::CreateService { .. }
            | Request::RemoveService { .. }
            | Request::RemoveNode { .. }
            | Request::JoinNode(_)
            | Request::ReseatManager { .. }
            | Request::TakeOver(_)
            | Request::DescribeNode { .. }
            | Request::PromotedManager { .. }
            | Request::DemotedManager { .. }
            | Request::LeaveNode { .. }
            | Request::ReportTasks { .. }
            | Request::SetNodeState { .. }
            | Request::TurnGossipKey { .. } => return false,
        };
        self.draft.has_touched(key)
    }
}

pub(super) fn decided(draft: &mut Draft<'_>, request: &Request) -> Result<Answer, Rejection> {
    if draft.state().cluster.is_none() && !matches!(request, Request::InitCluster(_)) {
        return Err(Rejection::new(Code::Unavailable, NOT_A_MANAGER));
    }
    let answer = step(draft, request)?;
    plan::run(draft);
    check_outcome(draft, &answer)?;
    Ok(answer)
}
