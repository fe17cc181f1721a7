//! The replicated state machine: log entries in, [`State`] out, published to the whole process.

use std::sync::Arc;

use cluster::apply::Outcome;
use cluster::codec::decode_transaction;
use cluster::state::State;
use cluster::time::Revision;
use raft_store::Machine;
use tokio::sync::watch;

/// What became of an entry, as its proposer gets it back.
pub type Applied = Result<Outcome, String>;

/// Applies entries and publishes the newest state.
pub struct StateMachine {
    state: State,
    published: watch::Sender<Arc<State>>,
}

impl StateMachine {
    /// An empty state, and where the newest one is read.
    #[must_use]
    pub fn new() -> (Self, watch::Receiver<Arc<State>>) {
        let (published, reader) = watch::channel(Arc::default());
        (Self { state: State::default(), published }, reader)
    }

    fn publish(&self) {
        self.published.send_replace(Arc::new(self.state.clone()));
    }
}

impl Machine for StateMachine {
    fn apply(&mut self, index: u64, payload: &[u8]) -> Vec<u8> {
        if payload.is_empty() {
            return Vec::new();
        }
        let applied: Applied = match decode_transaction(payload) {
            Ok(transaction) => Ok(self.state.apply(Revision(index), &transaction)),
            Err(error) => Err(error.to_string()),
        };
        match &applied {
            Ok(Outcome::Applied) => self.publish(),
            Ok(Outcome::Rejected(conflict)) => {
                tracing::debug!(revision = index, %conflict, "entry rejected");
            }
            // A newer version's entry, or damage: loud, and the same on every manager.
            Err(reason) => tracing::error!(revision = index, %reason, "entry cannot be read"),
        }
        serde_json::to_vec(&applied).unwrap_or_default()
    }

    fn snapshot(&self) -> Vec<u8> {
        self.state.to_snapshot().unwrap_or_else(|error| {
            tracing::error!(%error, "snapshot of the state");
            Vec::new()
        })
    }

    fn restore(&mut self, index: u64, snapshot: &[u8]) -> Result<(), String> {
        self.state = State::from_snapshot(snapshot).map_err(|e| e.to_string())?;
        tracing::info!(revision = index, "state restored from a snapshot");
        self.publish();
        Ok(())
    }
}
