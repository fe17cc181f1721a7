//! The one task that makes log entries: it decides the requests that wait, together, and what is
//! due by itself, on the newest state, and proposes in order.

use std::collections::VecDeque;
use std::time::Duration;

use cluster::apply::Outcome;
use cluster::codec::encode_transaction;
use cluster::decide::{Added, Batch};
use cluster::plan::plan;
use cluster::rejection::{Code, Rejection};
use cluster::request::{Answer, Attempt, Request};
use cluster::state::State;
use cluster::time::Revision;
use cluster::transaction::Transaction;
use raft_store::ProposeError;
use tokio::sync::{mpsc, oneshot};

use super::Manager;
use super::request::Undecided;
use crate::clock;
use crate::telemetry::meters::meters;

/// A request and where its answer goes.
pub(super) struct Ask {
    /// What is asked.
    pub(super) request: Request,
    /// Which request of a client it is, if it is one.
    pub(super) attempt: Option<Attempt>,
    /// Where the answer goes.
    pub(super) reply: oneshot::Sender<Result<Answer, Undecided>>,
}

/// Requests that are decided together at most; the draft has limits of its own
/// (`cluster::decide::Batch`).
const BATCH_REQUESTS_MAX: usize = 256;
/// Decisions that lost a race are made again, this often at most.
const RACES_MAX: usize = 5;
/// Plans in a row before requests get their turn.
const PLANS_MAX: usize = 16;
/// The planner looks at least this often.
const PLAN_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until the manager stops.
pub(super) async fn run(manager: Manager, mut asks: mpsc::Receiver<Ask>) {
    let mut state = manager.state.clone();
    let mut status = manager.raft.watch();
    let mut waiting = VecDeque::new();
    let mut pause = Duration::ZERO;
    loop {
        let idle = waiting.is_empty();
        tokio::select! {
            // Those that the last batch left go first.
            biased;
            () = std::future::ready(()), if !idle => {}
            ask = asks.recv() => {
                let Some(ask) = ask else { return };
                waiting.push_back(ask);
            }
            changed = state.changed() => if changed.is_err() { return },
            changed = status.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
        while waiting.len() < BATCH_REQUESTS_MAX
            && let Ok(ask) = asks.try_recv()
        {
            waiting.push_back(ask);
        }
        // Who gave up is told nothing more, and asks for nothing more.
        waiting.retain(|ask| !ask.reply.is_closed());
        if !waiting.is_empty() {
            let answers = answer(&manager, &waiting).await;
            for (ask, answer) in waiting.drain(..answers.len()).zip(answers) {
                // The asker may have given up meanwhile; the decision stands all the same.
                let _ = ask.reply.send(answer);
            }
        }
        let ready = status.borrow_and_update().leader_ready;
        pause = if ready { run_planner(&manager).await } else { PLAN_INTERVAL };
    }
}

/// How long the planners have nothing more to do, as far as they know.
async fn run_planner(manager: &Manager) -> Duration {
    for _ in 0..PLANS_MAX {
        let now = clock::timestamp();
        let planned = plan(&manager.newest(), now);
        if planned.transaction.is_empty() {
            let until = planned.next_due.map(|due| Duration::from_millis(due.since_ms(now)));
            return until.unwrap_or(PLAN_INTERVAL).min(PLAN_INTERVAL);
        }
        match commit(manager, &planned.transaction, 0).await {
            Ok(_applied) => {}
            // It would be so again.
            Err(Undecided::Rejected(rejection)) => {
                tracing::error!(%rejection, "plan not committed");
                return PLAN_INTERVAL;
            }
            // It is the next leader's.
            Err(why) => {
                tracing::debug!(?why, "plan not committed");
                return PLAN_INTERVAL;
            }
        }
    }
    Duration::ZERO
}

/// Waits until an entry of the own term is applied, then decides on a state that is the newest.
/// Answers the first requests, as many as go into one entry.
async fn answer(manager: &Manager, asks: &VecDeque<Ask>) -> Vec<Result<Answer, Undecided>> {
    let all = |why: Undecided| vec![Err(why); asks.len()];
    let mut status = manager.raft.watch();
    let ready = status.wait_for(|s| s.leader_ready || !s.is_leader).await;
    if !ready.is_ok_and(|s| s.leader_ready) {
        return all(Undecided::NotLeader);
    }
    for _ in 0..RACES_MAX {
        let (transaction, answers) = decide_all(&manager.newest(), asks);
        if transaction.is_empty() {
            return answers;
        }
        match commit(manager, &transaction, answers.len()).await {
            Ok(true) => {
                tell(manager, asks, answers.len());
                return answers;
            }
            Ok(false) => {}
            Err(why) => return vec![Err(why); answers.len()],
        }
    }
    all(Undecided::NotWritten("the state changed too often".to_owned()))
}

/// The log's line by which a request is followed to the state that nodes apply.
fn tell(manager: &Manager, asks: &VecDeque<Ask>, answered: usize) {
    let revision = manager.newest().revision.0;
    for ask in asks.iter().take(answered) {
        let (what, id) = (ask.request.name(), ask.attempt.map(|attempt| attempt.id));
        match id {
            Some(id) => tracing::debug!(%id, what, revision, "request decided"),
            None => tracing::debug!(what, revision, "request decided"),
        }
    }
}

fn decide_all(
    state: &State,
    asks: &VecDeque<Ask>,
) -> (Transaction, Vec<Result<Answer, Undecided>>) {
    let mut batch = Batch::new(state, clock::timestamp());
    let mut answers = Vec::with_capacity(asks.len());
    for ask in asks {
        match batch.add(&ask.request, ask.attempt, rand::random()) {
            Added::Decided(answer) => answers.push(answer.map_err(Undecided::Rejected)),
            Added::Later => break,
        }
    }
    (batch.finish(), answers)
}

/// Proposes what so many requests led to; `false` if the transaction lost a race.
async fn commit(
    manager: &Manager,
    transaction: &Transaction,
    requests: usize,
) -> Result<bool, Undecided> {
    let began = clock::monotonic();
    let broken = |reason: String| Undecided::Rejected(Rejection::new(Code::Unavailable, reason));
    let payload = encode_transaction(transaction).map_err(|e| broken(e.to_string()))?;
    manager.with_sessions(|leader| leader.proposing(began));
    let applied = manager.raft.propose(payload).await.map_err(|error| match error {
        ProposeError::NotLeader { .. } => Undecided::NotLeader,
        ProposeError::NoQuorum => Undecided::NotWritten(error.to_string()),
        ProposeError::TooLarge { .. } => Undecided::Rejected(Rejection::invalid(error.to_string())),
        ProposeError::OutcomeUnknown { reason } | ProposeError::Stopped { reason } => {
            Undecided::Unknown(reason)
        }
    })?;
    meters().committed(requests, clock::monotonic().saturating_sub(began));
    match serde_json::from_slice(&applied.response) {
        Ok(Outcome::Applied) => {
            let revision = Revision(applied.index);
            manager.with_sessions(|leader| leader.proposed(revision));
            Ok(true)
        }
        Ok(Outcome::Rejected(conflict)) => {
            tracing::debug!(%conflict, "decision lost a race");
            Ok(false)
        }
        Err(error) => Err(broken(format!("read the outcome of an entry: {error}"))),
    }
}
