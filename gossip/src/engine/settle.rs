//! What leaves: after each input the engine does all that has become possible or due.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use cluster::id::NodeId;
use cluster::view::Liveness;
use foca::State;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use crate::Now;
use crate::anti_entropy::{self, RestartNotice, SyncRequest};
use crate::codec::{self, Body, DATAGRAM_BYTES_MAX, Datagram};
use crate::engine::exchange::{RETRY, WELCOMES};
use crate::engine::{Engine, Output, PUSH_GAP, RESTART_COPIES, SWEEP_PERIOD};
use crate::identity::Identity;
use crate::row::RowKey;

/// Suspects that are told so in one period.
const NAGS_MAX: usize = 8;

impl Engine {
    /// Serves everything that is due.
    pub(super) fn run_timers(&mut self, now: Now) {
        self.membership.run_timers(now);
        if now >= self.join_at {
            self.join(now);
        }
        self.exchanges.settle(&self.table, now);
        if now >= self.exchanges.next {
            self.compare(now);
        }
        if now >= self.sweep_at {
            self.sweep(now);
        }
    }

    /// Announces us to nodes that are no active members, for as long as there are any.
    pub(super) fn join(&mut self, now: Now) {
        let active: BTreeSet<NodeId> = self.active().into_keys().collect();
        for (node, address) in self.roster.next_announced(&active) {
            self.membership.announce(Identity::unknown(node, address));
        }
        let lonely = active.is_empty();
        let period = if lonely { self.config.probe_period } else { self.config.join_period };
        self.join_at = now + period;
    }

    /// Asks peers without a reason: all that have not been heard while the view is incomplete,
    /// then one at random.
    fn compare(&mut self, now: Now) {
        let active: Vec<NodeId> = self.active().into_keys().collect();
        if self.exchanges.complete {
            if let Some(node) = active.choose(&mut self.choices) {
                self.exchanges.want(*node);
            }
            // Nodes that started together must not stay in step.
            let spread = self.choices.random_range(75..=125_u32);
            self.exchanges.next = now + self.config.sync_interval * spread / 100;
        } else {
            let unheard: Vec<NodeId> =
                active.into_iter().filter(|node| !self.exchanges.has_heard(*node)).collect();
            unheard.iter().take(WELCOMES).for_each(|node| self.exchanges.want(*node));
            self.exchanges.next = now + RETRY;
        }
    }

    fn sweep(&mut self, now: Now) {
        self.table.expire(now, self.config.tombstone_horizon);
        let active: BTreeSet<NodeId> = self.active().into_keys().collect();
        let known = (self.table.owners()).chain(self.membership.members().map(|m| m.id().node));
        let known: BTreeSet<NodeId> =
            known.filter(|node| !self.restarting.contains_key(node)).collect();
        for node in self.roster.sweep(&known, &active, now) {
            self.forget(node);
        }
        self.sweep_at = now + SWEEP_PERIOD;
    }

    /// Does what follows from the input: membership's datagrams, pushes, exchanges, the view.
    pub(super) fn settle(&mut self, now: Now) {
        let decided = self.membership.decide(now);
        self.stats.rejoins += u64::from(decided.rejoined);
        self.welcome(&decided.arrived);
        let opinions = self.opinions(now);
        let changed = self.projection.liveness(&opinions);
        if !changed.is_empty() {
            // News of life and death does not wait for the tick either.
            self.membership.gossip();
        }
        let more = self.membership.decide(now);
        for (to, payload) in decided.sends.into_iter().chain(more.sends) {
            self.send_membership(to, &payload);
        }
        let accused = changed.iter().any(|node| opinions.get(node) == Some(&Liveness::Suspect));
        if accused || self.nag_at.is_some_and(|at| now >= at) {
            self.nag(now);
        }
        let active = self.active();
        let peers: Vec<(NodeId, SocketAddr)> =
            active.iter().map(|(node, identity)| (*node, identity.address)).collect();
        self.push(&peers, now);
        let active: BTreeSet<NodeId> = active.into_keys().collect();
        for peer in self.exchanges.start(&active, now) {
            self.stats.exchanges_begun += 1;
            self.post(peer, &SyncRequest::Ask(anti_entropy::digests(&self.table), None));
        }
        if !self.exchanges.complete {
            self.exchanges.update_complete(self.roster.peers(), &active, now);
        }
        self.projection.complete(self.exchanges.complete);
        if self.projection.take_changed() {
            self.out.push(Output::ViewChanged);
        }
    }

    /// Members became active: compare tables with them at once.
    fn welcome(&mut self, arrived: &[Identity]) {
        let arrived: Vec<NodeId> =
            arrived.iter().map(|i| i.node).filter(|node| *node != self.config.node).collect();
        for node in arrived.iter().filter(|node| self.roster.is_gone(**node)) {
            // A peer that does not know of the removal yet told us.
            self.membership.forget(*node);
        }
        let active = self.active();
        for node in arrived.iter().filter(|node| active.contains_key(node)) {
            let all = active.len() <= WELCOMES || !self.exchanges.complete;
            if all || self.choices.random_range(0..active.len()) < WELCOMES {
                self.exchanges.want(*node);
            }
        }
        if active.is_empty() {
            self.alone = true;
        } else if self.alone {
            self.alone = false;
            // What was written while nobody listened is news to the first who does.
            let own = self.config.node;
            let keys: Vec<RowKey> = self.table.rows_of(own).map(|row| row.record.key()).collect();
            keys.into_iter().for_each(|key| self.outbox.push(own, key, None));
        }
    }

    /// Tells suspects that they are suspect, at once and again in each period.
    fn nag(&mut self, now: Now) {
        let suspects: Vec<(Identity, u16)> = (self.membership.members())
            .filter(|m| m.state() == State::Suspect && !self.roster.is_gone(m.id().node))
            .map(|m| (*m.id(), m.incarnation()))
            .collect();
        for (identity, incarnation) in suspects.iter().take(NAGS_MAX) {
            self.send(&[identity.address], Body::Suspected(*identity, *incarnation));
        }
        self.nag_at = (!suspects.is_empty()).then_some(now + self.config.probe_period);
    }

    fn push(&mut self, peers: &[(NodeId, SocketAddr)], now: Now) {
        let packets = self.outbox.take(&self.table, peers, self.config.fanout, &mut self.choices);
        for packet in packets {
            self.send(&packet.to, Body::Rows(vec![packet.bundle]));
        }
        self.push_at = (!self.outbox.is_empty()).then_some(now + PUSH_GAP);
    }

    /// Tells every member that we will be back.
    pub(super) fn announce_restart(&mut self) {
        let grace_ms = u32::try_from(self.config.restart_grace.as_millis()).unwrap_or(u32::MAX);
        let generation = self.membership.identity().generation;
        let notice = RestartNotice { node: self.config.node, generation, grace_ms };
        let all: Vec<SocketAddr> = self.active().values().map(|i| i.address).collect();
        for _copy in 0..RESTART_COPIES {
            self.send(&all, Body::Restarting(notice));
        }
    }

    /// Passes a message on to a fan-out of members.
    pub(super) fn spread(&mut self, body: &Body, not_to: NodeId) {
        let others: Vec<SocketAddr> = (self.active().into_iter())
            .filter(|(node, _)| *node != not_to)
            .map(|(_, identity)| identity.address)
            .collect();
        let to: Vec<SocketAddr> =
            others.sample(&mut self.choices, self.config.fanout).copied().collect();
        self.send(&to, body.clone());
    }

    fn send_membership(&mut self, to: Identity, payload: &Bytes) {
        let head = self.table.digest(self.config.node);
        self.send(&[to.address], Body::Membership(head, payload.to_vec()));
    }

    /// Seals once and sends to all of these.
    fn send(&mut self, to: &[SocketAddr], body: Body) {
        let datagram = Datagram { sender: self.config.node, body };
        let mut nonce = [0; 12];
        self.nonces.fill_bytes(&mut nonce);
        let sealed = codec::encode_datagram(&datagram)
            .ok()
            .and_then(|plain| self.keyring.seal(self.config.cluster, nonce, &plain));
        debug_assert!(sealed.as_ref().is_some_and(|s| s.len() <= DATAGRAM_BYTES_MAX));
        let Some(sealed) = sealed.map(Bytes::from) else { return };
        self.stats.datagrams_sent += to.len() as u64;
        let send = |to: &SocketAddr| Output::Send { to: *to, bytes: sealed.clone() };
        self.out.extend(to.iter().map(send));
    }

    /// Asks the shell to post a message of an exchange.
    pub(super) fn post(&mut self, peer: NodeId, request: &SyncRequest) {
        let to = self.active().get(&peer).map(|identity| identity.address);
        match (to, codec::encode_sync(request)) {
            (Some(to), Ok(bytes)) => {
                self.out.push(Output::Sync { peer, to, bytes: Bytes::from(bytes) });
            }
            (None, _) | (_, Err(_)) => self.exchanges.ended(peer),
        }
    }
}
