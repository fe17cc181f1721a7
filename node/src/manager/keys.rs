//! Turns the key of gossip on the leader: every twelve hours, and at once when a node was removed,
//! which knows the one in use. Each step waits until every live node has what the last one told.

use std::time::Duration;

use cluster::id::NodeId;
use cluster::object::{KeyTurn, NodeState};
use cluster::request::{KeyStep, Request};
use cluster::state::State;
use cluster::time::{Revision, Timestamp};

use super::Manager;
use crate::clock;

/// How long one key seals, as swarmkit's.
const KEY_LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// A node that has not acknowledged a step for so long is not waited for: it gets keys over its
/// session, whatever keeps it from acknowledging. Without that one node would keep a removed one's
/// key in use.
pub const STEP_MAX: Duration = Duration::from_secs(60);
/// Looked at this often at least: time passes without a ring.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until the manager stops.
pub(super) async fn run(manager: Manager) {
    let mut status = manager.raft.watch();
    let mut state = manager.state.clone();
    let mut acks = manager.acks.subscribe();
    // When which version of the cluster was first waited for.
    let mut waited: Option<(Revision, Duration)> = None;
    loop {
        if status.wait_for(|status| status.leader_ready).await.is_err() {
            return;
        }
        let newest = state.borrow_and_update().clone();
        acks.borrow_and_update();
        let version = newest.cluster.as_ref().map_or(Revision(0), |cluster| cluster.meta.version);
        let now = clock::monotonic();
        let since = match waited {
            Some((known, since)) if known == version => since,
            _other => now,
        };
        waited = Some((version, since));
        let is_late = now.saturating_sub(since) >= STEP_MAX;
        let due = manager.with_sessions(|leader| {
            let applied = |node| leader.applied(node);
            next(&newest, applied, is_late, clock::timestamp(), rand::random)
        });
        if let Some(step) = due
            && let Err(rejection) = manager.decide(Request::TurnGossipKey { step }).await
        {
            tracing::debug!(%rejection, "turn the key of gossip");
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            _rung = acks.changed() => {}
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// The step that is due. `applied` tells which revision a node has, `draw` gives a new key.
#[must_use]
pub fn next(
    state: &State,
    applied: impl Fn(NodeId) -> Option<Revision>,
    is_late: bool,
    now: Timestamp,
    draw: impl FnOnce() -> [u8; 32],
) -> Option<KeyStep> {
    let cluster = state.cluster.as_ref()?;
    let told = || {
        let live = state.nodes.values().filter(|node| node.status.state == NodeState::Ready);
        let mut live = live.map(|node| node.id);
        is_late || live.all(|id| applied(id).is_some_and(|at| at >= cluster.meta.version))
    };
    match cluster.key_turn {
        KeyTurn::Done => {
            let life = u64::try_from(KEY_LIFE.as_millis()).unwrap_or(u64::MAX);
            let old = now.since_ms(cluster.key_made_at) >= life;
            let left = cluster.removed.values().any(|removed| *removed >= cluster.key_made_at);
            (old || left).then(|| KeyStep::Spread { key: draw() })
        }
        KeyTurn::Spreads => told().then_some(KeyStep::Seal),
        KeyTurn::Seals => told().then_some(KeyStep::Forget),
    }
}

#[cfg(test)]
mod tests {
    use cluster::spec::Role;

    use super::*;
    use crate::fixture::{carry_out, cluster as two_nodes, joining};

    const KEY: [u8; 32] = [7; 32];
    const REMOVED: NodeId = NodeId(3);

    fn ids(state: &State) -> Vec<u8> {
        let cluster = state.cluster.as_ref().expect("a cluster");
        cluster.gossip_keys.iter().map(|key| key.id).collect()
    }

    /// Goal: no live node meets a key that it lacks, and a removed one has none that counts.
    /// Method: each step, before and after all have what the last one told.
    #[test]
    fn a_key_is_spread_then_seals_then_is_alone() {
        let mut state = two_nodes();
        let now = Timestamp(0);
        carry_out(&mut state, &Request::JoinNode(Box::new(joining(REMOVED, Role::Worker))));
        let nobody = |_: NodeId| None;
        assert_eq!(next(&state, nobody, true, now, || KEY), None, "nothing is due");
        let later = now.plus_ms(12 * 60 * 60 * 1000);
        assert!(matches!(next(&state, nobody, false, later, || KEY), Some(KeyStep::Spread { .. })));

        carry_out(&mut state, &Request::RemoveNode { id: REMOVED, force: true });
        let mut seen = vec![ids(&state)];
        for _ in 0..3 {
            let all = Some(state.revision);
            let step = next(&state, |_| all, false, now, || KEY).expect("a step is due");
            if !matches!(step, KeyStep::Spread { .. }) {
                let before = Some(Revision(state.revision.0 - 1));
                let wait = next(&state, |_| before, false, now, || KEY);
                assert_eq!(wait, None, "not all have been told");
                assert_eq!(next(&state, |_| before, true, now, || KEY), Some(step.clone()));
            }
            carry_out(&mut state, &Request::TurnGossipKey { step });
            seen.push(ids(&state));
        }
        assert_eq!(seen, [vec![1], vec![1, 2], vec![2, 1], vec![2]]);
    }
}
