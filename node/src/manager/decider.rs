//! The one task that proposes log entries, in order, as [`leader::Decider`] says.

use cluster::apply::Outcome;
use cluster::codec::encode_transaction;
use cluster::rejection::{Code, Rejection};
use cluster::request::Answer;
use cluster::time::Revision;
use leader::{Answered, Decider, Next, Proposal, Proposed, Standing, Undecided};
use raft_store::{ProposeError, Status};
use tokio::sync::{mpsc, oneshot};

use super::Manager;
use crate::clock;
use crate::telemetry::meters::meters;

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Result<Answer, Undecided>>;
/// A request that waits here.
pub(super) type Ask = leader::Ask<Reply>;

/// Runs until the manager stops.
pub(super) async fn run(manager: Manager, mut asks: mpsc::Receiver<Ask>) {
    let mut state = manager.state.clone();
    let mut status = manager.raft.watch();
    let mut decider = Decider::default();
    loop {
        while decider.has_room()
            && let Ok(ask) = asks.try_recv()
        {
            decider.ask(ask);
        }
        // Who gave up is told nothing more, and asks for nothing more.
        decider.forget(Reply::is_closed);
        let (newest, standing) = (manager.newest(), standing(&status.borrow_and_update()));
        match decider.next(&newest, standing, clock::timestamp(), &mut rand::random) {
            Next::Propose(proposal) => {
                let outcome = propose(&manager, &proposal).await;
                give(&manager, decider.outcome(outcome));
            }
            Next::Answer(answers) => give(&manager, answers),
            Next::Wait(pause) => tokio::select! {
                ask = asks.recv(), if decider.has_room() => match ask {
                    Some(ask) => decider.ask(ask),
                    None => return,
                },
                changed = state.changed() => if changed.is_err() { return },
                changed = status.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            },
        }
    }
}

fn standing(status: &Status) -> Standing {
    match (status.is_leader, status.leader_ready) {
        (_, true) => Standing::Leads,
        (true, false) => Standing::Elected,
        (false, false) => Standing::Follows,
    }
}

/// Each with the log's line by which a request is followed to the state that nodes apply.
fn give(manager: &Manager, answers: Vec<Answered<Reply>>) {
    let revision = manager.newest().revision.0;
    for (ask, answer) in answers {
        let what = ask.request.name();
        match ask.attempt.map(|attempt| attempt.id) {
            Some(id) if answer.is_ok() => tracing::debug!(%id, what, revision, "request decided"),
            None if answer.is_ok() => tracing::debug!(what, revision, "request decided"),
            Some(_) | None => {}
        }
        // The asker may have given up meanwhile; the decision stands all the same.
        let _ = ask.reply.send(answer);
    }
}

async fn propose(manager: &Manager, proposal: &Proposal) -> Proposed {
    let outcome = write(manager, proposal).await;
    match &outcome {
        Proposed::Applied => {}
        Proposed::Raced => tracing::debug!("decision lost a race"),
        Proposed::Failed(why @ Undecided::Rejected(_)) if proposal.requests == 0 => {
            tracing::error!(?why, "plan not committed");
        }
        Proposed::Failed(why) => {
            tracing::debug!(?why, requests = proposal.requests, "not committed");
        }
    }
    outcome
}

async fn write(manager: &Manager, proposal: &Proposal) -> Proposed {
    let began = clock::monotonic();
    let payload = match encode_transaction(&proposal.transaction) {
        Ok(payload) => payload,
        Err(error) => return Proposed::Failed(broken(error.to_string())),
    };
    manager.with_sessions(|leader| leader.proposing(began));
    let applied = match manager.raft.propose(payload).await {
        Ok(applied) => applied,
        Err(error) => return Proposed::Failed(undecided(error)),
    };
    meters().committed(proposal.requests, clock::monotonic().saturating_sub(began));
    match serde_json::from_slice(&applied.response) {
        Ok(Outcome::Applied) => {
            let revision = Revision(applied.index);
            manager.with_sessions(|leader| leader.proposed(revision));
            Proposed::Applied
        }
        Ok(Outcome::Rejected(conflict)) => {
            tracing::debug!(%conflict, "conflict");
            Proposed::Raced
        }
        Err(error) => {
            let reason = format!("read the outcome of an entry: {error}");
            Proposed::Failed(broken(reason))
        }
    }
}

fn broken(reason: String) -> Undecided {
    Undecided::Rejected(Rejection::new(Code::Unavailable, reason))
}

fn undecided(error: ProposeError) -> Undecided {
    match error {
        ProposeError::NotLeader { .. } => Undecided::NotLeader,
        ProposeError::NoQuorum => Undecided::NotWritten(error.to_string()),
        ProposeError::TooLarge { .. } => Undecided::Rejected(Rejection::invalid(error.to_string())),
        ProposeError::OutcomeUnknown { reason } | ProposeError::Stopped { reason } => {
            Undecided::Unknown(reason)
        }
    }
}
