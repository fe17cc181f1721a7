//! What arrives: datagrams, and both sides of an exchange.

use std::time::Duration;

use bytes::Bytes;
use cluster::id::NodeId;

use crate::Now;
use crate::anti_entropy::{self, Bundle, Delta, RestartNotice, SyncReply, SyncRequest};
use crate::codec::{self, Body};
use crate::engine::exchange::Scope;
use crate::engine::own::Stale;
use crate::engine::{Engine, Output, SyncFailed};
use crate::row::RowKey;
use crate::table::Merged;

impl Engine {
    pub(super) fn receive(&mut self, sealed: &[u8], now: Now) {
        let Ok(plain) = self.keyring.open(self.config.cluster, sealed) else {
            self.stats.datagrams_unopened += 1;
            return;
        };
        let datagram = match codec::decode_datagram(&plain) {
            Ok(datagram) if !self.roster.is_gone(datagram.sender) => datagram,
            Ok(_) | Err(_) => {
                self.stats.datagrams_refused += 1;
                return;
            }
        };
        self.stats.datagrams_received += 1;
        match datagram.body {
            Body::Membership(head, payload) => {
                self.membership.receive(&payload);
                if head.owner != self.config.node {
                    self.exchanges.head(head, &self.table, now);
                }
            }
            Body::Rows(bundles) => {
                for bundle in bundles {
                    self.learn(bundle, Some(datagram.sender), now);
                }
            }
            Body::Suspected(identity, incarnation) => {
                if identity == self.membership.identity() {
                    self.membership.suspected(incarnation);
                    // Any message carries the new incarnation; this one is sure to reach the
                    // accuser, which foca's own gossip is not.
                    if let Some(accuser) = self.active.get(&datagram.sender) {
                        self.membership.announce(*accuser);
                    }
                }
            }
            Body::Restarting(notice) => {
                if self.expect_back(notice, now) {
                    self.spread(&Body::Restarting(notice), datagram.sender);
                }
            }
        }
    }

    /// Merges rows that a peer knows; those that were pushed are pushed on, once, if they are news.
    fn learn(&mut self, bundle: Bundle, pushed_by: Option<NodeId>, now: Now) {
        let owner = bundle.owner;
        if owner == self.config.node {
            self.defend(&bundle, now);
            return;
        }
        if self.roster.is_gone(owner) {
            return;
        }
        for row in bundle.rows {
            let key = row.record.key();
            match self.table.merge(owner, row, now) {
                Merged::News => {
                    self.stats.rows_learned += 1;
                    self.projection.row(&self.table, owner, key);
                    if pushed_by.is_some() {
                        self.outbox.push(owner, key, pushed_by);
                    }
                }
                Merged::Full => self.stats.rows_refused += 1,
                Merged::Known | Merged::Superseded => {}
            }
        }
        // Only an exchange brings the whole set that a floor speaks of.
        if pushed_by.is_none() {
            for key in self.table.raise(owner, bundle.floor) {
                self.projection.row(&self.table, owner, key);
            }
        }
    }

    /// Nobody writes our rows but us: rows under our name that we do not know are written anew.
    fn defend(&mut self, bundle: &Bundle, now: Now) {
        let mut ahead: Option<u64> = None;
        let mut written: Vec<RowKey> = Vec::new();
        for row in &bundle.rows {
            match self.own.judge(&self.table, row) {
                Stale::No => {}
                Stale::Ghost => {
                    written.extend(self.own.bury(&mut self.table, row.record.key(), now));
                }
                Stale::Ahead => ahead = ahead.max(Some(row.version.generation)),
            }
        }
        if let Some(seen) = ahead {
            written.extend(self.own.outrun(&mut self.table, seen, now));
            self.membership.regenerate(self.own.generation());
        }
        self.publish(&written);
    }

    /// Notes a clean restart; false if it is known, over, or our own.
    fn expect_back(&mut self, notice: RestartNotice, now: Now) -> bool {
        let RestartNotice { node, generation, grace_ms } = notice;
        let known = self.restarting.get(&node).is_some_and(|(ended, _)| *ended >= generation);
        let back = (self.membership.members())
            .any(|m| m.id().node == node && m.id().generation > generation);
        if node == self.config.node || known || back || self.roster.is_gone(node) {
            return false;
        }
        let grace = Duration::from_millis(grace_ms.into()).min(self.config.restart_grace);
        self.restarting.insert(node, (generation, now + grace));
        self.stale = true;
        true
    }

    /// Serves a peer's half of an exchange.
    pub(super) fn answer(&mut self, token: u64, bytes: &[u8], now: Now) {
        self.stats.exchanges_answered += 1;
        let reply = match codec::decode_sync::<SyncRequest>(bytes) {
            Ok(SyncRequest::Ask(digests, after)) => {
                let (bundles, digests, more) = anti_entropy::answer(&self.table, &digests, after);
                SyncReply::Delta(Delta {
                    bundles,
                    digests,
                    restarting: self.restart_notices(now),
                    complete: self.exchanges.complete,
                    more,
                })
            }
            Ok(SyncRequest::AskOwn(theirs)) => {
                let mine = self.table.digest(self.config.node);
                SyncReply::Delta(Delta {
                    bundles: self.table.delta(&theirs).into_iter().collect(),
                    digests: if mine.agrees(&theirs) { Vec::new() } else { vec![mine] },
                    restarting: Vec::new(),
                    complete: self.exchanges.complete,
                    more: None,
                })
            }
            Ok(SyncRequest::Give(bundles)) => {
                for bundle in bundles {
                    self.learn(bundle, None, now);
                }
                SyncReply::Taken
            }
            Err(_) => {
                self.out.push(Output::SyncReply { token, bytes: Bytes::new() });
                return;
            }
        };
        let bytes = codec::encode_sync(&reply).map(Bytes::from).unwrap_or_default();
        self.out.push(Output::SyncReply { token, bytes });
    }

    fn restart_notices(&self, now: Now) -> Vec<RestartNotice> {
        let left = |until: Now| u32::try_from(until.saturating_sub(now).as_millis()).unwrap_or(0);
        (self.restarting.iter())
            .map(|(node, (generation, until))| RestartNotice {
                node: *node,
                generation: *generation,
                grace_ms: left(*until),
            })
            .collect()
    }

    /// Goes on with an exchange that we began.
    pub(super) fn answered(&mut self, peer: NodeId, result: Result<Bytes, SyncFailed>, now: Now) {
        let Some(scope) = self.exchanges.goes_on(peer, now) else { return };
        let reply = result.ok().and_then(|bytes| codec::decode_sync::<SyncReply>(&bytes).ok());
        match reply {
            None => {
                self.stats.exchanges_failed += 1;
                self.exchanges.failed(peer, now);
            }
            Some(SyncReply::Taken) => self.exchanges.ended(peer),
            Some(SyncReply::Delta(delta)) => self.take_delta(peer, scope, delta, now),
        }
    }

    fn take_delta(&mut self, peer: NodeId, scope: Scope, delta: Delta, now: Now) {
        for bundle in delta.bundles {
            self.learn(bundle, None, now);
        }
        for notice in delta.restarting {
            self.expect_back(notice, now);
        }
        if delta.more.is_some() {
            let ask = SyncRequest::Ask(anti_entropy::digests(&self.table), delta.more);
            self.post(peer, &ask);
            return;
        }
        if scope == Scope::All {
            self.exchanges.learned_all(peer, delta.complete, now);
        }
        let (give, more) = anti_entropy::deltas(&self.table, delta.digests);
        if give.is_empty() {
            self.exchanges.ended(peer);
            return;
        }
        if more.is_some() {
            self.exchanges.want(peer, scope);
        }
        self.post(peer, &SyncRequest::Give(give));
    }
}
