//! Why a service waits. The leader answers: it alone knows which nodes a stopping task waits for.

use std::net::SocketAddr;
use std::time::Duration;

use cluster::plan;
use cluster::rejection::{Code, Rejection};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Manager, NO_LEADER};
use crate::clock;
use crate::transport::{CallError, Lane};
use crate::wire::{self, NOT_LEADER};

/// How long an answer may take, the search for a leader included.
const WHY_LIMIT: Duration = Duration::from_secs(5);
/// While nothing is heard of a leader, one is looked for again this often.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// `POST /manager/why`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyCall {
    /// A service, a task, or a network that is being removed (`cluster::plan::why`).
    pub service: String,
}

/// Its answer: `cluster::plan::Why`, passed on as it is.
pub type WhyAnswer = Result<Value, Rejection>;

impl Manager {
    /// What a service waits for, by the leader's word.
    pub async fn why(&self, call: &WhyCall) -> WhyAnswer {
        let none = || Err(Rejection::new(Code::Unavailable, NO_LEADER));
        tokio::time::timeout(WHY_LIMIT, self.ask_leaders(call)).await.unwrap_or_else(|_late| none())
    }

    /// Nothing is changed, so one leader after the other can be asked.
    async fn ask_leaders(&self, call: &WhyCall) -> WhyAnswer {
        let mut status = self.raft.watch();
        loop {
            let seen = status.borrow_and_update().clone();
            if seen.is_leader {
                return self.explain(call).await;
            }
            if let Some(leader) = seen.leader.and_then(|peer| peer.address.parse().ok())
                && let Some(answer) = self.ask(leader, call).await
            {
                return answer;
            }
            let _ = tokio::time::timeout(RETRY_INTERVAL, status.changed()).await;
        }
    }

    /// The same on this node, which leads.
    pub(super) async fn explain(&self, call: &WhyCall) -> WhyAnswer {
        let state = self.linearizable().await?;
        let behind = |task: &_| {
            let now = clock::monotonic();
            let behind = self.with_sessions(|leader| leader.behind(&state, task, now));
            behind.into_iter().collect()
        };
        let why = plan::why(&state, &call.service, clock::timestamp(), &behind)?;
        serde_json::to_value(why).map_err(|error| unavailable(&error))
    }

    /// Nothing, if that manager does not lead or is not reached.
    async fn ask(&self, leader: SocketAddr, call: &WhyCall) -> Option<WhyAnswer> {
        let broken = |error: wire::WireError| unavailable(&error);
        let body = match wire::encode(call) {
            Ok(body) => body,
            Err(error) => return Some(Err(broken(error))),
        };
        let called = self.net.call(leader, Lane::Control, "/manager/why", body, WHY_LIMIT);
        match called.await {
            Ok(bytes) => Some(wire::decode::<WhyAnswer>(&bytes).map_err(broken).flatten()),
            Err(error @ CallError::Refused { status, .. }) if status != NOT_LEADER => {
                Some(Err(unavailable(&error)))
            }
            Err(_lost) => None,
        }
    }
}

fn unavailable(error: &dyn std::error::Error) -> Rejection {
    Rejection::new(Code::Unavailable, format!("ask the leader why: {error}"))
}
