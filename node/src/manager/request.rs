//! A client's request on its way to the leader, and to the next one where that is lost.
//!
//! The manager that received it gives it an id, under which the state keeps what it was answered:
//! so it can be put to one leader after the other and is done once (`cluster::decide::Batch`).

use std::net::SocketAddr;
use std::time::Duration;

use cluster::codec::{CodecError, decode_reply, encode_request};
use cluster::id::RequestId;
use cluster::rejection::{Code, Rejection};
use cluster::request::{Answer, Attempt, Request};
use cluster::time::Revision;
use leader::{Ask, Undecided};
use raft_store::Status;
use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::{Manager, NO_LEADER};
use crate::transport::{CallError, Lane};
use crate::wire::{NOT_LEADER, OUTCOME_UNKNOWN};

/// How long a request may take: a proposal that is lost takes 3 s, an election that is repeated
/// several times 0.9 s each.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// While nothing is heard of a leader, or the same one stays, it is put to one again this often.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// What a client reads of it.
pub(super) fn rejection(undecided: Undecided) -> Rejection {
    let line = match undecided {
        Undecided::Rejected(rejection) => return rejection,
        Undecided::NotLeader => NO_LEADER.to_owned(),
        Undecided::NotWritten(reason) => format!("{reason}. {NO_LEADER}"),
        Undecided::Unknown(reason) => format!("the outcome is unknown: {reason}. {NO_LEADER}"),
    };
    Rejection::new(Code::Unavailable, line)
}

/// A request that has no answer yet.
#[derive(Debug)]
struct Pursuit {
    attempt: Attempt,
    /// The newest revision here when it was received: whatever it does comes later.
    received: Revision,
    last: Undecided,
}

impl Pursuit {
    fn new(id: RequestId, received: Revision) -> Self {
        Self { attempt: Attempt { id, since: None }, received, last: Undecided::NotLeader }
    }

    /// Takes note of an attempt without an answer; the last one of these is an error.
    fn note(&mut self, why: Undecided) -> Result<(), Rejection> {
        match why {
            Undecided::Rejected(rejection) => return Err(rejection),
            Undecided::Unknown(_) => {
                self.attempt.since = Some(self.received);
                self.last = why;
            }
            // What an earlier attempt left open stays so.
            Undecided::NotLeader | Undecided::NotWritten(_) if self.attempt.since.is_some() => {}
            Undecided::NotLeader | Undecided::NotWritten(_) => self.last = why,
        }
        Ok(())
    }
}

impl Manager {
    /// Has the leader decide, be that this node or another, or the next one.
    pub async fn request(&self, request: Request) -> Result<Answer, Rejection> {
        let id = RequestId(rand::random());
        let span = tracing::debug_span!("request", %id);
        let mut pursuit = Pursuit::new(id, self.newest().revision);
        let pursued = self.pursue(&mut pursuit, &request).instrument(span.clone());
        let result = match tokio::time::timeout(REQUEST_LIMIT, pursued).await {
            Ok(Some(result)) => result,
            Ok(None) | Err(_) => Err(rejection(pursuit.last)),
        };
        span.in_scope(|| match &result {
            Ok(_answer) => tracing::debug!(what = request.name(), "answered"),
            Err(rejection) => tracing::debug!(what = request.name(), %rejection, "refused"),
        });
        result
    }

    /// Returns nothing where this node stops.
    async fn pursue(
        &self,
        pursuit: &mut Pursuit,
        request: &Request,
    ) -> Option<Result<Answer, Rejection>> {
        let mut status = self.raft.watch();
        loop {
            let seen = status.borrow_and_update().clone();
            if seen.stopped.is_some() {
                return None;
            }
            let mut news = status.clone();
            // A leader that is lost answers late or never.
            let replaced = news.wait_for(|now| now.leader != seen.leader);
            let told = tokio::select! {
                told = self.put_to(&seen, pursuit.attempt, request) => told,
                _ = replaced => Err(Undecided::Unknown("the leader was lost".to_owned())),
            };
            let why = match told {
                Ok(answer) => return Some(Ok(answer)),
                Err(why) => why,
            };
            tracing::debug!(?why, "no answer of a leader");
            if let Err(rejection) = pursuit.note(why) {
                return Some(Err(rejection));
            }
            if let Ok(Err(_closed)) = tokio::time::timeout(RETRY_INTERVAL, status.changed()).await {
                return None;
            }
        }
    }

    async fn put_to(
        &self,
        seen: &Status,
        attempt: Attempt,
        request: &Request,
    ) -> Result<Answer, Undecided> {
        if seen.is_leader {
            return self.decide_attempt(request.clone(), Some(attempt)).await;
        }
        let leader = seen.leader.as_ref().and_then(|peer| peer.address.parse().ok());
        self.forward(leader.ok_or(Undecided::NotLeader)?, attempt, request).await
    }

    /// Decides on this node, which leads, a request that may be decided again.
    pub async fn decide(&self, request: Request) -> Result<Answer, Rejection> {
        self.decide_attempt(request, None).await.map_err(rejection)
    }

    /// Decides on this node, which leads.
    pub(super) async fn decide_attempt(
        &self,
        request: Request,
        attempt: Option<Attempt>,
    ) -> Result<Answer, Undecided> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask { request, attempt, reply };
        self.decider.send(ask).await.map_err(|_stopped| Undecided::NotLeader)?;
        let stops = |_dropped| Err(Undecided::Unknown("this manager stops".to_owned()));
        answer.await.unwrap_or_else(stops)
    }

    async fn forward(
        &self,
        leader: SocketAddr,
        attempt: Attempt,
        request: &Request,
    ) -> Result<Answer, Undecided> {
        let invalid = |e: CodecError| {
            Undecided::Rejected(Rejection::invalid(format!("forward a request: {e}")))
        };
        let body = encode_request(attempt, request).map_err(invalid)?;
        let called =
            self.net.call(leader, Lane::Control, "/manager/request", body.into(), REQUEST_LIMIT);
        match called.await {
            Ok(bytes) => decode_reply(&bytes).map_err(invalid)?.map_err(Undecided::Rejected),
            Err(CallError::Refused { status: NOT_LEADER, .. }) => Err(Undecided::NotLeader),
            Err(CallError::Refused { status: OUTCOME_UNKNOWN, message, .. }) => {
                Err(Undecided::Unknown(message))
            }
            Err(error @ CallError::Connect { .. }) => Err(Undecided::NotWritten(error.to_string())),
            Err(error @ CallError::Broken { .. }) => Err(Undecided::Unknown(error.to_string())),
            Err(error @ CallError::Refused { .. }) => {
                let line = format!("the leader refused to take the request: {error}");
                Err(Undecided::Rejected(Rejection::new(Code::Unavailable, line)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: who gives up is told what may have happened. Method: attempts one after the other.
    #[test]
    fn what_an_attempt_left_open_stays_open() {
        let mut pursuit = Pursuit::new(RequestId(1), Revision(7));
        let told = |pursuit: &Pursuit| rejection(pursuit.last.clone()).message;
        assert_eq!(told(&pursuit), NO_LEADER);
        assert_eq!(pursuit.note(Undecided::NotWritten("no majority".to_owned())), Ok(()));
        assert_eq!(told(&pursuit), format!("no majority. {NO_LEADER}"));
        assert_eq!(pursuit.attempt.since, None, "it surely was not written");
        assert_eq!(pursuit.note(Undecided::Unknown("it broke".to_owned())), Ok(()));
        assert_eq!(pursuit.note(Undecided::NotLeader), Ok(()));
        assert_eq!(told(&pursuit), format!("the outcome is unknown: it broke. {NO_LEADER}"));
        assert_eq!(pursuit.attempt, Attempt { id: RequestId(1), since: Some(Revision(7)) });
        let rejection = Rejection::not_found("service", "x");
        assert_eq!(pursuit.note(Undecided::Rejected(rejection.clone())), Err(rejection));
    }
}
