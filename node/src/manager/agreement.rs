//! Whether the managers hold the same state: digests are compared at equal revisions.
//!
//! Each manager keeps the digests of its newest states and asks every other one from time to time
//! whether it had the same. States that have differed once differ at every later revision too, so
//! one revision in common is enough.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster::id::NodeId;
use cluster::object::NodeState;
use cluster::state::{DIGEST_LAYOUT, Digest, State};
use cluster::time::Revision;
use serde::{Deserialize, Serialize};

use super::Manager;
use crate::transport::Lane;
use crate::wire;

/// Pause between two rounds of questions.
const ROUND_INTERVAL: Duration = Duration::from_secs(10);
/// One manager may take this long to answer.
const CALL_LIMIT: Duration = Duration::from_secs(3);
/// Revisions whose digests are kept: managers apply an entry within milliseconds of each other.
const KEPT_MAX: usize = 256;
/// Of these are sent, the newest.
const SENT_MAX: usize = 64;

/// The newest states of this manager, as digests.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<VecDeque<Held>>>);

/// `POST /manager/digest`: what the caller held at its newest revisions, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestCall {
    layout: u32,
    held: Vec<Held>,
}

/// The digest of the state at a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    revision: Revision,
    digest: Digest,
}

/// The callee's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compared {
    /// The newest revision in common has the same digest.
    Equal(Revision),
    /// It has another one.
    Differs(Revision),
    /// There is no revision in common, or their digests are of different layouts.
    NotComparable,
}

/// Managers whose state differs from this one's, and the revision at which it was seen.
pub type Differing = BTreeMap<NodeId, Revision>;

impl History {
    /// Notes the state that was just applied.
    pub fn note(&self, state: &State) {
        let mut kept = self.hold();
        if kept.back().is_some_and(|newest| newest.revision >= state.revision) {
            // A snapshot took the place of everything.
            kept.clear();
        }
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Held { revision: state.revision, digest: state.digest });
    }

    fn hold(&self) -> MutexGuard<'_, VecDeque<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this manager asks another one with.
    #[must_use]
    pub fn call(&self) -> DigestCall {
        let kept = self.hold();
        let held = kept.iter().skip(kept.len().saturating_sub(SENT_MAX)).copied().collect();
        DigestCall { layout: DIGEST_LAYOUT, held }
    }

    /// What this manager says to another one's digests.
    #[must_use]
    pub fn compare(&self, call: &DigestCall) -> Compared {
        if call.layout != DIGEST_LAYOUT {
            return Compared::NotComparable;
        }
        let kept = self.hold();
        for theirs in call.held.iter().rev().take(SENT_MAX) {
            let own = kept.binary_search_by_key(&theirs.revision, |held| held.revision);
            if let Some(own) = own.ok().and_then(|at| kept.get(at)) {
                let equal = own.digest == theirs.digest;
                let verdict = if equal { Compared::Equal } else { Compared::Differs };
                return verdict(theirs.revision);
            }
        }
        Compared::NotComparable
    }
}

/// Runs until the manager stops.
pub(super) async fn run(manager: Manager) {
    loop {
        tokio::time::sleep(ROUND_INTERVAL).await;
        round(&manager).await;
    }
}

async fn round(manager: &Manager) {
    let state = manager.newest();
    let others = state
        .nodes
        .values()
        .filter(|node| node.id != manager.node && node.status.state != NodeState::Disconnected);
    let mut differing = manager.differing.borrow().clone();
    let mut asked = Vec::new();
    for node in others {
        let Some(info) = &node.manager else { continue };
        asked.push(node.id);
        match ask(manager, info.address).await {
            Some(Compared::Equal(_)) => drop(differing.remove(&node.id)),
            Some(Compared::Differs(revision)) => {
                if differing.insert(node.id, revision).is_none() {
                    tracing::error!(
                        manager = %node.id, revision = revision.0,
                        "another manager holds another state: skein doctor says what to do"
                    );
                }
            }
            // What was seen stays until it is known to be repaired.
            Some(Compared::NotComparable) | None => {}
        }
    }
    differing.retain(|id, _| asked.contains(id));
    manager.differing.send_if_modified(|old| {
        let changed = *old != differing;
        *old = differing;
        changed
    });
}

async fn ask(manager: &Manager, address: std::net::SocketAddr) -> Option<Compared> {
    let body = wire::encode(&manager.history.call()).ok()?;
    let call = manager.net.call(address, Lane::Control, "/manager/digest", body, CALL_LIMIT);
    match call.await {
        Ok(answer) => wire::decode(&answer).ok(),
        Err(error) => {
            tracing::debug!(%address, %error, "compare digests");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(revision: u64, digest: &str) -> Held {
        let digest = serde_json::from_str(digest).unwrap();
        Held { revision: Revision(revision), digest }
    }

    fn history(all: &[Held]) -> History {
        History(Arc::new(Mutex::new(all.iter().copied().collect())))
    }

    #[test]
    fn the_newest_revision_in_common_decides() {
        let here = history(&[held(3, "1"), held(5, "2"), held(9, "3")]);
        let compared = |all: &[Held]| {
            let call = wire::encode(&history(all).call()).unwrap();
            here.compare(&wire::decode(&call).unwrap())
        };
        let large = [held(3, &u128::MAX.to_string())];
        assert_eq!(compared(&large), Compared::Differs(Revision(3)));
        assert_eq!(history(&large).compare(&history(&large).call()), Compared::Equal(Revision(3)));
        assert_eq!(compared(&[held(5, "2"), held(7, "9")]), Compared::Equal(Revision(5)));
        assert_eq!(compared(&[held(3, "7"), held(9, "3")]), Compared::Equal(Revision(9)));
        assert_eq!(compared(&[held(5, "2"), held(9, "4")]), Compared::Differs(Revision(9)));
        assert_eq!(compared(&[held(4, "2"), held(10, "4")]), Compared::NotComparable);
        assert_eq!(compared(&[]), Compared::NotComparable);
        let call = DigestCall { layout: DIGEST_LAYOUT + 1, held: vec![held(9, "4")] };
        assert_eq!(here.compare(&call), Compared::NotComparable);
    }

    #[test]
    fn the_history_is_bounded_and_begins_again_with_a_snapshot() {
        let history = History::default();
        let state = |revision| {
            let mut state = State::default();
            state.revision = Revision(revision);
            state
        };
        (1..=1000).for_each(|revision| history.note(&state(revision)));
        assert_eq!(history.hold().len(), KEPT_MAX);
        assert_eq!(history.call().held.len(), SENT_MAX);
        history.note(&state(1000));
        assert_eq!(history.hold().len(), 1);
    }
}
