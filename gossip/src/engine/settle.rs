//! What leaves: after each input the engine does all that has become possible or due.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use cluster::id::NodeId;
use cluster::view::Liveness;
use foca::State;
use rand::RngExt;
use rand::seq::IndexedRandom;

use crate::Now;
use crate::anti_entropy::{self, RestartNotice, SyncRequest};
use crate::codec::{self, Body, DATAGRAM_BYTES_MAX};
use crate::engine::exchange::{EXCHANGES_MAX, RETRY, WELCOMES, Wish};
use crate::engine::intake::{VIEW_PACE, Waiting};
use crate::engine::roster::ANNOUNCE_MAX;
use crate::engine::{Engine, Output, PUSH_GAP, RESTART_COPIES, SWEEP_PERIOD};
use crate::identity::Identity;
use crate::proof::Statement;
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
        for (node, address) in self.roster.next_announced(&self.active) {
            self.membership.announce(Identity::unknown(node, address));
        }
        let connected = self.membership.is_connected();
        if !connected {
            // We are somebody new, and those that knew us before have to hear it.
            let active: Vec<Identity> = self.active.values().copied().collect();
            for identity in active.sample(&mut self.choices, ANNOUNCE_MAX) {
                self.membership.announce(*identity);
            }
        }
        let period = if connected { self.config.join_period } else { self.config.probe_period };
        self.join_at = now + period;
    }

    /// Asks peers without a reason: those that keep the view incomplete, or else one at random.
    fn compare(&mut self, now: Now) {
        if !self.exchanges.complete {
            self.catch_up(now);
            self.exchanges.next = now + RETRY;
            return;
        }
        let active: Vec<NodeId> = self.active.keys().copied().collect();
        if let Some(node) = active.choose(&mut self.choices) {
            self.exchanges.want_all(*node);
        }
        // Nodes that started together must not stay in step.
        let spread = self.choices.random_range(75..=125_u32);
        self.exchanges.next = now + self.config.sync_interval * spread / 100;
    }

    /// Works towards a complete view.
    fn catch_up(&mut self, now: Now) {
        let named = self.roster.peers();
        let all_known = named.is_some();
        if all_known {
            self.exchanges.begin(now);
        }
        let peers = named.unwrap_or_else(|| self.active.keys().copied().collect());
        let lacking = self.exchanges.lacking(&peers, &self.active, &self.table, now);
        // Rows of nodes that are down, and who restarts just now, only a whole table tells.
        let heard = peers.is_empty() || self.exchanges.has_heard(now);
        self.exchanges.complete |= all_known && heard && lacking.is_empty();
        let mut reachable: Vec<NodeId> =
            lacking.into_iter().filter(|node| self.active.contains_key(node)).collect();
        if reachable.is_empty() && !heard {
            reachable = self.active.keys().copied().collect();
        }
        let room = EXCHANGES_MAX.saturating_sub(self.exchanges.whole());
        for node in reachable.sample(&mut self.choices, room) {
            self.exchanges.want_all(*node);
        }
    }

    fn sweep(&mut self, now: Now) {
        self.table.expire(now, self.config.tombstone_horizon);
        self.sweep_at = now + SWEEP_PERIOD;
    }

    /// Does what follows from the input: membership's datagrams, pushes, exchanges, the view.
    pub(super) fn settle(&mut self, now: Now) {
        let decided = self.membership.decide(now);
        if decided.rejoined {
            self.stats.rejoins += 1;
            self.join(now);
        }
        let changed = self.look_around(&decided.arrived, now);
        if !changed.is_empty() {
            // News of life and death does not wait for the tick either.
            self.membership.gossip();
        }
        let more = self.membership.decide(now);
        for (to, payload) in decided.sends.into_iter().chain(more.sends) {
            self.send_membership(to, &payload, now);
        }
        let view = self.projection.view();
        let suspect = |node| view.liveness.get(node) == Some(&Liveness::Suspect);
        if changed.iter().any(suspect) || self.nag_at.is_some_and(|at| now >= at) {
            self.nag(now);
        }
        drop(view);
        self.push(now);
        if !self.exchanges.complete {
            self.catch_up(now);
        }
        for (peer, wish) in self.exchanges.start(&self.active, now) {
            self.stats.exchanges_begun += 1;
            let ask = match wish {
                Wish::All => SyncRequest::Ask(anti_entropy::digests(&self.table), None),
                Wish::Of(owners) => {
                    let digests = owners.iter().map(|owner| self.table.digest(*owner));
                    SyncRequest::AskOf(digests.collect())
                }
            };
            self.post(peer, &ask);
        }
        // Without our own rows the view lacks what runs right here.
        self.projection.complete(self.exchanges.complete && self.own.is_asserted());
        self.show(now);
    }

    /// Says that the view has changed, if it has.
    fn show(&mut self, now: Now) {
        let waits = self.intake.front().map(Waiting::arrived);
        if !self.projection.has_changed() {
            self.unshown_since = waits;
            return;
        }
        let since = *self.unshown_since.get_or_insert(now);
        // A view that is handed out is copied at the next change: not for each slice of a load.
        if waits.is_none() || now >= self.shown_at + VIEW_PACE {
            self.projection.take_changed();
            (self.shown_at, self.shown_since, self.unshown_since) = (now, since, waits);
            self.out.push(Output::ViewChanged);
        }
    }

    /// Takes over what membership thinks, if it changed its mind; returns the nodes concerned.
    fn look_around(&mut self, arrived: &[Identity], now: Now) -> BTreeSet<NodeId> {
        let grace_over = self.restarting.values().any(|(_, until, _)| *until <= now);
        if !(self.membership.take_changed() || self.stale || grace_over) {
            return BTreeSet::new();
        }
        self.stale = false;
        self.active = (self.membership.active())
            .filter(|identity| identity.node != self.config.node)
            .map(|identity| (identity.node, *identity))
            .collect();
        self.welcome(arrived);
        let opinions = self.opinions(now);
        self.projection.liveness(&opinions)
    }

    /// Members became active: compare tables with them at once.
    fn welcome(&mut self, arrived: &[Identity]) {
        for node in arrived.iter().map(|identity| identity.node) {
            let all = self.active.len() <= WELCOMES;
            let chosen = all || self.choices.random_range(0..self.active.len()) < WELCOMES;
            if chosen && self.exchanges.complete && self.active.contains_key(&node) {
                self.exchanges.want_all(node);
            }
        }
        if self.active.is_empty() {
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
            .filter(|m| m.state() == State::Suspect)
            .map(|m| (*m.id(), m.incarnation()))
            .collect();
        for (identity, incarnation) in suspects.iter().take(NAGS_MAX) {
            self.send(&[identity.address], Body::Suspected(*identity, *incarnation));
        }
        self.nag_at = (!suspects.is_empty()).then_some(now + self.config.probe_period);
    }

    fn push(&mut self, now: Now) {
        let (fanout, peers) = (self.config.fanout, &self.active);
        let packets = self.outbox.take(&self.table, peers, fanout, &mut self.choices);
        for packet in packets {
            self.send(&packet.to, Body::Rows(vec![packet.bundle]));
        }
        self.push_at = (!self.outbox.is_empty()).then_some(now + PUSH_GAP);
    }

    /// Tells every member that we will be back.
    pub(super) fn announce_restart(&mut self) {
        let grace_ms = u32::try_from(self.config.restart_grace.as_millis()).unwrap_or(u32::MAX);
        let generation = self.membership.identity().generation;
        let proof = self.author.prove(Statement::Restart(generation));
        let notice = RestartNotice { node: self.config.node, generation, grace_ms, proof };
        let all: Vec<SocketAddr> = self.active.values().map(|i| i.address).collect();
        for _copy in 0..RESTART_COPIES {
            self.send(&all, Body::Restarting(notice));
        }
    }

    /// Passes a message on to a fan-out of members.
    pub(super) fn spread(&mut self, body: &Body, not_to: NodeId) {
        let others: Vec<SocketAddr> = (self.active.iter())
            .filter(|(node, _)| **node != not_to)
            .map(|(_, identity)| identity.address)
            .collect();
        let to: Vec<SocketAddr> =
            others.sample(&mut self.choices, self.config.fanout).copied().collect();
        self.send(&to, body.clone());
    }

    fn send_membership(&mut self, to: Identity, payload: &Bytes, now: Now) {
        let mut digests = vec![self.table.digest(self.config.node)];
        digests.extend(self.rumours.take(payload.len(), &self.table, now));
        self.send(&[to.address], Body::Membership(digests, payload.to_vec()));
    }

    /// Seals once and sends to all of these.
    fn send(&mut self, to: &[SocketAddr], body: Body) {
        self.sealed += 1;
        let sealed = codec::encode_datagram(&body)
            .ok()
            .and_then(|plain| self.keyring.seal(&self.sender, self.sealed, &plain));
        debug_assert!(sealed.as_ref().is_some_and(|s| s.len() <= DATAGRAM_BYTES_MAX));
        let Some(sealed) = sealed.map(Bytes::from) else { return };
        self.stats.datagrams_sent += to.len() as u64;
        let send = |to: &SocketAddr| Output::Send { to: *to, bytes: sealed.clone() };
        self.out.extend(to.iter().map(send));
    }

    /// Asks the shell to post a message of an exchange.
    pub(super) fn post(&mut self, peer: NodeId, request: &SyncRequest) {
        let to = self.active.get(&peer).map(|identity| identity.address);
        match (to, codec::encode_sync(request)) {
            (Some(to), Ok(bytes)) => {
                self.out.push(Output::Sync { peer, to, bytes: Bytes::from(bytes) });
            }
            (None, _) | (_, Err(_)) => self.exchanges.ended(peer),
        }
    }
}
