use cluster::apply::Outcome;
use cluster::object::NodeState;
use cluster::rejection::Code;
use cluster::time::Revision;
use serde_json::json;

use super::*;
use crate::fixture::{B, cluster, set_state};

const NOW: Timestamp = Timestamp(0);
/// Tasks on a node that is down are orphaned long before.
const LATER: Timestamp = Timestamp(1 << 42);

/// A leader whose entries are in its state as soon as `applied` is called.
struct Fixture {
    state: State,
    decider: Decider<u32>,
    seed: u128,
}

impl Fixture {
    fn new() -> Self {
        Self { state: cluster(), decider: Decider::default(), seed: 1 << 64 }
    }

    /// At [`LATER`] a planner has something to do.
    fn with_lost_tasks() -> Self {
        let mut fixture = Self::new();
        set_state(&mut fixture.state, B, NodeState::Down);
        fixture
    }

    /// Asks for a network of this name; `reply` is its number.
    fn ask(&mut self, reply: u32, name: &str) {
        let spec = serde_json::from_value(json!({ "Name": name, "Driver": "overlay" })).unwrap();
        let request = Request::CreateNetwork { spec };
        self.decider.ask(Ask { request, attempt: None, reply });
    }

    fn next(&mut self, standing: Standing, now: Timestamp) -> Next<u32> {
        self.decider.next(&self.state, standing, now, &mut || {
            self.seed += 1;
            self.seed
        })
    }

    fn proposal(&mut self, now: Timestamp) -> Proposal {
        match self.next(Standing::Leads, now) {
            Next::Propose(proposal) => proposal,
            other => panic!("{other:?}"),
        }
    }

    fn answers(&mut self, standing: Standing) -> Vec<(u32, Result<(), Undecided>)> {
        match self.next(standing, NOW) {
            Next::Answer(answers) => told(answers),
            other => panic!("{other:?}"),
        }
    }

    fn pause(&mut self, standing: Standing, now: Timestamp) -> Duration {
        match self.next(standing, now) {
            Next::Wait(pause) => pause,
            other => panic!("{other:?}"),
        }
    }

    fn apply(&mut self, proposal: &Proposal) {
        let revision = Revision(self.state.revision.0 + 1);
        assert_eq!(self.state.apply(revision, &proposal.transaction), Outcome::Applied);
    }

    fn outcome(&mut self, outcome: Proposed) -> Vec<(u32, Result<(), Undecided>)> {
        told(self.decider.outcome(outcome))
    }

    fn networks(&self) -> usize {
        self.state.networks.len()
    }
}

fn told(answers: Vec<Answered<u32>>) -> Vec<(u32, Result<(), Undecided>)> {
    answers.into_iter().map(|(ask, answer)| (ask.reply, answer.map(|_| ()))).collect()
}

/// Goal: many requests cost one entry, and each has its own answer, after the entry is applied.
#[test]
fn those_that_wait_are_decided_together() {
    let mut fixture = Fixture::new();
    let before = fixture.networks();
    for (reply, name) in [(1, "a"), (2, "b"), (3, "b"), (4, "c")] {
        fixture.ask(reply, name);
    }
    let proposal = fixture.proposal(NOW);
    assert_eq!(proposal.requests, 4);
    assert_eq!(fixture.networks(), before);
    fixture.apply(&proposal);
    assert_eq!(fixture.networks(), before + 3);
    let answers = fixture.outcome(Proposed::Applied);
    let numbers: Vec<u32> = answers.iter().map(|(reply, _)| *reply).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    for (reply, answer) in answers {
        match answer {
            Ok(()) => assert_ne!(reply, 3),
            Err(Undecided::Rejected(why)) => assert_eq!((reply, why.code), (3, Code::NameTaken)),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(fixture.pause(Standing::Leads, NOW), PLAN_INTERVAL);
}

/// Goal: what changes nothing is answered without an entry.
#[test]
fn a_refusal_is_not_written() {
    let mut fixture = Fixture::new();
    fixture.ask(1, "vote");
    let answers = fixture.answers(Standing::Leads);
    assert!(matches!(answers.as_slice(), [(1, Err(Undecided::Rejected(_)))]), "{answers:?}");
}

/// Goal: one entry takes a bounded number of requests, and the planners have their turn before the
/// next one.
#[test]
fn a_batch_has_a_limit_and_the_rest_is_next() {
    let mut fixture = Fixture::new();
    for reply in 0..300_u32 {
        fixture.ask(reply, &format!("n{reply}"));
    }
    assert!(!fixture.decider.has_room());
    let mut answered = 0;
    while answered < 300 {
        match fixture.next(Standing::Leads, NOW) {
            Next::Propose(proposal) => {
                assert!(proposal.requests <= BATCH_REQUESTS_MAX);
                fixture.apply(&proposal);
                answered += fixture.outcome(Proposed::Applied).len();
            }
            Next::Wait(pause) => assert_eq!(pause, Duration::ZERO, "others wait"),
            Next::Answer(answers) => panic!("{answers:?}"),
        }
    }
    assert!(fixture.decider.has_room());
}

/// Goal: only a leader decides, and one that was just elected not yet: its state may be old.
#[test]
fn who_does_not_lead_says_so_and_who_may_waits() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.pause(Standing::Follows, NOW), PLAN_INTERVAL);
    fixture.ask(1, "a");
    assert_eq!(fixture.pause(Standing::Elected, NOW), PLAN_INTERVAL);
    assert_eq!(fixture.proposal(NOW).requests, 1);
    let failed = Proposed::Failed(Undecided::NotLeader);
    assert_eq!(fixture.outcome(failed), [(1, Err(Undecided::NotLeader))]);
    fixture.ask(2, "b");
    assert_eq!(fixture.answers(Standing::Follows), [(2, Err(Undecided::NotLeader))]);
}

/// Goal: a decision that lost a race is made again on the newer state, not without end.
#[test]
fn a_lost_race_is_run_again() {
    let mut fixture = Fixture::new();
    fixture.ask(1, "a");
    let lost = fixture.proposal(NOW);
    assert_eq!(fixture.outcome(Proposed::Raced), []);
    // What won was the very same.
    fixture.apply(&lost);
    let answers = fixture.answers(Standing::Leads);
    assert!(matches!(answers.as_slice(), [(1, Err(Undecided::Rejected(_)))]), "{answers:?}");

    assert_eq!(fixture.pause(Standing::Leads, NOW), PLAN_INTERVAL);
    fixture.ask(2, "b");
    let mut races = 1;
    loop {
        assert_eq!(fixture.proposal(NOW).requests, 1);
        let answers = fixture.outcome(Proposed::Raced);
        if !answers.is_empty() {
            let often = Undecided::NotWritten("the state changed too often".to_owned());
            assert_eq!(answers, [(2, Err(often))]);
            break;
        }
        races += 1;
    }
    assert_eq!(races, RACES_MAX);
}

/// Goal: planners that always find something hold up no request for long.
#[test]
fn requests_have_their_turn_among_plans() {
    let mut fixture = Fixture::with_lost_tasks();
    let mut plans = 0;
    // Nothing is applied, so there is always a plan.
    assert_eq!(fixture.proposal(LATER).requests, 0);
    fixture.outcome(Proposed::Raced);
    fixture.ask(1, "a");
    loop {
        match fixture.proposal(LATER).requests {
            0 => plans += 1,
            requests => {
                assert_eq!(requests, 1);
                break;
            }
        }
        assert_eq!(fixture.outcome(Proposed::Raced), []);
    }
    assert_eq!(plans, PLANS_MAX - 1);
    assert_eq!(fixture.outcome(Proposed::Applied), [(1, Ok(()))]);
    assert_eq!(fixture.proposal(LATER).requests, 0, "and the planners again");
}

/// Goal: a plan that cannot be written is not tried in a busy loop, and holds up no request.
#[test]
fn a_plan_that_fails_waits() {
    let mut fixture = Fixture::with_lost_tasks();
    let failed = || Proposed::Failed(Undecided::NotWritten("no majority".to_owned()));
    assert_eq!(fixture.proposal(LATER).requests, 0);
    assert_eq!(fixture.outcome(failed()), []);
    assert_eq!(fixture.pause(Standing::Leads, LATER), PLAN_INTERVAL);
    assert_eq!(fixture.proposal(LATER).requests, 0);
    assert_eq!(fixture.outcome(failed()), []);
    fixture.ask(1, "a");
    assert_eq!(fixture.proposal(LATER).requests, 1);
}

/// Goal: nobody is answered who gave up, and nothing is written for them.
#[test]
fn who_gave_up_asks_for_nothing() {
    let mut fixture = Fixture::new();
    fixture.ask(1, "a");
    fixture.ask(2, "b");
    fixture.decider.forget(|reply| *reply == 1);
    let proposal = fixture.proposal(NOW);
    assert_eq!(proposal.requests, 1);
    assert_eq!(fixture.outcome(Proposed::Applied), [(2, Ok(()))]);
}
