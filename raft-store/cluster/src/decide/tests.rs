//! What users get wrong, and what they are told.

use std::collections::BTreeSet;

use expect_test::expect_file;

use super::{Added, Batch};
use crate::apply::Outcome;
use crate::rejection::Code;
use crate::script;
use crate::time::Revision;

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
    let codes = requests.iter().zip(1..).map(|(request, seed)| match batch.add(request, seed) {
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
