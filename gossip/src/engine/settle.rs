//! What leaves: after each input the engine does all that has become possible or due.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use cluster::id::NodeId;
use foca::{Member, State};
use rand::RngExt;

use crate::Now;
use crate::anti_entropy::{RestartNotice, Standing, SyncRequest};
use crate::codec::{self, Body, DATAGRAM_BYTES_MAX};
use crate::engine::exchange::{RETRY, WELCOMES, Wish};
use crate::engine::intake::{VIEW_PACE, Waiting};
use crate::engine::roster::ANNOUNCE_MAX;
use crate::engine::{Engine, GOSSIP_GAP, Output, RESTART_COPIES, SWEEP_PERIOD};
use crate::identity::Identity;
use crate::proof::Statement;
use crate::row::RowKey;

/// Suspects that are told so in one period.
const WARNED_MAX: usize = 8;

fn standing(member: &Member<Identity>) -> Standing {
    let Identity { generation, renewals, .. } = *member.id();
    Standing { generation, renewals, is_down: member.state() == State::Down }
}

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
        for (node, address) in self.roster.next_announced() {
            self.membership.announce(Identity::unknown(node, address));
        }
        let connected = self.membership.is_connected();
        if !connected {
            // We are somebody new, and those that knew us before have to hear it.
            for known in self.membership.choose(ANNOUNCE_MAX, &mut self.choices, |_| true) {
                self.membership.announce(known);
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
        for peer in self.membership.choose(1, &mut self.choices, |_| true) {
            self.exchanges.want_all(peer.node);
        }
        // Nodes that started together must not stay in step.
        let spread = self.choices.random_range(75..=125_u32);
        self.exchanges.next = now + self.config.sync_interval * spread / 100;
    }

    /// Works towards a complete view.
    fn catch_up(&mut self, now: Now) {
        // Nobody is heard before the assignment.
        let Some(peers) = self.roster.peers() else { return };
        self.exchanges.begin(now);
        let mut peers = peers.peekable();
        let is_alone = peers.peek().is_none();
        let run = |node| self.membership.active(node).map(|identity| identity.generation);
        let lacking = self.exchanges.lacking(peers, run, &self.table, now);
        // Rows of nodes that are down, and who restarts just now, only a whole table tells.
        let heard = is_alone || self.exchanges.has_heard(now);
        self.exchanges.complete |= heard && lacking.is_empty();
        if !self.exchanges.complete && self.exchanges.may_ask_all(now) {
            for peer in self.membership.choose(1, &mut self.choices, |_| true) {
                self.exchanges.want_all(peer.node);
            }
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
        self.gossip_due |= !changed.is_empty();
        // News of life and death does not wait for the tick either, unless there is more of it.
        if self.gossip_due && now >= self.gossip_at {
            self.gossip_due = false;
            self.gossip_at = now + GOSSIP_GAP;
            self.membership.gossip();
        }
        let more = self.membership.decide(now);
        for (to, payload) in decided.sends.into_iter().chain(more.sends) {
            self.send_membership(to, &payload, now);
        }
        let suspects_more = changed.iter().any(|node| self.suspects.contains(node));
        if suspects_more || self.nag_at.is_some_and(|at| now >= at) {
            self.warn_suspects(now);
        }
        self.push(now);
        if self.exchanges.looks(now) {
            self.catch_up(now);
        }
        let is_active = |node| self.membership.active(node).is_some();
        for (peer, wish) in self.exchanges.start(is_active, now) {
            self.stats.exchanges_begun += 1;
            let ask = match wish {
                Wish::All => SyncRequest::Compare(self.summary().root(), self.exchanges.complete),
                Wish::Of(owners) => {
                    let digests = owners.iter().map(|owner| self.table.digest(*owner));
                    SyncRequest::AskOf(digests.collect())
                }
            };
            self.post(peer, &ask);
        }
        if self.exchanges.complete {
            self.membership.is_loaded();
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

    /// Takes over what membership thinks of nodes of which it changed its mind; returns those on
    /// which the opinion changed.
    fn look_around(&mut self, arrived: &[Identity], now: Now) -> BTreeSet<NodeId> {
        let own = self.membership.identity();
        if self.noted_as != own.age() {
            self.noted_as = own.age();
            self.standings.note(own.node, standing(&Member::alive(own)));
        }
        let mut nodes = self.membership.take_changed();
        nodes.remove(&own.node);
        for node in &nodes {
            let member = self.membership.member(*node);
            self.standings.note(*node, member.map(standing).unwrap_or_default());
            let state = member.map(Member::state);
            self.roster.note(*node, matches!(state, Some(State::Alive | State::Suspect)));
            if state == Some(State::Suspect) {
                self.suspects.insert(*node);
            } else {
                self.suspects.remove(node);
            }
        }
        nodes.append(&mut self.stale);
        let over = self.restarting.iter().filter(|(_, (_, until, _))| *until <= now);
        nodes.extend(over.map(|(node, _)| *node));
        if nodes.is_empty() {
            return nodes;
        }
        self.exchanges.look = true;
        self.welcome(arrived);
        nodes.retain(|node| {
            let opinion = self.opinion(*node, now);
            self.projection.liveness(*node, opinion)
        });
        nodes
    }

    /// Members became active: compare tables with them at once.
    fn welcome(&mut self, arrived: &[Identity]) {
        let members = self.membership.active_count();
        for node in arrived.iter().map(|identity| identity.node) {
            let chosen = members <= WELCOMES || self.choices.random_range(0..members) < WELCOMES;
            if chosen && self.exchanges.complete && self.membership.active(node).is_some() {
                self.exchanges.want_all(node);
            }
        }
        if members == 0 {
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
    fn warn_suspects(&mut self, now: Now) {
        let suspects: Vec<(Identity, u16)> = (self.suspects.iter().take(WARNED_MAX))
            .filter_map(|node| self.membership.member(*node))
            .map(|m| (*m.id(), m.incarnation()))
            .collect();
        for (identity, incarnation) in suspects {
            self.send(&[identity.address], Body::Suspected(identity, incarnation));
        }
        self.nag_at = (!self.suspects.is_empty()).then_some(now + self.config.probe_period);
    }

    fn push(&mut self, now: Now) {
        let (fanout, membership, choices) =
            (self.config.fanout, &self.membership, &mut self.choices);
        let packets = self.outbox.take(&self.table, now, |may| {
            let chosen = membership.choose(fanout, choices, |identity| may(identity.node));
            chosen.into_iter().map(|identity| identity.address).collect()
        });
        for packet in packets {
            self.send(&packet.to, Body::Rows(packet.bundles));
        }
        self.push_at = self.outbox.next_deadline(now);
    }

    /// Tells every member that we will be back.
    pub(super) fn announce_restart(&mut self) {
        let grace_ms = u32::try_from(self.config.restart_grace.as_millis()).unwrap_or(u32::MAX);
        let generation = self.membership.identity().generation;
        let proof = self.author.prove(Statement::Restart(generation));
        let notice = RestartNotice { node: self.config.node, generation, grace_ms, proof };
        let all: Vec<SocketAddr> = self.membership.all_active().map(|i| i.address).collect();
        for _copy in 0..RESTART_COPIES {
            self.send(&all, Body::Restarting(notice));
        }
    }

    /// Passes a message on to a fan-out of members.
    pub(super) fn spread(&mut self, body: &Body, not_to: NodeId) {
        let may = |identity: &Identity| identity.node != not_to;
        let chosen = self.membership.choose(self.config.fanout, &mut self.choices, may);
        let to: Vec<SocketAddr> = chosen.iter().map(|identity| identity.address).collect();
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
        let to = self.membership.active(peer).map(|identity| identity.address);
        match (to, codec::encode_sync(request)) {
            (Some(to), Ok(bytes)) => {
                self.out.push(Output::Sync { peer, to, bytes: Bytes::from(bytes) });
            }
            (None, _) | (_, Err(_)) => self.exchanges.ended(peer),
        }
    }
}
