//! What arrives: datagrams, and both sides of an exchange.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use cluster::id::NodeId;

use crate::Now;
use crate::anti_entropy::{self, Delta, RestartNotice, SyncReply, SyncRequest};
use crate::codec::{self, Body, DIGESTS_MAX};
use crate::engine::exchange::Scope;
use crate::engine::intake::{End, WAITING_MAX, Waiting};
use crate::engine::{Engine, Output, SyncFailed};
use crate::proof::Statement;

impl Engine {
    pub(super) fn receive(&mut self, sealed: &[u8], now: Now) {
        let Ok((sender, plain)) = self.keyring.open(self.config.cluster, sealed) else {
            self.stats.datagrams_unopened += 1;
            return;
        };
        if self.roster.get(sender).is_none() {
            self.stats.unlisted += 1;
            return;
        }
        let Ok(body) = codec::decode_datagram(&plain) else {
            self.stats.datagrams_refused += 1;
            return;
        };
        self.stats.datagrams_received += 1;
        match body {
            Body::Membership(digests, payload) => {
                if digests.len() > DIGESTS_MAX {
                    self.stats.datagrams_refused += 1;
                    return;
                }
                let Some(payload) = self.vet(payload) else { return };
                self.membership.receive(&payload);
                for digest in digests {
                    if digest.owner != self.config.node && self.roster.get(digest.owner).is_some() {
                        self.exchanges.heard(digest, sender, &self.table, now);
                    }
                }
            }
            Body::Rows(bundles) => self.take_push(bundles, sender, now),
            Body::Suspected(identity, incarnation) => {
                if identity == self.membership.identity() {
                    self.membership.suspected(incarnation);
                    // Any message carries the new incarnation; this one is sure to reach the
                    // accuser, which foca's own gossip is not.
                    if let Some(accuser) = self.membership.active(sender) {
                        self.membership.announce(accuser);
                    }
                }
            }
            Body::Restarting(notice) => {
                if self.expect_back(notice, now) {
                    self.spread(&Body::Restarting(notice), sender);
                }
            }
        }
    }

    /// Notes a clean restart; false if it is known, over, our own, or not proven.
    fn expect_back(&mut self, notice: RestartNotice, now: Now) -> bool {
        let RestartNotice { node, generation, grace_ms, proof } = notice;
        let waited = self.restarting.get(&node).map(|(ended, ..)| ended);
        let ended = waited.into_iter().chain(self.ended.get(&node)).max();
        let known = ended.is_some_and(|ended| *ended >= generation);
        let back = (self.membership.member(node)).is_some_and(|m| m.id().generation > generation);
        if node == self.config.node || known || back {
            return false;
        }
        if !self.is_stated(node, generation, Statement::Restart(generation), &proof) {
            return false;
        }
        let grace = Duration::from_millis(grace_ms.into()).min(self.config.restart_grace);
        self.restarting.insert(node, (generation, now + grace, proof));
        self.stale.insert(node);
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
            Ok(SyncRequest::AskOf(theirs)) => {
                // What is cut off the next digest tells of.
                let (bundles, _cut) = anti_entropy::deltas(&self.table, theirs.iter().copied());
                let mine = theirs.iter().map(|theirs| (self.table.digest(theirs.owner), theirs));
                let differing = mine.filter(|(mine, theirs)| !mine.agrees(theirs));
                SyncReply::Delta(Delta {
                    bundles,
                    digests: differing.map(|(mine, _)| mine).collect(),
                    restarting: Vec::new(),
                    complete: self.exchanges.complete,
                    more: None,
                })
            }
            Ok(SyncRequest::Give(bundles)) if self.intake.len() < WAITING_MAX => {
                self.intake.push_back(Waiting::new(bundles, None, now));
                SyncReply::Taken
            }
            // Of a `Give` too many: to its sender it has failed, and the next digest is the retry.
            Ok(SyncRequest::Give(_)) | Err(_) => {
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
            .map(|(node, (generation, until, proof))| RestartNotice {
                node: *node,
                generation: *generation,
                grace_ms: left(*until),
                proof: *proof,
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
        let Delta { bundles, digests, restarting, complete, more } = delta;
        if !self.expect_all_back(restarting, now) {
            self.stats.exchanges_failed += 1;
            self.exchanges.failed(peer, now);
            return;
        }
        if scope == Scope::All {
            self.exchanges.progress(now);
        }
        let end = End { peer, scope, digests, complete, more };
        self.intake.push_back(Waiting::new(bundles, Some(end), now));
    }

    /// Notes the restarts that a peer knows; false at the first one that is forged, or if one node
    /// is said to restart twice.
    fn expect_all_back(&mut self, notices: Vec<RestartNotice>, now: Now) -> bool {
        let forged = self.stats.forged;
        let mut nodes = BTreeSet::new();
        notices.into_iter().all(|notice| {
            let is_first = nodes.insert(notice.node);
            if is_first {
                self.expect_back(notice, now);
            }
            is_first && self.stats.forged == forged
        })
    }

    /// Goes on with an exchange of which all rows are taken in.
    pub(super) fn taken(&mut self, end: End, now: Now) {
        let End { peer, scope, digests, complete, more } = end;
        if self.exchanges.goes_on(peer, now).is_none() {
            return;
        }
        if more.is_some() {
            let ask = SyncRequest::Ask(anti_entropy::digests(&self.table), more);
            self.post(peer, &ask);
            return;
        }
        if scope == Scope::All {
            self.exchanges.learned_all(peer, complete, now);
        }
        let (give, more) = anti_entropy::deltas(&self.table, digests);
        if give.is_empty() {
            self.exchanges.ended(peer);
            return;
        }
        // Of some owners the next digest tells.
        if more.is_some() && scope == Scope::All {
            self.exchanges.want_all(peer);
        }
        self.post(peer, &SyncRequest::Give(give));
    }
}
