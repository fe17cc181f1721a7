//! The key of gossip turns as the leader turns it: who is removed opens nothing from then on, and
//! nobody who was waited for meets a datagram that it cannot open.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster::id::NodeId;
use cluster::object::{KeyTurn, NodeState};
use cluster::request::{KeyStep, Request};
use cluster::time::Revision;
use gossip::{Engine, Input};
use rand::RngExt as _;
use skein::manager::keys::{self, STEP_MAX};

use super::PlantedBug;
use super::world::World;

/// What is known of who holds which keys.
#[derive(Default)]
pub(super) struct Trust {
    /// Nodes that had the newest keys when the turn last went on, and were not given up since.
    pub(super) sworn: BTreeSet<NodeId>,
    /// When which version of the cluster was first waited for.
    waited: Option<(Revision, Duration)>,
    /// When the turn last went on: what was sent before may be late.
    pub(super) went_on: Duration,
    thieves: Vec<Thief>,
    /// Turns that came to their end.
    pub(super) turns: u64,
}

/// A node that was removed: its engine goes on listening with the keys that it had.
struct Thief {
    node: NodeId,
    engine: Engine,
}

fn unopened(engine: &Engine) -> u64 {
    engine.stats().datagrams_unopened
}

impl World {
    /// The next step of the turn, if one is due.
    pub(super) fn turn_key(&mut self) {
        if self.plant == PlantedBug::NoTurn {
            return;
        }
        let Some(cluster) = self.leader.state.cluster.clone() else { return };
        let version = cluster.meta.version;
        let since = match self.trust.waited {
            Some((known, since)) if known == version => since,
            _other => self.now,
        };
        self.trust.waited = Some((version, since));
        let is_late = self.now.saturating_sub(since) >= STEP_MAX;
        let (wall, leader, moves) = (self.wall(), &self.leader, &mut self.moves);
        let applied = |node| leader.core.applied(node);
        let due = keys::next(&leader.state, applied, is_late, wall, || moves.random());
        let Some(step) = due else { return };
        let has = |id: NodeId| applied(id).is_some_and(|at| at >= version);
        let nodes = leader.state.nodes.values().filter(|n| n.status.state == NodeState::Ready);
        self.trust.sworn = nodes.map(|node| node.id).filter(|id| has(*id)).collect();
        self.trust.went_on = self.now;
        self.trust.turns += u64::from(step == KeyStep::Forget);
        let word = match step {
            KeyStep::Spread { .. } => "spreads",
            KeyStep::Seal => "seals",
            KeyStep::Forget => "is alone",
        };
        self.tell(format!("the new key of gossip {word}"));
        if let Err(refusal) = self.decide(&Request::TurnGossipKey { step }) {
            self.problems.push(format!("turning the key of gossip: {refusal}"));
        }
    }

    /// A removed node's engine listens on.
    pub(super) fn listens_on(&mut self, node: NodeId, engine: Engine) {
        self.trust.sworn.remove(&node);
        self.trust.thieves.push(Thief { node, engine });
    }

    /// A removed node tries to open what a node sends.
    pub(super) fn overheard(&mut self, from: NodeId, datagram: impl Fn() -> Input) {
        let Some(cluster) = self.leader.state.cluster.as_ref() else { return };
        if cluster.key_turn != KeyTurn::Done || !self.trust.sworn.contains(&from) {
            return;
        }
        let (made, now) = (cluster.key_made_at, self.now);
        let told = self.plant == PlantedBug::ToldThief;
        for thief in &mut self.trust.thieves {
            // Another removal made the turn begin again.
            if cluster.removed.get(&thief.node).is_none_or(|removed| *removed >= made) {
                continue;
            }
            let ring = cluster.gossip_keys.iter().map(|key| (key.id, key.key)).collect();
            let newest = cluster.gossip_keys.first().map_or(0, |key| key.id);
            if told && let Ok(keys) = gossip::Keyring::new(newest, &ring) {
                thief.engine.step(Input::Keys(keys), now);
            }
            let before = unopened(&thief.engine);
            thief.engine.step(datagram(), now);
            if unopened(&thief.engine) == before {
                self.problems.push(format!(
                    "node {}, removed, opens what node {} sends after the turn",
                    thief.node.0, from.0
                ));
            }
        }
    }

    /// Gives a node a datagram, which it has to be able to open if both were waited for.
    pub(super) fn deliver_datagram(
        &mut self,
        from: NodeId,
        to: NodeId,
        input: Input,
        sent: Duration,
    ) {
        let count = |world: &Self| {
            let daemon = world.hosts.get(&to).and_then(|host| host.daemon.as_ref());
            daemon.and_then(|daemon| daemon.engine.as_ref()).map(unopened)
        };
        let before = count(self);
        self.gossip_input(to, input);
        let sworn = |id| self.trust.sworn.contains(&id);
        if sworn(from) && sworn(to) && sent > self.trust.went_on && count(self) > before {
            self.problems.push(format!("node {} cannot open what node {} sent", to.0, from.0));
        }
    }

    /// In calm: one key, which nobody knows who was removed.
    pub(super) fn complain_of_keys(&self, found: &mut Vec<String>) {
        let Some(cluster) = &self.leader.state.cluster else { return };
        if cluster.key_turn != KeyTurn::Done || cluster.gossip_keys.len() != 1 {
            found.push(format!("the key of gossip is being turned: {:?}", cluster.key_turn));
        }
        let knows = |thief: &&Thief| {
            cluster.removed.get(&thief.node).is_some_and(|removed| *removed >= cluster.key_made_at)
        };
        for thief in self.trust.thieves.iter().filter(knows) {
            found.push(format!("the key that node {} knew is in use", thief.node.0));
        }
    }
}
