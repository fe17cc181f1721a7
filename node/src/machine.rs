//! The replicated state machine: log entries in, [`State`] out, published to the whole process.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use cluster::apply::Outcome;
use cluster::codec::{CodecError, decode_transaction};
use cluster::state::State;
use cluster::time::Revision;
use raft_store::{Machine, SnapshotContent};
use tokio::sync::watch;

use crate::manager::agreement::History;

/// Applies entries and publishes the newest state.
pub struct StateMachine {
    state: State,
    published: watch::Sender<Arc<State>>,
    history: History,
}

impl StateMachine {
    /// An empty state, and where the newest one is published. Every state is noted in the history.
    #[must_use]
    pub fn new(published: watch::Sender<Arc<State>>, history: History) -> Self {
        Self { state: State::default(), published, history }
    }

    fn publish(&self) {
        self.history.note(&self.state);
        self.published.send_replace(Arc::new(self.state.clone()));
    }
}

impl Machine for StateMachine {
    fn apply(&mut self, index: u64, payload: &[u8]) -> Result<Vec<u8>, String> {
        if payload.is_empty() {
            return Ok(Vec::new());
        }
        let transaction = decode_transaction(payload).map_err(|error| match error {
            CodecError::NewerSchema { .. } => error.to_string(),
            other => format!(
                "{}; it is of a newer version of Skein, or damaged: upgrade this manager",
                crate::causes::chain(&other)
            ),
        })?;
        let outcome = self.state.apply(Revision(index), &transaction);
        match &outcome {
            Outcome::Applied => self.publish(),
            Outcome::Rejected(conflict) => {
                tracing::debug!(revision = index, %conflict, "entry rejected");
            }
        }
        serde_json::to_vec(&outcome).map_err(|error| error.to_string())
    }

    fn snapshot(&self) -> SnapshotContent {
        let state = self.state.clone();
        Box::new(move |file| {
            state.write_snapshot(file).map_err(|error| match error {
                // Its kind tells whether the disk is full.
                CodecError::Stream { source, .. } => source,
                other => io::Error::other(other),
            })
        })
    }

    fn restore(&mut self, index: u64, snapshot: &mut dyn Read) -> Result<(), String> {
        let mut snapshot = BufReader::new(snapshot);
        self.state = State::read_snapshot(&mut snapshot).map_err(|e| crate::causes::chain(&e))?;
        tracing::info!(revision = index, "state restored from a snapshot");
        self.publish();
        Ok(())
    }
}
