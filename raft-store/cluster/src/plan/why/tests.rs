//! What a story cannot show: the form that clients get, limits, and what is asked for by an id.

use std::sync::Arc;

use expect_test::expect;

use super::{Cause, Why, duration, names, why};
use crate::object::{Service, Task, TaskState};
use crate::script::World;
use crate::spec::{ResolutionMode, ServiceSpec};
use crate::transaction::Object;

fn world(lines: &[&str]) -> World {
    let mut world = World::new();
    let mut told = String::new();
    for line in ["init a", "ready a"].iter().chain(lines) {
        world.command(line, &mut told);
    }
    assert_eq!(told, "");
    world
}

fn asked(world: &World, text: &str) -> Why {
    why(&world.state, text, world.now, &|_task| Vec::new()).unwrap()
}

#[test]
fn clients_get_json() {
    let mut world = world(&["service web constraint=node.hostname==b"]);
    world.command("label a x=y", &mut String::new());
    let why = asked(&world, "web");
    expect![[r#"
        {
          "service": "9hq4yjctd52pt049eiwjbfdu2",
          "name": "web",
          "running": 0,
          "waiting": [
            {
              "name": "web.1.diurg3q74amkqhjvpc94cml7z",
              "task": "diurg3q74amkqhjvpc94cml7z",
              "state": "pending",
              "reasons": [
                {
                  "cause": "no-node",
                  "text": "no suitable node: constraint node.hostname==b is not met: a (it has a)",
                  "nodes": [
                    {
                      "reason": "constraint node.hostname==b is not met",
                      "nodes": 1,
                      "example": "a",
                      "detail": "it has a"
                    }
                  ]
                }
              ]
            }
          ],
          "left_out": 0,
          "passed_over": [],
          "next_due": null,
          "at": 1700000000000
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&why).unwrap());
}

/// Goal: an answer about thousands of tasks is short and says what it leaves out.
#[test]
fn an_answer_has_a_limit() {
    let world = world(&["service web replicas=250 constraint=node.hostname==b"]);
    let why = asked(&world, "web");
    assert_eq!((why.waiting.len(), why.left_out), (200, 50));
}

#[test]
fn a_task_is_asked_about_alone_and_also_when_its_service_goes() {
    let mut world =
        world(&["service web replicas=2", "service 0", "obey", "update web replicas=3"]);
    let tasks = world.state.tasks.values().filter(|task| task.service_name == "web");
    let (new, old) = tasks.partition::<Vec<_>, _>(|task| task.status.state < TaskState::Running);
    let (new, old) = (new[0].clone(), old[0].clone());
    let of = |world: &World, text: &str| {
        let why = asked(world, text);
        let listed = why.waiting.iter().filter_map(|waiting| waiting.task);
        (why.name.clone(), listed.collect::<Vec<_>>())
    };
    assert_eq!(of(&world, &new.id.to_string()), ("web".to_owned(), vec![new.id]));
    assert_eq!(of(&world, &old.name()), ("web".to_owned(), vec![]));
    world.command("rm-service web", &mut String::new());
    assert_eq!(of(&world, &old.id.to_string()), ("web".to_owned(), vec![old.id]));
    assert_eq!(of(&world, "web").1.len(), 3, "by its name too, until nothing is left of it");
    assert_eq!(of(&world, "0").0, "0");
}

/// Goal: a service that has lost its virtual address on a full network says so.
#[test]
fn a_service_without_an_address_says_on_which_network() {
    let world =
        world(&["network tiny subnet=10.0.1.0/29", "service web replicas=9 network=tiny dnsrr"]);
    let mut state = world.state.clone();
    let mut service = Service::clone(state.find_service("web").unwrap());
    let mut spec = ServiceSpec::clone(&service.spec);
    spec.endpoint_spec.mode = ResolutionMode::Vip;
    service.spec = spec.into();
    state.put(Object::Service(Arc::new(service))).unwrap();
    let why = why(&state, "web", world.now, &|_task| Vec::new()).unwrap();
    let reason = &why.waiting[0].reasons[0];
    assert_eq!((why.waiting[0].task, reason.cause), (None, Cause::NoAddress));
    assert!(reason.text.starts_with("no available IPv4 addresses on network tiny (10.0.1.0/29)"));
}

/// Goal: what a node says of a task that it has yet to start is passed on.
#[test]
fn the_words_of_the_node_are_told() {
    let world = world(&["service web"]);
    let mut state = world.state.clone();
    let mut task = Task::clone(state.tasks.values().next().unwrap());
    task.status.state = TaskState::Starting;
    "waiting for its health check".clone_into(&mut task.status.message);
    "connection refused".clone_into(&mut task.status.error);
    state.put(Object::Task(Arc::new(task))).unwrap();
    let why = why(&state, "web", world.now.plus_ms(4_200), &|_task| Vec::new()).unwrap();
    assert_eq!(
        why.waiting[0].reasons[0].text,
        "node a has yet to start it: starting for 4.2 s (waiting for its health check: \
         connection refused)"
    );
}

#[test]
fn sentences_are_short() {
    let list = |count: usize| names((0..count).map(|number| format!("n{number}")));
    assert_eq!([1, 3, 5].map(list), ["n0", "n0, n1, n2", "n0, n1, n2 and 2 more"]);
    let told = [0, 999, 59_999, 60_000, 3_600_000, 90_061_000].map(duration);
    assert_eq!(told, ["0.0 s", "0.9 s", "59.9 s", "1 min 0 s", "1 h 0 min", "25 h 1 min"]);
}
