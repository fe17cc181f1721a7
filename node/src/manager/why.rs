//! Why a service waits. The leader answers: it alone knows which nodes a stopping task waits for.

use std::net::SocketAddr;

use cluster::plan;
use cluster::rejection::{Code, Rejection};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Forward, Manager, REQUEST_LIMIT};
use crate::clock;
use crate::transport::{CallError, Lane};
use crate::wire::{self, NOT_LEADER};

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
        self.at_leader(|| self.explain(call), |leader| self.ask(leader, call)).await
    }

    /// The same on this node, which leads.
    pub(super) async fn explain(&self, call: &WhyCall) -> WhyAnswer {
        let state = self.linearizable().await?;
        let behind = |task: &_| self.with_dispatcher(|known| known.behind(&state, task).collect());
        let why = plan::why(&state, &call.service, clock::timestamp(), &behind)?;
        serde_json::to_value(why).map_err(|error| unavailable(&error))
    }

    async fn ask(&self, leader: SocketAddr, call: &WhyCall) -> Result<Value, Forward> {
        let broken = |error: wire::WireError| Forward::Final(unavailable(&error));
        let body = wire::encode(call).map_err(broken)?;
        let called = self.net.call(leader, Lane::Control, "/manager/why", body, REQUEST_LIMIT);
        match called.await {
            Ok(bytes) => wire::decode::<WhyAnswer>(&bytes).map_err(broken)?.map_err(Forward::Final),
            Err(error @ CallError::Refused { status, .. }) if status != NOT_LEADER => {
                Err(Forward::Final(unavailable(&error)))
            }
            // Nothing is changed: the next leader can be asked.
            Err(_lost) => Err(Forward::TryAgain),
        }
    }
}

fn unavailable(error: &dyn std::error::Error) -> Rejection {
    Rejection::new(Code::Unavailable, format!("ask the leader why: {error}"))
}
