//! foca, its timers, and what foca lacks: local health.
//!
//! The idea of Lifeguard (arXiv 1707.00788): a node that is starved of CPU finds its probes
//! unanswered because it is late itself. Here lateness is measured, not inferred: a timer that is
//! served long after its deadline stops foca's clock for that time, so that the answers that wait
//! in the socket are read first, and stretches suspicions by a factor that falls again with each
//! probe served in time.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use bytes::Bytes;
use cluster::id::NodeId;
use foca::{
    AccumulatingRuntime, Foca, Incarnation, Member, NoCustomBroadcast, OwnedNotification,
    PeriodicParams, State, Timer,
};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::Now;
use crate::codec::{FocaCodec, PAYLOAD_BYTES_MAX, Packet};
use crate::engine::config::Config;
use crate::identity::Identity;
use crate::proof::Author;

/// Members asked to probe where a direct probe fails (SWIM's k).
const INDIRECT_PROBES: NonZeroUsize = NonZeroUsize::new(3).unwrap();
/// Times that foca repeats an update: 10 to 20 reached every member in simulation at 5 % loss.
const TRANSMISSIONS: NonZeroU8 = NonZeroU8::new(15).unwrap();
/// Times that foca repeats that a member is there: who misses it hears the member itself, announces
/// itself to it, or finds it when it compares what it knows with somebody.
const ARRIVAL_TRANSMISSIONS: NonZeroU8 = NonZeroU8::new(6).unwrap();
/// The same while this node loads what others know: to them it is no news.
const LOADING_TRANSMISSIONS: NonZeroU8 = NonZeroU8::MIN;
/// Members to which foca gossips pending updates in each probe period.
const GOSSIP_MEMBERS: NonZeroUsize = NonZeroUsize::new(3).unwrap();
/// Further rounds of gossip by which a node says that it leaves.
const FAREWELLS: usize = 2;
/// foca asks a member for others this often, in addition to the join loop.
const FEED_PERIOD: Duration = Duration::from_secs(30);
/// A timer served later than this shows that this node is starved.
pub(super) const LATE: Duration = Duration::from_millis(50);
/// After a pause, datagrams that wait in the socket are read this long before timers run.
const CATCH_UP: Duration = Duration::from_millis(50);
/// The greatest stretch of suspicions beyond the normal one (memberlist's awareness limit is 8).
pub(super) const HEALTH_MAX: u32 = 7;

/// What foca decided in a step.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// Datagrams to members.
    pub(super) sends: Vec<(Identity, Bytes)>,
    /// Members that became active, or are active under a newer identity.
    pub(super) arrived: Vec<Identity>,
    /// foca took a new identity, because the cluster had declared us down.
    pub(super) rejoined: bool,
}

pub(super) struct Membership {
    foca: Foca<Identity, FocaCodec, StdRng, NoCustomBroadcast>,
    settings: foca::Config,
    suspicion: Duration,
    probe_period: Duration,
    runtime: AccumulatingRuntime<Identity>,
    timers: BTreeMap<(Now, u64), Timer<Identity>>,
    submitted: u64,
    author: Author,
    defunct: bool,   // foca ended our identity, for the cluster had declared us down
    left: bool,      // so had we
    caught_up: bool, // the pause before this moment has been made up for
    health: u32,     // 0 is good
    connected: bool, // some member knows our present identity
    /// Errors that foca returned, for the statistics.
    pub(super) errors: u64,
}

impl Membership {
    pub(super) fn new(config: &Config, author: Author, stream: u64) -> Self {
        let identity = Identity::of_run(&author, config.generation, 0, config.address);
        let settings = settings(config);
        let rng = StdRng::from_seed(config.stream(stream));
        Self {
            foca: Foca::new(identity, settings.clone(), rng, FocaCodec),
            settings,
            suspicion: config.suspicion,
            probe_period: config.probe_period,
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            submitted: 0,
            author,
            defunct: false,
            left: false,
            caught_up: false,
            health: 0,
            connected: false,
            errors: 0,
        }
    }

    pub(super) fn identity(&self) -> Identity {
        *self.foca.identity()
    }

    /// Whether foca probes: not before a member has answered to our present identity.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(super) fn health(&self) -> u32 {
        self.health
    }

    /// Every known member, down ones and our own former selves included.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member<Identity>> {
        self.foca.iter_membership_state()
    }

    pub(super) fn member(&self, node: NodeId) -> Option<&Member<Identity>> {
        self.foca.member(&node)
    }

    /// The run of a member that is not down.
    pub(super) fn active(&self, node: NodeId) -> Option<Identity> {
        self.member(node).filter(|member| member.state() != State::Down).map(|member| *member.id())
    }

    pub(super) fn all_active(&self) -> impl Iterator<Item = &Identity> {
        self.foca.iter_members().map(Member::id)
    }

    pub(super) fn active_count(&self) -> usize {
        self.foca.num_members()
    }

    /// Some active members by chance, of those that `may` be chosen.
    pub(super) fn choose(
        &self,
        count: usize,
        choices: &mut StdRng,
        may: impl Fn(&Identity) -> bool,
    ) -> Vec<Identity> {
        let chosen = self.foca.choose_members(count, choices, may);
        chosen.into_iter().map(|member| *member.id()).collect()
    }

    /// Nodes of which what foca thinks has changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<NodeId> {
        self.foca.take_changed().into_iter().collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Now> {
        self.timers.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn receive(&mut self, Packet { header, members }: Packet) {
        let result = self.foca.handle_decoded(header, members, &mut self.runtime);
        self.count(result);
    }

    pub(super) fn announce(&mut self, to: Identity) {
        let result = self.foca.announce(to, &mut self.runtime);
        self.count(result);
    }

    /// Takes what a peer knows of a member, which needs no telling.
    pub(super) fn learn(&mut self, member: Member<Identity>) {
        let result = self.foca.apply_many(std::iter::once(member), false, &mut self.runtime);
        self.count(result);
    }

    /// What others know is loaded from now on: news is passed on.
    pub(super) fn is_loaded(&mut self) {
        if self.settings.max_transmissions_of_arrivals == ARRIVAL_TRANSMISSIONS {
            return;
        }
        self.settings.max_transmissions_of_arrivals = ARRIVAL_TRANSMISSIONS;
        let result = self.foca.set_config(self.settings.clone());
        self.count(result);
    }

    /// Sends pending updates now instead of at the next tick.
    pub(super) fn gossip(&mut self) {
        let result = self.foca.gossip(&mut self.runtime);
        self.count(result);
    }

    /// Takes what another member thinks of us; foca refutes it.
    pub(super) fn suspected(&mut self, incarnation: Incarnation) {
        let update = Member::new(self.identity(), incarnation, State::Suspect);
        let result = self.foca.apply_many(std::iter::once(update), false, &mut self.runtime);
        self.count(result);
    }

    /// Declares ourselves down, to more members than foca would: there is no second chance.
    pub(super) fn leave(&mut self) {
        self.left = true;
        let result = self.foca.leave_cluster(&mut self.runtime);
        self.count(result);
        for _again in 0..FAREWELLS {
            self.gossip();
        }
    }

    /// Takes a greater generation, after finding that an earlier run of this node had one.
    pub(super) fn regenerate(&mut self, generation: u64) {
        self.run_as(generation, 0);
    }

    fn run_as(&mut self, generation: u64, renewals: u32) {
        self.connected = false;
        let address = self.identity().address;
        let identity = Identity::of_run(&self.author, generation, renewals, address);
        let result = self.foca.change_identity(identity, &mut self.runtime);
        self.count(result);
    }

    /// Drops a node that is no longer in the cluster.
    pub(super) fn forget(&mut self, node: NodeId) {
        let Some(member) = self.member(node).cloned() else { return };
        let down = Member::new(*member.id(), member.incarnation(), State::Down);
        let result = self.foca.apply_many(std::iter::once(down), false, &mut self.runtime);
        self.count(result);
        let result = self.foca.handle_timer(Timer::RemoveDown(*member.id()), &mut self.runtime);
        self.count(result);
        self.timers.retain(|_, timer| match timer {
            Timer::ChangeSuspectToDown { member_id, .. } => member_id.node != node,
            Timer::RemoveDown(id) => id.node != node,
            Timer::ProbeRandomMember(_)
            | Timer::SendIndirectProbe { .. }
            | Timer::PeriodicAnnounce(_)
            | Timer::PeriodicAnnounceDown(_)
            | Timer::PeriodicGossip(_) => true,
        });
    }

    /// Serves the timers that are due, or, after a pause, makes up for it first.
    pub(super) fn run_timers(&mut self, now: Now) {
        let Some(first) = self.next_deadline().filter(|first| *first <= now) else { return };
        let late = now - first;
        if late > LATE {
            // A shell that is late each time would otherwise put its timers off for ever.
            let pause = if self.caught_up { Duration::ZERO } else { CATCH_UP };
            self.postpone(late + pause, now, late);
            self.caught_up = !self.caught_up;
            if pause > Duration::ZERO {
                return;
            }
        } else {
            self.caught_up = false;
        }
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            let timer = entry.remove();
            if self.is_refuted(&timer) {
                continue;
            }
            if late <= LATE && matches!(timer, Timer::ProbeRandomMember(_)) {
                self.set_health(self.health.saturating_sub(1));
            }
            let result = self.foca.handle_timer(timer, &mut self.runtime);
            self.count(result);
            // What a timer schedules may be due before the next one.
            self.schedule(now);
        }
    }

    /// Whether the term of a suspicion ends that was refuted meanwhile. foca would not declare the
    /// member down, but would tell it that it had (foca 2.0.0, `Foca::handle_timer`).
    fn is_refuted(&self, timer: &Timer<Identity>) -> bool {
        match timer {
            Timer::ChangeSuspectToDown { member_id, incarnation, .. } => {
                let suspect = Member::new(*member_id, *incarnation, State::Suspect);
                self.member(member_id.node) != Some(&suspect)
            }
            Timer::ProbeRandomMember(_)
            | Timer::SendIndirectProbe { .. }
            | Timer::PeriodicAnnounce(_)
            | Timer::PeriodicAnnounceDown(_)
            | Timer::PeriodicGossip(_)
            | Timer::RemoveDown(_) => false,
        }
    }

    /// Collects what foca wants done since the last call.
    pub(super) fn decide(&mut self, now: Now) -> Decided {
        let mut decided = Decided::default();
        self.collect(&mut decided, now);
        if std::mem::take(&mut self.defunct) {
            let (generation, renewals) = self.identity().age();
            match renewals.checked_add(1) {
                Some(renewals) => self.run_as(generation, renewals),
                None => self.run_as(generation.saturating_add(1), 0),
            }
            decided.rejoined = true;
            self.collect(&mut decided, now);
        }
        decided.arrived.retain(|identity| self.active(identity.node) == Some(*identity));
        decided.arrived.dedup();
        decided
    }

    fn collect(&mut self, decided: &mut Decided, now: Now) {
        self.schedule(now);
        while let Some(send) = self.runtime.to_send() {
            decided.sends.push(send);
        }
        while let Some(notification) = self.runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(identity) => decided.arrived.push(identity),
                OwnedNotification::Rename(_, identity) => decided.arrived.push(identity),
                OwnedNotification::Active => self.connected = true,
                OwnedNotification::Idle => self.connected = false,
                OwnedNotification::Defunct => {
                    self.defunct = !self.left;
                    self.connected = false;
                }
                // Who is down is read from foca's members, with the suspects. foca renews nothing
                // by itself, for our identities cannot.
                OwnedNotification::MemberDown(_) | OwnedNotification::Rejoin(_) => {}
            }
        }
    }

    fn schedule(&mut self, now: Now) {
        while let Some((after, timer)) = self.runtime.to_schedule() {
            // foca starts a new term each time that it probes a suspect. The first one counts, or
            // the short term of a node that is well again would cut the long one that it gave.
            let again = matches!(timer, Timer::ChangeSuspectToDown { .. })
                && self.timers.values().any(|pending| *pending == timer);
            if again {
                continue;
            }
            self.submitted += 1;
            self.timers.insert((now + after, self.submitted), timer);
        }
    }

    /// Moves all timers, keeping their order; suspicions get a fresh, stretched term, because a
    /// refutation may be among what was not read.
    fn postpone(&mut self, by: Duration, now: Now, late: Duration) {
        let periods = late.as_millis() / self.probe_period.as_millis().max(1);
        let worse = u32::try_from(periods).unwrap_or(HEALTH_MAX).saturating_add(1);
        self.set_health(self.health.saturating_add(worse).min(HEALTH_MAX));
        let term = now + self.settings.suspect_to_down_after;
        let timers = std::mem::take(&mut self.timers);
        self.timers = (timers.into_iter())
            .map(|((at, number), timer)| match timer {
                Timer::ChangeSuspectToDown { .. } => (((at + by).max(term), number), timer),
                Timer::ProbeRandomMember(_)
                | Timer::SendIndirectProbe { .. }
                | Timer::PeriodicAnnounce(_)
                | Timer::PeriodicAnnounceDown(_)
                | Timer::PeriodicGossip(_)
                | Timer::RemoveDown(_) => ((at + by, number), timer),
            })
            .collect();
    }

    fn set_health(&mut self, health: u32) {
        if health == self.health {
            return;
        }
        self.health = health;
        self.settings.suspect_to_down_after = self.suspicion * (1 + health);
        let result = self.foca.set_config(self.settings.clone());
        self.count(result);
    }

    fn count(&mut self, result: Result<(), foca::Error>) {
        // Refused packets and late timers are foca's ordinary life; a counter shows an epidemic.
        self.errors += u64::from(result.is_err());
    }
}

fn settings(config: &Config) -> foca::Config {
    foca::Config {
        probe_period: config.probe_period,
        probe_rtt: config.probe_rtt,
        num_indirect_probes: INDIRECT_PROBES,
        max_transmissions: TRANSMISSIONS,
        max_transmissions_of_arrivals: LOADING_TRANSMISSIONS,
        suspect_to_down_after: config.suspicion,
        // Nodes that left the cluster are forgotten by name; a dead one may come back.
        remove_down_after: None,
        max_packet_size: NonZeroUsize::new(PAYLOAD_BYTES_MAX).unwrap_or(NonZeroUsize::MIN),
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams {
            frequency: FEED_PERIOD,
            num_members: NonZeroUsize::MIN,
        }),
        // The join loop announces to members that are down.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams {
            frequency: config.probe_period,
            num_members: GOSSIP_MEMBERS,
        }),
    }
}
