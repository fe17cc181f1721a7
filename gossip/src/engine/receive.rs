//! What arrives: datagrams, and both sides of an exchange.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use cluster::id::NodeId;
use foca::Member;

use crate::Now;
use crate::anti_entropy::{
    self, Delta, Known, Question, RestartNotice, Standing, SyncReply, SyncRequest,
};
use crate::buckets::{Buckets, bucket_of};
use crate::codec::{self, Body, DIGESTS_MAX, WireMember};
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
                let Some(packet) = self.vet(&payload) else { return };
                self.membership.receive(packet);
                // Who is loading compares all that it knows, again and again.
                if !self.exchanges.complete {
                    return;
                }
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
            Ok(SyncRequest::Compare(root, complete)) => {
                let mine = self.summary();
                if root == mine.root() {
                    SyncReply::Same(self.restart_notices(now), self.exchanges.complete)
                } else if complete && !self.exchanges.complete {
                    SyncReply::Loading
                } else {
                    SyncReply::Parts(mine.hashes().to_vec())
                }
            }
            Ok(SyncRequest::Ask(question)) => {
                let mine = self.known_in(&question.buckets);
                let found = anti_entropy::answer(&self.table, &mine, &question);
                SyncReply::Delta(Delta {
                    // With the first part of the rows.
                    members: match question.after {
                        None => self.members_of(&found.later),
                        Some(_) => Vec::new(),
                    },
                    bundles: found.bundles,
                    known: found.known,
                    restarting: self.restart_notices(now),
                    complete: self.exchanges.complete,
                    more: found.more,
                })
            }
            Ok(SyncRequest::AskOf(theirs)) => {
                // What is cut off the next digest tells of.
                let (bundles, _cut) = anti_entropy::deltas(&self.table, theirs.iter().copied());
                let mine = theirs.iter().map(|theirs| (self.table.digest(theirs.owner), theirs));
                let differing = mine.filter(|(mine, theirs)| !mine.agrees(theirs));
                let standing = Standing::default();
                SyncReply::Delta(Delta {
                    bundles,
                    members: Vec::new(),
                    known: differing.map(|(digest, _)| Known { digest, standing }).collect(),
                    restarting: Vec::new(),
                    complete: self.exchanges.complete,
                    more: None,
                })
            }
            Ok(SyncRequest::Give(bundles, members)) if self.intake.len() < WAITING_MAX => {
                self.intake.push_back(Waiting::new(members, bundles, None, now));
                SyncReply::Taken
            }
            // Of a `Give` too many: to its sender it has failed, and the next digest is the retry.
            Ok(SyncRequest::Give(..)) | Err(_) => {
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
            Some(SyncReply::Taken | SyncReply::Loading) => self.exchanges.ended(peer),
            Some(SyncReply::Same(restarting, complete)) => {
                let delta = Delta { restarting, complete, ..Delta::default() };
                self.take_delta(peer, scope, delta, now);
            }
            Some(SyncReply::Parts(theirs)) => {
                let buckets = self.summary().differing(&theirs).into_iter().collect();
                self.ask(peer, buckets, None);
            }
            Some(SyncReply::Delta(delta)) => self.take_delta(peer, scope, delta, now),
        }
    }

    fn take_delta(&mut self, peer: NodeId, scope: Scope, delta: Delta, now: Now) {
        let Delta { bundles, members, known, restarting, complete, more } = delta;
        if !self.expect_all_back(restarting, now) {
            self.stats.exchanges_failed += 1;
            self.exchanges.failed(peer, now);
            return;
        }
        if scope == Scope::All {
            self.exchanges.progress(now);
        }
        let buckets = self.exchanges.asked(peer);
        let news = self.news;
        let end = End { peer, scope, known, complete, more, buckets, news };
        self.intake.push_back(Waiting::new(members, bundles, Some(end), now));
    }

    /// Asks what a peer knows in some parts.
    fn ask(&mut self, peer: NodeId, buckets: BTreeSet<u8>, after: Option<NodeId>) {
        let known = self.known_in(&buckets);
        self.exchanges.asks(peer, buckets.clone());
        self.post(peer, &SyncRequest::Ask(Question { buckets, known, after }));
    }

    /// Of all that is known of members and rows.
    pub(super) fn summary(&self) -> Buckets {
        self.table.buckets().with(self.standings.buckets())
    }

    /// What is known of the nodes in some parts, by node.
    fn known_in(&self, buckets: &BTreeSet<u8>) -> Vec<Known> {
        let owners = self.table.owners().filter(|owner| buckets.contains(&bucket_of(*owner)));
        let nodes: BTreeSet<NodeId> = self.standings.nodes_in(buckets).chain(owners).collect();
        let known =
            |node| Known { digest: self.table.digest(node), standing: self.standings.get(node) };
        nodes.into_iter().map(known).collect()
    }

    fn members_of(&self, nodes: &[NodeId]) -> Vec<WireMember> {
        let member = |node: &NodeId| {
            if *node == self.config.node {
                let own = self.membership.identity();
                Some(WireMember::from(&Member::alive(own)))
            } else {
                self.membership.member(*node).map(WireMember::from)
            }
        };
        nodes.iter().filter_map(member).collect()
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
        let End { peer, scope, known, complete, more, buckets, news } = end;
        if self.exchanges.goes_on(peer, now).is_none() {
            return;
        }
        if more.is_some() {
            self.ask(peer, buckets, more);
            return;
        }
        if scope == Scope::All {
            self.exchanges.learned_all(peer, complete, now);
            if self.news == news {
                self.exchanges.nothing_new(now);
            }
        }
        let later = known.iter().filter(|theirs| {
            scope == Scope::All && self.standings.get(theirs.digest.owner) > theirs.standing
        });
        let later: Vec<NodeId> = later.map(|theirs| theirs.digest.owner).collect();
        let theirs = known.into_iter().map(|known| known.digest);
        let (give, more) = anti_entropy::deltas(&self.table, theirs);
        if give.is_empty() && later.is_empty() {
            self.exchanges.ended(peer);
            return;
        }
        // Of some owners the next digest tells.
        if more.is_some() && scope == Scope::All {
            self.exchanges.want_all(peer);
        }
        let members = self.members_of(&later);
        self.post(peer, &SyncRequest::Give(give, members));
    }
}
