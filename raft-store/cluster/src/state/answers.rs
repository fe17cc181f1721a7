//! What clients were answered lately, so that a request that comes again after the loss of a leader
//! is answered again, and not done again.
//!
//! Only requests that changed something are recorded: one that did not may be decided again. What
//! is kept follows from the log alone: the newest [`ANSWERS_MAX`], whatever a clock says.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::id::RequestId;
use crate::request::Answer;
use crate::time::Revision;
use crate::transaction::Answered;

/// Answers that are kept; the oldest makes room.
pub const ANSWERS_MAX: usize = 4096;

/// The newest answers, each with the revision at which its request was done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answers {
    by_request: OrdMap<RequestId, (Revision, Arc<Answer>)>,
    by_age: OrdSet<(Revision, RequestId)>,
    /// The newest of which an answer made room.
    forgotten: Revision,
}

impl Answers {
    /// What a request was answered.
    #[must_use]
    pub fn of(&self, request: RequestId) -> Option<&Answer> {
        self.by_request.get(&request).map(|(_, answer)| &**answer)
    }

    /// Whether each request that was done after a revision has its answer here.
    #[must_use]
    pub fn reach_back_to(&self, revision: Revision) -> bool {
        self.forgotten <= revision
    }

    pub(crate) fn len(&self) -> usize {
        self.by_age.len()
    }

    pub(crate) fn forgotten(&self) -> Revision {
        self.forgotten
    }

    /// From the oldest on.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Revision, Answered)> {
        self.by_age.iter().filter_map(|(_, request)| self.kept(*request))
    }

    /// Keeps the answer of a request that has none, and returns the one that made room.
    pub(crate) fn keep(
        &mut self,
        at: Revision,
        answered: &Answered,
    ) -> Option<(Revision, Answered)> {
        self.by_age.insert((at, answered.request));
        self.by_request.insert(answered.request, (at, answered.answer.clone()));
        if self.by_request.len() <= ANSWERS_MAX {
            return None;
        }
        let (at, oldest) = *self.by_age.get_min()?;
        let made_room = self.kept(oldest);
        self.by_age.remove(&(at, oldest));
        self.by_request.remove(&oldest);
        self.forget_to(at);
        made_room
    }

    /// Takes note that not all answers up to a revision are here.
    pub(crate) fn forget_to(&mut self, revision: Revision) {
        self.forgotten = self.forgotten.max(revision);
    }

    fn kept(&self, request: RequestId) -> Option<(Revision, Answered)> {
        let (at, answer) = self.by_request.get(&request)?.clone();
        Some((at, Answered { request, answer }))
    }
}
