//! How far an update is: what the updater acts on, and what `why` tells.

use std::collections::BTreeMap;

use crate::object::{Service, Slot, TaskState, UpdateStatus};
use crate::plan::slots::SlotTasks;
use crate::spec::UpdateTerms;
use crate::time::Timestamp;

/// How far an update that is under way is.
pub(in crate::plan) struct Progress {
    /// Slots that still have a task of another spec, in the order of their turns.
    pub(in crate::plan) out_of_date: Vec<Slot>,
    /// Slots whose task is being stopped, made, moved or started.
    pub(in crate::plan) moving: Vec<Slot>,
    /// Slots that are done, and when the update's delay after each is over.
    pub(in crate::plan) delayed: BTreeMap<Slot, Timestamp>,
    /// When the tasks that it made have been watched for long enough.
    watched_until: Timestamp,
    /// Slots that may be in progress at a time.
    pub(in crate::plan) parallelism: u64,
}

impl Progress {
    pub(super) fn of(
        service: &Service,
        status: &UpdateStatus,
        terms: &UpdateTerms,
        slots: &BTreeMap<Slot, SlotTasks>,
        now: Timestamp,
    ) -> Self {
        let mut progress = Self {
            out_of_date: Vec::new(),
            moving: Vec::new(),
            delayed: BTreeMap::new(),
            watched_until: status.started_at,
            parallelism: terms.parallelism,
        };
        for (slot, tasks) in slots {
            match settled_at(service, tasks) {
                Settled::OutOfDate => progress.out_of_date.push(*slot),
                Settled::Not => progress.moving.push(*slot),
                Settled::Since { made_at, at } => {
                    let next = at.plus(terms.delay);
                    if now < next && !terms.delay.is_zero() {
                        progress.delayed.insert(*slot, next);
                    }
                    // A task that was there before the update began is not watched.
                    if made_at >= status.started_at {
                        let until = at.plus(terms.monitor);
                        progress.watched_until = progress.watched_until.max(until);
                    }
                }
                Settled::Empty => {}
            }
        }
        progress
    }

    /// How many more slots may be begun with.
    pub(super) fn room(&self) -> usize {
        let busy = (self.moving.len() + self.delayed.len()) as u64;
        usize::try_from(self.parallelism.saturating_sub(busy)).unwrap_or(usize::MAX)
    }

    /// When the next turn comes by time alone: a delay counts while a slot is left.
    pub(in crate::plan) fn next_turn(&self) -> Option<Timestamp> {
        self.delayed.values().min().copied().filter(|_| !self.out_of_date.is_empty())
    }

    /// Until when only time is missing: every slot has its task, and it is watched.
    pub(in crate::plan) fn monitored_until(&self, now: Timestamp) -> Option<Timestamp> {
        let done = self.out_of_date.is_empty() && self.moving.is_empty();
        Some(self.watched_until).filter(|until| done && now < *until)
    }

    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.out_of_date.is_empty() && self.moving.is_empty() && now >= self.watched_until
    }
}

/// How far a slot is.
pub(super) enum Settled {
    /// Only tasks of other spec versions stand for it.
    OutOfDate,
    /// On its way: its task is being stopped, made, moved or started.
    Not,
    /// Its first task of the present version, which was made then, runs or ended since.
    Since { made_at: Timestamp, at: Timestamp },
    /// Nothing is to stand for it.
    Empty,
}

pub(super) fn settled_at(service: &Service, tasks: &SlotTasks) -> Settled {
    let current = tasks.occupants.iter().find(|task| task.spec_version == service.spec_version);
    match current {
        None if tasks.occupants.is_empty() => {
            if tasks.waits_for_old(service) {
                Settled::Not
            } else {
                Settled::Empty
            }
        }
        None => Settled::OutOfDate,
        Some(task) => match task.first_run() {
            Some(first) => Settled::Since { made_at: first.made_at, at: first.ended_at },
            None if task.status.state == TaskState::Running
                || task.desired == TaskState::Complete =>
            {
                Settled::Since { made_at: task.meta.created_at, at: task.status.at }
            }
            None => Settled::Not,
        },
    }
}
