/* This Source Code Form is subject to the terms of the Mozilla Public
 * License, v. 2.0. If a copy of the MPL was not distributed with this
 * file, You can obtain one at https://mozilla.org/MPL/2.0/. */
extern crate alloc;
use alloc::{collections::BTreeMap, vec::Vec};
use core::ops::Range;

use rand::{RngExt, seq::index::sample};

use crate::Identity;

/// Members beyond those wanted among which a choice is made at first: as
/// many may be refused without a look at all.
const REFUSALS: usize = 4;

/// State describes how a Foca instance perceives a member of the cluster.
///
/// This is part of the Suspicion Mechanism described in section 4.2 of the
/// original SWIM paper.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum State {
    /// Member is active.
    Alive,
    /// Member is active, but at least one cluster member
    /// suspects its down. For all purposes, a `Suspect` member
    /// is treated as if it were `Alive` until either it
    /// refutes the suspicion (becoming `Alive`) or fails to
    /// do so (being declared `Down`).
    Suspect,
    /// Confirmed Down.
    /// A member that reaches this state can't join the cluster
    /// with the same identity until the cluster forgets
    /// this knowledge.
    Down,
}

/// Incarnation is a member-controlled cluster-global number attached
/// to a member identity.
/// A member M's incarnation starts with zero and can only be incremented
/// by said member M when refuting suspicion.
pub type Incarnation = u16;

/// A Cluster Member. Also often called "cluster update".
///
/// A [`Member`] represents Foca's snapshot knowledge about an
/// [`crate::Identity`]. An individual cluster update is simply a
/// serialized Member which other Foca instances receive and use to
/// update their own cluster state representation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Member<T> {
    id: T,
    incarnation: Incarnation,
    state: State,
}

impl<T> Member<T> {
    /// Initializes a new member.
    ///
    /// `id` is an identity used to uniquely identify an individual
    /// cluster member (say, a primary key).
    pub const fn new(id: T, incarnation: Incarnation, state: State) -> Self {
        Self {
            id,
            incarnation,
            state,
        }
    }

    /// Shortcut for initializing a member as [`State::Alive`].
    pub fn alive(id: T) -> Self {
        Self::new(id, Incarnation::default(), State::Alive)
    }

    /// Shortcut for initializing a member as [`State::Down`].
    pub fn down(id: T) -> Self {
        Self::new(id, Incarnation::default(), State::Down)
    }

    /// Getter for the member's Incarnation
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Getter for the member's State
    pub const fn state(&self) -> State {
        self.state
    }

    /// Getter for the member's identity
    pub const fn id(&self) -> &T {
        &self.id
    }

    pub(crate) const fn is_active(&self) -> bool {
        match self.state {
            State::Alive | State::Suspect => true,
            State::Down => false,
        }
    }

    pub(crate) const fn change_state(&mut self, incarnation: Incarnation, state: State) -> bool {
        if self.can_change(incarnation, state) {
            self.state = state;
            self.incarnation = incarnation;
            true
        } else {
            false
        }
    }

    const fn can_change(&self, other_incarnation: Incarnation, other: State) -> bool {
        // This implements the order of preference of the Suspicion subprotocol
        // outlined on section 4.2 of the paper.
        match self.state {
            State::Alive => match other {
                State::Alive => other_incarnation > self.incarnation,
                State::Suspect => other_incarnation >= self.incarnation,
                State::Down => true,
            },
            State::Suspect => match other {
                State::Alive | State::Suspect => other_incarnation > self.incarnation,
                State::Down => true,
            },
            State::Down => false,
        }
    }

    pub(crate) fn into_identity(self) -> T {
        self.id
    }
}

/// Active members come first, so that one is chosen without a look at the others. Of these, the
/// ones before `cursor` have been probed in this round.
pub(crate) struct Members<T: Identity> {
    inner: Vec<Member<T>>,
    // Invariant: inner[positions[addr]] is the member with this address
    positions: BTreeMap<T::Addr, usize>,
    cursor: usize,
    num_active: usize,
    changed: Vec<T::Addr>,
}

impl<T: Identity> Members<T> {
    pub(crate) const fn num_active(&self) -> usize {
        self.num_active
    }

    pub(crate) const fn new() -> Self {
        Self {
            inner: Vec::new(),
            positions: BTreeMap::new(),
            cursor: 0,
            num_active: 0,
            changed: Vec::new(),
        }
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Member<T>> {
        self.inner.iter()
    }

    pub(crate) fn get(&self, addr: &T::Addr) -> Option<&Member<T>> {
        self.inner.get(*self.positions.get(addr)?)
    }

    /// Addresses of members that have changed since the last call, in
    /// the order of the changes
    pub(crate) fn take_changed(&mut self) -> Vec<T::Addr> {
        core::mem::take(&mut self.changed)
    }

    fn swap(&mut self, a: usize, b: usize) {
        if a != b {
            self.inner.swap(a, b);
            for position in [a, b] {
                self.positions
                    .insert(self.inner[position].id.addr(), position);
            }
        }
    }

    fn activate(&mut self, position: usize) {
        self.swap(position, self.num_active);
        self.num_active += 1;
    }

    fn deactivate(&mut self, mut position: usize) {
        if position < self.cursor {
            // The round goes on with those that it has not probed
            self.cursor -= 1;
            self.swap(position, self.cursor);
            position = self.cursor;
        }
        self.num_active -= 1;
        self.swap(position, self.num_active);
    }

    // Next member that's considered active
    // Chosen at random: each round is a shuffle, made as it goes on
    pub(crate) fn next(&mut self, mut rng: impl RngExt) -> Option<&Member<T>> {
        if self.cursor >= self.num_active {
            self.cursor = 0;
        }
        if self.num_active == 0 {
            return None;
        }
        let position = self.cursor;
        let chosen = rng.random_range(position..self.num_active);
        self.swap(position, chosen);
        self.cursor += 1;
        self.inner.get(position)
    }

    // Chooses among the members of a range of positions
    fn choose_members<F>(
        &self,
        range: Range<usize>,
        wanted: usize,
        output: &mut Vec<Member<T>>,
        mut rng: impl RngExt,
        picker: F,
    ) where
        F: Fn(&Member<T>) -> bool,
    {
        let members = &self.inner[range];
        // A few more, for those that the picker refuses
        let amount = members.len().min(wanted.saturating_add(REFUSALS));
        let mut chosen = sample(&mut rng, members.len(), amount)
            .into_iter()
            .map(|position| &members[position])
            .filter(|member| picker(member))
            .take(wanted);
        let before = output.len();
        output.extend(chosen.by_ref().cloned());
        if output.len() - before == wanted || amount == members.len() {
            return;
        }
        output.truncate(before);

        // Basic reservoir sampling
        let mut num_chosen = 0;
        let mut num_seen = 0;

        for member in members {
            if !picker(member) {
                continue;
            }

            num_seen += 1;
            if num_chosen < wanted {
                num_chosen += 1;
                output.push(member.clone());
            } else {
                let replace_at = rng.random_range(0..num_seen);
                if replace_at < wanted {
                    output[before + replace_at] = member.clone();
                }
            }
        }
    }

    pub(crate) fn choose_down_members(
        &self,
        wanted: usize,
        output: &mut Vec<Member<T>>,
        rng: impl RngExt,
    ) {
        let down = self.num_active..self.inner.len();
        self.choose_members(down, wanted, output, rng, |_member| true);
    }

    pub(crate) fn choose_active_members<F>(
        &self,
        wanted: usize,
        output: &mut Vec<Member<T>>,
        rng: impl RngExt,
        picker: F,
    ) where
        F: Fn(&T) -> bool,
    {
        self.choose_members(0..self.num_active, wanted, output, rng, |member| {
            picker(member.id())
        });
    }

    pub(crate) fn remove_if_down(&mut self, id: &T) -> Option<Member<T>> {
        let addr = id.addr();
        let position = *self.positions.get(&addr)?;
        let member = &self.inner[position];
        if member.id != *id || member.state != State::Down {
            return None;
        }
        self.swap(position, self.inner.len() - 1);
        self.positions.remove(&addr);
        self.changed.push(addr);
        self.inner.pop()
    }

    pub(crate) fn iter_active(&self) -> impl Iterator<Item = &Member<T>> {
        self.inner[..self.num_active].iter()
    }

    pub(crate) fn is_active(&self, id: &T) -> bool {
        self.get(&id.addr())
            .is_some_and(|member| &member.id == id && member.is_active())
    }

    pub(crate) fn apply_existing_if<F: Fn(&Member<T>) -> bool>(
        &mut self,
        mut update: Member<T>,
        condition: F,
    ) -> Option<ApplySummary<T>> {
        let addr = update.id.addr();
        let position = *self.positions.get(&addr)?;
        let known_member = &mut self.inner[position];
        let id_conflict = known_member.id != update.id;

        // If the update wins the conflict, the full member
        // state is replaced (it's essentially a rejoin)
        // If it doesn't, it gets discarded
        if id_conflict && known_member.id.win_addr_conflict(&update.id) {
            return Some(ApplySummary {
                is_active_now: known_member.is_active(),
                apply_successful: false,
                changed_active_set: false,
                conflict: ConflictResult::Lost,
            });
        }

        if !condition(known_member) {
            return Some(ApplySummary {
                is_active_now: known_member.is_active(),
                apply_successful: false,
                changed_active_set: false,
                conflict: if id_conflict {
                    ConflictResult::FailedCondition
                } else {
                    ConflictResult::NoConflict
                },
            });
        }
        let was_active = known_member.is_active();

        let (apply_successful, conflict) = if id_conflict {
            core::mem::swap(&mut known_member.id, &mut update.id);
            known_member.state = update.state;
            known_member.incarnation = update.incarnation;
            (true, ConflictResult::Replaced(update.id))
        } else {
            (
                known_member.change_state(update.incarnation, update.state),
                ConflictResult::NoConflict,
            )
        };

        let is_active_now = known_member.is_active();
        let changed_active_set = is_active_now != was_active;

        if changed_active_set {
            if is_active_now {
                self.activate(position);
            } else {
                self.deactivate(position);
            }
        }
        if apply_successful {
            self.changed.push(addr);
        }

        Some(ApplySummary {
            is_active_now,
            apply_successful,
            changed_active_set,
            conflict,
        })
    }

    pub(crate) fn apply(&mut self, update: Member<T>) -> ApplySummary<T> {
        if let Some(summary) = self.apply_existing_if(update.clone(), |_member| true) {
            return summary;
        }
        // Unknown member, we'll register it
        let is_active_now = update.is_active();
        let position = self.inner.len();
        self.positions.insert(update.id.addr(), position);
        self.changed.push(update.id.addr());
        self.inner.push(update);
        if is_active_now {
            self.activate(position);
        }

        ApplySummary {
            is_active_now,
            apply_successful: true,
            // Registering a new active member changes the active set
            changed_active_set: is_active_now,
            conflict: ConflictResult::NoConflict,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub(crate) struct ApplySummary<T> {
    pub(crate) is_active_now: bool,
    pub(crate) apply_successful: bool,
    pub(crate) changed_active_set: bool,
    pub(crate) conflict: ConflictResult<T>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ConflictResult<T> {
    NoConflict,
    Replaced(T),
    Lost,
    FailedCondition,
}

