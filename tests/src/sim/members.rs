//! Which nodes there are and what they are to be: promoted, demoted, removed, and new ones joined.

use std::time::Duration;

use cluster::id::NodeId;
use cluster::request::Request;
use cluster::spec::Role;
use rand::RngExt as _;

use super::STORM;
use super::host::Host;
use super::raft::joining;
use super::world::{Event, World};

/// Changes of a run.
const CHANGES: std::ops::RangeInclusive<u32> = 3..=8;
/// Nodes with an address of their own, over a run.
const NUMBERS_MAX: u8 = 250;

/// A change of the members. Which node it is is one of those that there are then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Role(u8, Role),
    /// It is removed, though it is up, and a new one joins.
    Replace(u8),
}

impl World {
    pub(super) fn schedule_changes(&mut self) {
        let storm = u64::try_from(STORM.as_millis()).unwrap_or(u64::MAX);
        for _ in 0..self.moves.random_range(CHANGES) {
            let which = self.moves.random();
            let change = match self.moves.random_range(0..4) {
                0 => Change::Role(which, Role::Worker),
                1 => Change::Role(which, Role::Manager),
                _ => Change::Replace(which),
            };
            let at = self.moves.random_range(2_000..storm);
            self.after(Duration::from_millis(at), Event::Change(change));
        }
    }

    pub(super) fn change_members(&mut self, change: Change) {
        let (Change::Role(which, _) | Change::Replace(which)) = change;
        let nodes: Vec<NodeId> = self.leader.state.nodes.keys().copied().collect();
        let Some(id) = nodes.get(usize::from(which) % nodes.len().max(1)).copied() else { return };
        match change {
            Change::Role(_, role) => {
                let Some(node) = self.leader.state.nodes.get(&id) else { return };
                let (version, mut spec) = (node.meta.version, node.spec.clone());
                spec.role = role;
                self.ask(&Request::UpdateNode { id, version, spec: Box::new(spec) });
            }
            Change::Replace(_) => self.replace(id),
        }
    }

    /// The machine is wiped as soon as its node is removed, but for its ears.
    fn replace(&mut self, id: NodeId) {
        let Some(mut host) = self.hosts.remove(&id) else { return };
        let removed = self.decide(&Request::RemoveNode { id, force: true });
        self.tell(format!("remove node {}: {removed:?}", id.0));
        if removed.is_err() {
            self.hosts.insert(id, host);
            return;
        }
        if let Some(engine) = host.daemon.as_mut().and_then(|daemon| daemon.engine.take()) {
            self.listens_on(id, engine);
        }
        let removed = self.leader.state.cluster.iter().flat_map(|c| c.removed.keys());
        let newest = removed.chain(self.hosts.keys()).max().map_or(0, |id| id.0);
        let Some(number) = u8::try_from(newest + 1).ok().filter(|n| *n <= NUMBERS_MAX) else {
            return;
        };
        let node = NodeId(number.into());
        let joined = self.decide(&Request::JoinNode(Box::new(joining(node, Role::Worker, None))));
        if let Err(refusal) = joined {
            self.problems.push(format!("node {number} joins: {refusal}"));
            return;
        }
        self.hosts.insert(node, Host::new(number));
        self.boot(node);
    }
}
