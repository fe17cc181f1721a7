//! The one task that makes log entries: it decides each request, and what is due by itself, on
//! the newest state, and proposes in order.

use std::time::Duration;

use cluster::apply::Outcome;
use cluster::codec::encode_transaction;
use cluster::decide::decide;
use cluster::plan::{next_due, plan};
use cluster::rejection::{Code, Rejection};
use cluster::request::{Answer, Request};
use cluster::transaction::Transaction;
use raft_store::ProposeError;
use tokio::sync::{mpsc, oneshot};

use super::{Manager, NO_LEADER};
use crate::clock;

/// A request and where its answer goes.
pub struct Ask {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Answer, Rejection>>,
}

/// A decision that lost a race is decided anew, this often at most.
const RACES_MAX: usize = 5;
/// Plans in a row before requests get their turn.
const PLANS_MAX: usize = 16;
/// The planner looks at least this often.
const PLAN_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until the manager stops.
pub(super) async fn run(manager: Manager, mut asks: mpsc::Receiver<Ask>) {
    let mut state = manager.state.clone();
    let mut status = manager.raft.watch();
    loop {
        let ready = status.borrow_and_update().leader_ready;
        let pause = if ready { pause_until_due(&manager) } else { PLAN_INTERVAL };
        tokio::select! {
            ask = asks.recv() => {
                let Some(Ask { request, reply }) = ask else { return };
                // The asker may have given up; the decision stands all the same.
                let _ = reply.send(answer(&manager, &request).await);
            }
            changed = state.changed() => if changed.is_err() { return },
            changed = status.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
        if status.borrow().leader_ready {
            run_planner(&manager).await;
        }
    }
}

fn pause_until_due(manager: &Manager) -> Duration {
    let now = clock::timestamp();
    let due = next_due(&manager.state.borrow(), now);
    let pause = due.map_or(PLAN_INTERVAL, |due| Duration::from_millis(due.since_ms(now)));
    pause.min(PLAN_INTERVAL)
}

async fn run_planner(manager: &Manager) {
    for _ in 0..PLANS_MAX {
        let transaction = plan(&manager.newest(), clock::timestamp());
        if transaction.is_empty() {
            return;
        }
        if let Err(rejection) = commit(manager, &transaction).await {
            // Without a leader it is the next one's. Anything else would be so again.
            match rejection.code {
                Code::Unavailable | Code::Conflict => {
                    tracing::debug!(%rejection, "plan not committed");
                }
                _other => tracing::error!(%rejection, "plan not committed"),
            }
            return;
        }
    }
}

/// Waits until an entry of the own term is applied, then decides on a state that is the newest.
async fn answer(manager: &Manager, request: &Request) -> Result<Answer, Rejection> {
    let mut status = manager.raft.watch();
    let unavailable = || Rejection::new(Code::Unavailable, NO_LEADER);
    let ready = status.wait_for(|s| s.leader_ready || !s.is_leader).await;
    if !ready.is_ok_and(|s| s.leader_ready) {
        return Err(unavailable());
    }
    let mut last = unavailable();
    for _ in 0..RACES_MAX {
        let decision = decide(&manager.newest(), request, rand::random(), clock::timestamp())?;
        if decision.transaction.is_empty() {
            return Ok(decision.answer);
        }
        match commit(manager, &decision.transaction).await {
            Ok(true) => return Ok(decision.answer),
            Ok(false) => last = Rejection::new(Code::Unavailable, "the state changed too often"),
            Err(rejection) => return Err(rejection),
        }
    }
    Err(last)
}

/// Proposes; `false` if the transaction lost a race.
async fn commit(manager: &Manager, transaction: &Transaction) -> Result<bool, Rejection> {
    let broken = |reason: String| Rejection::new(Code::Unavailable, reason);
    let payload = encode_transaction(transaction).map_err(|e| broken(e.to_string()))?;
    let applied = manager.raft.propose(payload).await.map_err(|error| match error {
        ProposeError::NotLeader { .. } => broken(NO_LEADER.to_owned()),
        too_large @ ProposeError::TooLarge { .. } => Rejection::invalid(too_large.to_string()),
        other => broken(format!("{other}. {NO_LEADER}")),
    })?;
    match serde_json::from_slice(&applied.response) {
        Ok(Outcome::Applied) => Ok(true),
        Ok(Outcome::Rejected(conflict)) => {
            tracing::debug!(%conflict, "decision lost a race");
            Ok(false)
        }
        Err(error) => Err(broken(format!("read the outcome of an entry: {error}"))),
    }
}
