//! What counts of what a member says of another node: only what that node has proven.
//!
//! Of a packet of foca's, runs that no node has proven are taken out before foca sees them: nobody
//! can give a node another address, or a run that its real one loses against for ever. That a
//! member is suspect or down any member may say, as SWIM has it: the accused refutes it.

use cluster::id::NodeId;
use foca::Message;

use crate::codec::Packet;
use crate::engine::Engine;
use crate::identity::Identity;
use crate::proof::{self, GENERATION_MAX, Proof, Statement};

impl Engine {
    /// A packet of foca's without members that are not listed or run no more; `None` if it is not
    /// its sender's or one of its members is forged: who passes that on is not listened to further.
    pub(super) fn vet(&mut self, payload: &[u8]) -> Option<Packet> {
        let Ok(mut packet) = Packet::decode(payload) else {
            self.stats.datagrams_refused += 1;
            return None;
        };
        if !self.is_proven(&packet.header.src) || !self.is_answerable(&packet.header.message) {
            return None;
        }
        let forged = self.stats.forged;
        packet.members.retain(|member| self.stats.forged == forged && self.is_proven(member.id()));
        (self.stats.forged == forged).then_some(packet)
    }

    /// Whether a node runs as this, and where the managers say that it is. Each run is verified
    /// once; one that is over says nothing new.
    pub(super) fn is_proven(&mut self, identity: &Identity) -> bool {
        if *identity == self.membership.identity() {
            return true;
        }
        if let Some(latest) = self.proven.get(&identity.node) {
            if identity == latest {
                return true;
            }
            if identity.age() < latest.age() {
                return false;
            }
        }
        let Identity { node, generation, renewals, proof, .. } = *identity;
        if !self.is_at(identity) {
            if self.note_elsewhere(identity) {
                self.stats.unlisted += 1;
            } else {
                self.stats.forged += 1;
            }
            return false;
        }
        let proven = self.is_stated(node, generation, Statement::Run(generation, renewals), &proof);
        if proven {
            self.proven.insert(node, *identity);
            self.news += 1;
            // It is back where it should be.
            self.elsewhere.retain(|of, old| *of != node || old.age() > identity.age());
        }
        // What we run as ourselves foca knows best.
        proven && node != self.config.node
    }

    /// A node that runs where the managers do not know it yet is not heard, but where it is may be
    /// worth a question: its address may have changed. The run is its own, and one that it has not
    /// had elsewhere; that it is there, those who ask it there have to find out. False if it is
    /// forged.
    fn note_elsewhere(&mut self, identity: &Identity) -> bool {
        let Identity { node, generation, renewals, proof, .. } = *identity;
        let Some(key) = self.roster.get(node).and_then(|peer| peer.key) else { return true };
        let newest = [self.proven.get(&node), self.elsewhere.get(&node)];
        let newest = newest.into_iter().flatten().map(Identity::age).max();
        if node == self.config.node || newest >= Some(identity.age()) {
            return true;
        }
        let run = Statement::Run(generation, renewals);
        let holds = generation <= GENERATION_MAX
            && proof::holds(self.config.verify, &key, self.config.cluster, node, run, &proof);
        if holds {
            self.elsewhere.insert(node, *identity);
        }
        holds
    }

    fn is_at(&self, identity: &Identity) -> bool {
        self.roster.get(identity.node).is_some_and(|peer| peer.address == identity.address)
    }

    /// Whether what a message has us send goes to nodes of the cluster.
    fn is_answerable(&mut self, message: &Message<Identity>) -> bool {
        let named = match message {
            Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => target,
            Message::IndirectPing { origin, .. } | Message::ForwardedAck { origin, .. } => origin,
            Message::Ping(_)
            | Message::Ack(_)
            | Message::Announce
            | Message::Feed
            | Message::Gossip
            | Message::Broadcast
            | Message::TurnUndead => return true,
        };
        let is_at = self.is_at(named);
        self.stats.unlisted += u64::from(!is_at);
        is_at
    }

    /// Whether a node of the cluster said this of itself; counts why not.
    pub(super) fn is_stated(
        &mut self,
        node: NodeId,
        generation: u64,
        statement: Statement<'_>,
        proof: &Proof,
    ) -> bool {
        let Some(key) = self.roster.get(node).and_then(|peer| peer.key) else {
            self.stats.unlisted += 1;
            return false;
        };
        let stated = generation <= GENERATION_MAX
            && proof::holds(self.config.verify, &key, self.config.cluster, node, statement, proof);
        self.stats.forged += u64::from(!stated);
        stated
    }
}
