//! Rows on their way into the table: each is verified, unless the table holds it already.
//!
//! A verification takes some 50 us, so that the rows of a large cluster are seconds of work for who
//! has none of them yet. Those of exchanges are therefore taken in step by step, and what arrives
//! meanwhile is served in between. A peer that hands on one row that its owner did not write is not
//! listened to further: the rest of its message is dropped.

use std::collections::BTreeSet;
use std::time::Duration;
use std::vec::IntoIter;

use cluster::id::NodeId;
use foca::Member;

use crate::Now;
use crate::anti_entropy::{Bundle, Known};
use crate::codec::WireMember;
use crate::engine::Engine;
use crate::engine::exchange::Scope;
use crate::engine::own::Stale;
use crate::identity::Identity;
use crate::proof::{GENERATION_MAX, Statement};
use crate::row::{Row, RowKey};
use crate::table::Merged;

/// Rows that are verified in one step: some 10 ms.
pub const VERIFIED_MAX: usize = 200;
/// Messages whose rows wait; further ones that peers push are refused.
pub const WAITING_MAX: usize = 16;

/// While rows wait, news of the view goes out this often.
pub const VIEW_PACE: Duration = Duration::from_millis(100);

/// Members and rows of one message of an exchange.
pub(super) struct Waiting {
    members: IntoIter<WireMember>,
    bundles: IntoIter<Bundle>,
    current: Option<(NodeId, u64, IntoIter<Row>)>, // owner, floor, rows
    end: Option<End>,
    arrived: Now,
}

/// What is to be done once an answer's rows are taken in.
pub(super) struct End {
    pub(super) peer: NodeId,
    pub(super) scope: Scope,
    pub(super) known: Vec<Known>,
    pub(super) complete: bool,
    pub(super) more: Option<NodeId>,
    /// The parts that were asked about.
    pub(super) buckets: BTreeSet<u8>,
    /// What had been learned before.
    pub(super) news: u64,
}

/// A step of taking a message in.
enum Item {
    Member(Member<Identity>),
    Row(NodeId, Row),
    /// After all rows of an owner: the generation of which they are the whole set.
    Floor(NodeId, u64),
}

/// How far a message was taken in.
enum Progress {
    All,
    /// This step may verify no more.
    Part,
    /// A row in it is forged.
    Forged,
}

/// What a row was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Learned {
    Known,
    Verified,
    Forged,
}

impl Waiting {
    pub(super) fn new(
        members: Vec<WireMember>,
        bundles: Vec<Bundle>,
        end: Option<End>,
        arrived: Now,
    ) -> Self {
        let (members, bundles) = (members.into_iter(), bundles.into_iter());
        Self { members, bundles, current: None, end, arrived }
    }

    pub(super) fn arrived(&self) -> Now {
        self.arrived
    }

    fn next(&mut self) -> Option<Item> {
        if let Some(member) = self.members.next() {
            return Some(Item::Member(member.into()));
        }
        if self.current.is_none() {
            let Bundle { owner, floor, rows } = self.bundles.next()?;
            self.current = Some((owner, floor, rows.into_iter()));
        }
        let (owner, floor, rows) = self.current.as_mut()?;
        let (owner, floor) = (*owner, *floor);
        if let Some(row) = rows.next() {
            return Some(Item::Row(owner, row));
        }
        self.current = None;
        Some(Item::Floor(owner, floor))
    }
}

impl Engine {
    /// Takes in rows that were pushed; news is pushed on, once.
    pub(super) fn take_push(&mut self, bundles: Vec<Bundle>, from: NodeId, now: Now) {
        for Bundle { owner, floor: _, rows } in bundles {
            for row in rows {
                if self.learn(owner, row, Some(from), now) == Learned::Forged {
                    return;
                }
            }
        }
    }

    /// Takes in rows of exchanges that wait, as many as one step may.
    pub(super) fn take_in(&mut self, now: Now) {
        let mut room = VERIFIED_MAX;
        for end in self.intake.iter().filter_map(|waiting| waiting.end.as_ref()) {
            // We are at it: the peer has not stalled.
            self.exchanges.goes_on(end.peer, now);
            if end.scope == Scope::All {
                self.exchanges.progress(now);
            }
        }
        while let Some(mut waiting) = self.intake.pop_front() {
            match (self.take_some(&mut waiting, &mut room, now), waiting.end.take()) {
                (Progress::Part, end) => {
                    self.intake.push_front(Waiting { end, ..waiting });
                    break;
                }
                (Progress::All, Some(end)) => self.taken(end, now),
                (Progress::Forged, Some(end)) => {
                    self.stats.exchanges_failed += 1;
                    self.exchanges.failed(end.peer, now);
                }
                (Progress::All | Progress::Forged, None) => {}
            }
        }
        self.intake_at = (!self.intake.is_empty()).then_some(now);
    }

    fn take_some(&mut self, waiting: &mut Waiting, room: &mut usize, now: Now) -> Progress {
        while *room > 0 {
            match waiting.next() {
                None => return Progress::All,
                Some(Item::Floor(owner, floor)) => self.raise(owner, floor),
                Some(Item::Member(member)) => match self.learn_member(member) {
                    Learned::Known => {}
                    Learned::Verified => *room -= 1,
                    Learned::Forged => return Progress::Forged,
                },
                Some(Item::Row(owner, row)) => match self.learn(owner, row, None, now) {
                    Learned::Known => {}
                    Learned::Verified => *room -= 1,
                    Learned::Forged => return Progress::Forged,
                },
            }
        }
        Progress::Part
    }

    /// Takes what a peer knows of a member, if that runs as it says.
    fn learn_member(&mut self, member: Member<Identity>) -> Learned {
        let forged = self.stats.forged;
        let known = self.proven.get(&member.id().node) == Some(member.id());
        if self.is_proven(member.id()) {
            self.membership.learn(member);
        }
        if self.stats.forged > forged {
            Learned::Forged
        } else if known {
            Learned::Known
        } else {
            Learned::Verified
        }
    }

    /// Merges a row that a peer knows, if it is news and its owner's.
    fn learn(&mut self, owner: NodeId, row: Row, pushed_by: Option<NodeId>, now: Now) -> Learned {
        if self.roster.get(owner).is_none_or(|peer| peer.key.is_none()) {
            self.stats.unlisted += 1;
            return Learned::Known;
        }
        let is_ours = owner == self.config.node;
        let stale = if is_ours { self.own.judge(&self.table, &row) } else { Stale::No };
        let foreseen = self.table.foresee(owner, &row);
        self.stats.rows_refused += u64::from(!is_ours && foreseen == Merged::Full);
        let is_news = if is_ours { stale != Stale::No } else { foreseen == Merged::News };
        if !is_news {
            return Learned::Known;
        }
        let Row { version, record, proof } = &row;
        let statement = Statement::Row(*version, record);
        if !self.is_stated(owner, version.generation, statement, proof) {
            return Learned::Forged;
        }
        let key = record.key();
        if is_ours {
            self.defend(key, row.version.generation, stale, now);
            return Learned::Verified;
        }
        self.table.merge(owner, row, now);
        self.stats.rows_learned += 1;
        self.news += 1;
        self.projection.row(&self.table, owner, key);
        // What a part of a table is like says nothing of what others lack.
        if self.exchanges.complete {
            self.rumours.note(owner, now);
        }
        // Who is loading hears what others know, and would tell them what is none to them.
        if pushed_by.is_some() && self.exchanges.complete {
            self.outbox.push(owner, key, pushed_by);
        }
        Learned::Verified
    }

    /// Takes over that the whole set of a generation is known, which only an exchange says. It is
    /// the peer's word alone, so no generation counts that the owner has not proven by a row.
    fn raise(&mut self, owner: NodeId, floor: u64) {
        if owner == self.config.node || floor > self.table.digest(owner).last.generation {
            return;
        }
        if self.table.digest(owner).floor < floor {
            self.news += 1;
            self.exchanges.look = true;
        }
        for key in self.table.raise(owner, floor) {
            self.projection.row(&self.table, owner, key);
        }
    }

    /// Only this node writes its own rows: one that a peer holds and that is unknown here, as after
    /// the loss of the disk, is written again with a newer version.
    fn defend(&mut self, key: RowKey, generation: u64, stale: Stale, now: Now) {
        let written: Vec<RowKey> = match stale {
            Stale::No => Vec::new(),
            Stale::Ahead if generation >= GENERATION_MAX => {
                self.stats.impersonated += 1;
                Vec::new()
            }
            Stale::Ghost => self.own.bury(&mut self.table, key, now).into_iter().collect(),
            Stale::Ahead => {
                let keys = self.own.outrun(&mut self.table, generation, now);
                self.membership.regenerate(self.own.generation());
                keys
            }
        };
        self.publish(&written);
    }
}
