//! What users get wrong, and what they are told.

use std::collections::BTreeSet;

use expect_test::expect_file;

use super::{Added, Batch};
use crate::apply::{Conflict, Outcome};
use crate::id::{RequestId, ServiceId};
use crate::rejection::{Code, Rejection};
use crate::request::{ANSWER_TEXT_BYTES_MAX, Answer, Attempt, Request};
use crate::script;
use crate::state::{ANSWERS_MAX, State};
use crate::time::Revision;
use crate::transaction::Transaction;

#[test]
fn member_story() {
    let file = expect_file!["../../testdata/member.script"];
    file.assert_eq(&script::run(&file.data()));
}

#[test]
fn role_story() {
    let file = expect_file!["../../testdata/role.script"];
    file.assert_eq(&script::run(&file.data()));
}

#[test]
fn bad_input_story() {
    let file = expect_file!["../../testdata/bad-input.script"];
    file.assert_eq(&script::run(&file.data()));
}

/// Goal: a request of a batch that is rejected leaves nothing behind, also where the planners had
/// begun on it. Method: a service whose virtual address is one too many, between two that are not.
#[test]
fn a_rejected_request_of_a_batch_leaves_nothing() {
    let mut world = script::World::new();
    let mut told = String::new();
    for line in ["init a", "ready a", "network tiny subnet=10.0.1.0/30"] {
        world.command(line, &mut told);
    }
    assert_eq!(told, "");
    let lines =
        ["service one network=tiny replicas=0", "service two network=tiny", "service three"];
    let requests = lines.map(|line| world.request_of(line).unwrap());
    let mut batch = Batch::new(&world.state, world.now);
    let codes =
        requests.iter().zip(1..).map(|(request, seed)| match batch.add(request, None, seed) {
            Added::Decided(result) => result.err().map(|rejection| rejection.code),
            Added::Later => panic!("there is room for three"),
        });
    assert_eq!(codes.collect::<Vec<_>>(), [None, Some(Code::Exhausted), None]);
    let mut state = world.state.clone();
    let revision = Revision(state.revision.0 + 1);
    assert_eq!(state.apply(revision, &batch.finish()), Outcome::Applied);
    let names: BTreeSet<&str> = state.services.values().map(|s| s.spec.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["one", "three"]));
    assert!(state.tasks.values().all(|task| task.service_name == "three"));
}

/// A cluster of one node, and a request for a service.
fn asked() -> (script::World, Request) {
    let mut world = script::World::new();
    let mut told = String::new();
    for line in ["init a", "ready a"] {
        world.command(line, &mut told);
    }
    assert_eq!(told, "");
    let request = world.request_of("service one replicas=0").unwrap();
    (world, request)
}

/// A request that is decided alone.
fn decided(
    (world, state): (&script::World, &State),
    request: &Request,
    attempt: Attempt,
) -> (Result<Answer, Rejection>, Transaction) {
    let mut batch = Batch::new(state, world.now);
    let seed = u128::from(state.revision.0) << 64;
    let Added::Decided(result) = batch.add(request, Some(attempt), seed) else {
        panic!("the first request of a batch is for later");
    };
    (result, batch.finish())
}

fn next(state: &State) -> Revision {
    Revision(state.revision.0 + 1)
}

/// Goal: a request whose answer was lost with the leader is done once. Method: it is asked again in
/// the same batch, after its entry, and by a leader that had not applied it yet.
#[test]
fn a_request_that_comes_again_is_done_once() {
    let (world, request) = asked();
    let mut state = world.state.clone();
    let first = Attempt { id: RequestId(1), since: None };
    let again = Attempt { since: Some(state.revision), ..first };
    let mut batch = Batch::new(&state, world.now);
    let answers = [first, again].map(|attempt| batch.add(&request, Some(attempt), 7));
    let Added::Decided(Ok(answer @ Answer::Service { .. })) = &answers[0] else {
        panic!("{answers:?}");
    };
    assert_eq!(answers[0], answers[1]);
    // A second leader may have decided on it before it learned of the first one's entry.
    let (elsewhere, late) = decided((&world, &state), &request, again);
    assert_ne!(elsewhere.as_ref(), Ok(answer), "each leader draws its own ids");
    let revision = next(&state);
    assert_eq!(state.apply(revision, &batch.finish()), Outcome::Applied);
    let conflict = Conflict::Answered { request: first.id };
    let revision = next(&state);
    assert_eq!(state.apply(revision, &late), Outcome::Rejected(conflict));
    for attempt in [first, again] {
        let (told, transaction) = decided((&world, &state), &request, attempt);
        assert_eq!(told.as_ref(), Ok(answer));
        assert_eq!(transaction.changes, []);
    }
    let other = Attempt { id: RequestId(2), ..first };
    let (told, _) = decided((&world, &state), &request, other);
    assert_eq!(told.map_err(|rejection| rejection.code), Err(Code::NameTaken), "it is another one");
    assert_eq!(state.services.len(), 1);
}

/// Goal: what is recorded is bounded, and a request of which the record may have made room is not
/// done twice. Method: one request more than there is room for, each in an entry of its own; then
/// the first and the last again, also after a snapshot.
#[test]
fn recorded_answers_make_room_for_newer_ones() {
    let (world, request) = asked();
    let mut state = world.state.clone();
    let before = state.revision;
    let mut told = Vec::new();
    for id in 0..=ANSWERS_MAX {
        let attempt = Attempt { id: RequestId(id as u128), since: None };
        let turn = if id % 2 == 0 {
            request.clone()
        } else {
            let id = *state.services.keys().next().unwrap();
            Request::RemoveService { id }
        };
        let (answer, transaction) = decided((&world, &state), &turn, attempt);
        let revision = next(&state);
        assert_eq!(state.apply(revision, &transaction), Outcome::Applied);
        told.push((turn, attempt, answer));
    }
    let mut bytes = Vec::new();
    state.write_snapshot(&mut bytes).unwrap();
    let restored = State::read_snapshot(&mut &bytes[..]).unwrap();
    assert_eq!(restored, state);
    assert_eq!(restored.answers.len(), ANSWERS_MAX);
    let again = |state: &State, at: usize, since| {
        let (turn, attempt, _) = &told[at];
        decided((&world, state), turn, Attempt { since: Some(since), ..*attempt }).0
    };
    for state in [&state, &restored] {
        let lost = again(state, 0, before).map_err(|rejection| rejection.code);
        assert_eq!(lost, Err(Code::Unavailable), "nobody knows any more");
        for at in [1, 2, ANSWERS_MAX] {
            assert_eq!(again(state, at, before), told[at].2);
        }
    }
    // One that was first asked later than that was surely not done.
    let request = world.request_of("service two replicas=0").unwrap();
    let new = Attempt { id: RequestId(u128::MAX), since: Some(state.revision) };
    assert_ne!(decided((&world, &state), &request, new).1.changes, []);
}

#[test]
fn what_is_recorded_of_an_answer_is_bounded() {
    let id = ServiceId(1);
    let few = Answer::Service { id, warnings: vec!["short".to_owned()] };
    assert_eq!(few.recorded(), few);
    let warnings = vec!["x".repeat(ANSWER_TEXT_BYTES_MAX / 2); 1000];
    let Answer::Service { warnings, .. } = (Answer::Service { id, warnings }).recorded() else {
        panic!("it is another answer");
    };
    assert_eq!(warnings.len(), 3, "two that fit, and that there were more");
}
