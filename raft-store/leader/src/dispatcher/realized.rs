//! How long changes take until a node's kernel holds them: from the proposal of the entry that
//! changed its assignment until the report which says so.

use std::collections::VecDeque;
use std::time::Duration;

use cluster::session::Digest;
use cluster::time::Revision;

/// Entries whose proposal is remembered. A node that is further behind is not measured.
pub(super) const PROPOSALS_MAX: usize = 4096;
/// Assignments that a node has not applied yet, each measured by itself. Those beyond count as one,
/// from the first of them.
pub(super) const PENDING_MAX: usize = 16;

/// When entries were proposed.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    /// Of those that were applied, oldest first.
    applied: VecDeque<(Revision, Duration)>,
    /// Of the one that is not known to be applied yet.
    under_way: Option<Duration>,
}

impl Proposals {
    pub(super) fn begin(&mut self, at: Duration) {
        self.under_way = Some(at);
    }

    pub(super) fn applied(&mut self, revision: Revision) {
        let Some(at) = self.under_way.take() else { return };
        if self.applied.len() == PROPOSALS_MAX {
            self.applied.pop_front();
        }
        self.applied.push_back((revision, at));
    }

    /// When the first entry from a revision on was proposed.
    pub(super) fn first_from(&self, revision: Revision) -> Option<Duration> {
        let (oldest, _) = self.applied.front()?;
        if *oldest > revision {
            return None;
        }
        let first = self.applied.partition_point(|(known, _)| *known < revision);
        self.applied.get(first).map(|(_, at)| *at).or(self.under_way)
    }
}

/// What one node's kernel does not hold yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Newest assignment that was made for it, and the newest state that is known to give it.
    current: Option<(Digest, Revision)>,
    /// Each with the first revision that may have made it, oldest first.
    queue: VecDeque<(Digest, Revision)>,
}

impl Pending {
    /// At a state, the assignment is this one.
    pub(super) fn assigned(&mut self, digest: Digest, revision: Revision) {
        match self.current {
            Some((_, known)) if known > revision => return,
            Some((before, known)) if before != digest => {
                self.push(digest, Revision(known.0 + 1));
            }
            Some(_) | None => {}
        }
        self.current = Some((digest, revision));
    }

    fn push(&mut self, digest: Digest, revision: Revision) {
        if self.queue.len() < PENDING_MAX {
            self.queue.push_back((digest, revision));
        } else if let Some((newest, _)) = self.queue.back_mut() {
            *newest = digest;
        }
    }

    /// The kernel holds this assignment: the revisions of the changes that it did not hold before.
    pub(super) fn applied(&mut self, digest: Digest) -> Vec<Revision> {
        let held = self.queue.iter().rposition(|(pending, _)| *pending == digest);
        let realized = self.queue.drain(..held.map_or(0, |last| last + 1));
        realized.map(|(_, revision)| revision).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leader that measures one node.
    #[derive(Default)]
    struct Measured {
        proposals: Proposals,
        pending: Pending,
    }

    impl Measured {
        /// An entry is proposed and applied, and gives the node this assignment.
        fn tell(&mut self, digest: Digest, revision: u64, proposed: Duration) {
            self.proposals.begin(proposed);
            self.proposals.applied(Revision(revision));
            self.pending.assigned(digest, Revision(revision));
        }

        /// The node reports; how long each change took until now.
        fn hear(&mut self, digest: Digest, now: Duration) -> Vec<Duration> {
            let revisions = self.pending.applied(digest).into_iter();
            let times = revisions.filter_map(|revision| self.proposals.first_from(revision));
            times.map(|at| now.saturating_sub(at)).collect()
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Goal: each change is measured once per node, from its proposal, however often the node
    /// reports, whatever changes meanwhile, and however quick its report is.
    #[test]
    fn a_change_is_measured_from_its_proposal_until_a_kernel_holds_it() {
        let mut leader = Measured::default();
        let [none, first, second, third] = [0, 1, 2, 3].map(|number| Digest([number; 32]));
        let no_time: Vec<Duration> = Vec::new();
        leader.pending.assigned(none, Revision(10));
        assert_eq!(leader.hear(none, ms(10)), no_time, "its proposal is not known");
        leader.tell(first, 11, ms(100));
        leader.tell(second, 12, ms(120));
        assert_eq!(leader.hear(none, ms(140)), no_time);
        assert_eq!(leader.hear(first, ms(160)), [ms(60)]);
        assert_eq!(leader.hear(first, ms(170)), no_time, "it is no news");
        leader.tell(third, 13, ms(180));
        assert_eq!(leader.hear(third, ms(200)), [ms(80), ms(20)]);
        leader.tell(third, 14, ms(300));
        assert_eq!(leader.hear(third, ms(320)), no_time, "it changed nothing for the node");
        // The report comes before the leader's loop hears that the entry was applied.
        leader.proposals.begin(ms(400));
        leader.pending.assigned(first, Revision(15));
        assert_eq!(leader.hear(first, ms(405)), [ms(5)]);
    }

    #[test]
    fn what_is_remembered_has_limits() {
        let mut leader = Measured::default();
        let digest = |number: u64| Digest([u8::try_from(number).unwrap(); 32]);
        let changes = PENDING_MAX as u64 + 3;
        for number in 0..=changes {
            leader.tell(digest(number), 10 + number, ms(100));
        }
        assert_eq!(leader.hear(digest(changes), ms(150)), [ms(50); PENDING_MAX]);
        leader.pending.assigned(digest(0), Revision(11 + changes));
        for number in 1..=PROPOSALS_MAX as u64 + 1 {
            leader.proposals.begin(ms(300));
            leader.proposals.applied(Revision(11 + changes + number));
        }
        let forgotten: Vec<Duration> = Vec::new();
        assert_eq!(leader.hear(digest(0), ms(400)), forgotten, "its proposal is forgotten");
    }
}
