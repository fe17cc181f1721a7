//! Goal: what counts as a failure of an update, and what follows, is as in Docker. Method: a table
//! of the scenarios of swarmkit's updater_test.go, each played for a minute with new tasks that
//! behave as the row says; what it led to is one line of text.

use std::fmt::Write as _;

use expect_test::expect;

use crate::object::{Task, TaskState};
use crate::script::World;

/// Three replicas on one node, updated one at a time; new tasks have the image `dir:/2`.
fn outcome(config: &str, each_second: &[&str]) -> String {
    let mut world = World::new();
    let mut refused = String::new();
    let mut command = |world: &mut World, line: &str| world.command(line, &mut refused);
    for line in ["init a", "ready a", "service web replicas=3 delay=1000", "obey"] {
        command(&mut world, line);
    }
    command(&mut world, &format!("update web image=dir:/2 {config}"));
    for _second in 0..60 {
        command(&mut world, "obey dir:/2");
        each_second.iter().for_each(|line| command(&mut world, line));
        command(&mut world, "wait 1000");
    }
    let service = world.state.find_service("web").unwrap();
    let status = service.update_status.as_ref().unwrap();
    let running = |image: &str| {
        let tasks = world.state.tasks_of(service.id).map(|task| &**task);
        let runs = |task: &&Task| task.is_wanted() && task.status.state == TaskState::Running;
        tasks.filter(runs).filter(|task| task.spec.container_spec.image == image).count()
    };
    let message = status.message.split(" due to").next().unwrap();
    let mut line = format!("{} old, {} new run: {message}", running("host"), running("dir:/2"));
    if !refused.is_empty() {
        let _ = write!(line, " ({refused})");
    }
    line
}

const RUNS: &[&str] = &["report dir:/2 running"];
const EXITS_0: &[&str] = &["report dir:/2 complete"];
const FAILS: &[&str] = &["report dir:/2 failed"];
const REJECTED: &[&str] = &["report dir:/2 rejected"];
const EXITS_0_AFTER_2_S: &[&str] =
    &["report dir:/2 running", "wait 2000", "report dir:/2 complete"];
const EXITS_0_AFTER_6_S: &[&str] =
    &["report dir:/2 running", "wait 6000", "report dir:/2 complete"];
/// Its health check never passes: it never counts as running.
const UNHEALTHY_AFTER_8_S: &[&str] =
    &["report dir:/2 starting", "wait 8000", "report dir:/2 failed"];
const FIRST_SLOT_FAILS: &[&str] = &["report dir:/2 failed slot=1", "report dir:/2 running"];
const NEVER_STARTS: &[&str] = &["report dir:/2 starting"];

#[test]
fn failures_of_an_update() {
    let rows = [
        ("runs", "", RUNS),
        ("pause, exit 0", "", EXITS_0),
        ("pause, fails", "", FAILS),
        ("pause, rejected", "", REJECTED),
        ("pause, exit 0 after 2 s", "", EXITS_0_AFTER_2_S),
        ("pause, exit 0 after 2 s, monitor 1 s", "monitor=1000", EXITS_0_AFTER_2_S),
        ("pause, exit 0 after 6 s", "", EXITS_0_AFTER_6_S),
        ("pause, exit 0 after 6 s, monitor 8 s", "monitor=8000", EXITS_0_AFTER_6_S),
        ("pause, unhealthy before it ran", "", UNHEALTHY_AFTER_8_S),
        ("pause, never starts", "", NEVER_STARTS),
        ("pause, no restarts, exit 0", "restart=none", EXITS_0),
        ("pause, no restarts, start-first, exit 0", "restart=none order=start-first", EXITS_0),
        ("pause, start-first, fails", "order=start-first", FAILS),
        ("pause, 1 of 3 fails, ratio 0.3", "ratio=0.3", FIRST_SLOT_FAILS),
        ("pause, 1 of 3 fails, ratio 0.4", "ratio=0.4", FIRST_SLOT_FAILS),
        ("continue, exit 0", "on-failure=continue", EXITS_0),
        ("continue, fails", "on-failure=continue", FAILS),
        ("continue, 1 of 3 fails", "on-failure=continue", FIRST_SLOT_FAILS),
        ("continue, delay, fails", "on-failure=continue update-delay=5000", FAILS),
        ("continue, start-first, fails", "on-failure=continue order=start-first", FAILS),
        ("rollback, runs", "on-failure=rollback", RUNS),
        ("rollback, exit 0", "on-failure=rollback", EXITS_0),
        ("rollback, fails", "on-failure=rollback", FAILS),
        ("rollback, start-first, fails", "on-failure=rollback order=start-first", FAILS),
        ("rollback, exit 0 after 2 s", "on-failure=rollback", EXITS_0_AFTER_2_S),
        ("rollback, 1 of 3 fails, ratio 0.4", "on-failure=rollback ratio=0.4", FIRST_SLOT_FAILS),
    ];
    let mut table = String::new();
    for (name, config, each_second) in rows {
        let _ = writeln!(table, "{name}: {}", outcome(config, each_second));
    }
    expect![[r#"
        runs: 0 old, 3 new run: update completed
        pause, exit 0: 2 old, 0 new run: update paused
        pause, fails: 2 old, 0 new run: update paused
        pause, rejected: 2 old, 0 new run: update paused
        pause, exit 0 after 2 s: 1 old, 0 new run: update paused
        pause, exit 0 after 2 s, monitor 1 s: 0 old, 0 new run: update completed
        pause, exit 0 after 6 s: 0 old, 0 new run: update completed
        pause, exit 0 after 6 s, monitor 8 s: 1 old, 0 new run: update paused
        pause, unhealthy before it ran: 2 old, 0 new run: update paused
        pause, never starts: 2 old, 0 new run: update in progress
        pause, no restarts, exit 0: 2 old, 0 new run: update paused
        pause, no restarts, start-first, exit 0: 3 old, 0 new run: update paused
        pause, start-first, fails: 3 old, 0 new run: update paused
        pause, 1 of 3 fails, ratio 0.3: 2 old, 1 new run: update paused
        pause, 1 of 3 fails, ratio 0.4: 0 old, 3 new run: update completed
        continue, exit 0: 0 old, 0 new run: update completed
        continue, fails: 0 old, 0 new run: update completed
        continue, 1 of 3 fails: 0 old, 3 new run: update completed
        continue, delay, fails: 0 old, 0 new run: update completed
        continue, start-first, fails: 3 old, 0 new run: update completed
        rollback, runs: 0 old, 3 new run: update completed
        rollback, exit 0: 3 old, 0 new run: rollback completed
        rollback, fails: 3 old, 0 new run: rollback completed
        rollback, start-first, fails: 3 old, 0 new run: rollback completed
        rollback, exit 0 after 2 s: 3 old, 0 new run: rollback completed
        rollback, 1 of 3 fails, ratio 0.4: 0 old, 3 new run: update completed
    "#]]
    .assert_eq(&table);
}

/// Failures of different slots count together also when history keeps none of the failed tasks.
#[test]
fn failures_outlive_the_history() {
    let mut world = World::new();
    let mut out = String::new();
    let script = [
        "init a",
        "ready a",
        "history 0",
        "service web replicas=4 delay=1000 ratio=0.25 parallelism=1",
        "obey",
        "update web image=dir:/2",
        "obey dir:/2",
    ];
    for line in script {
        world.command(line, &mut out);
    }
    for _second in 0..10 {
        for line in ["report dir:/2 failed", "wait 1000", "obey dir:/2"] {
            world.command(line, &mut out);
        }
    }
    assert_eq!(out, "");
    let status = world.state.find_service("web").unwrap().update_status.clone().unwrap();
    assert!(status.state.is_paused(), "{status:?}");
}

/// What a task was made from stays with it, whatever its service becomes: here its host port.
#[test]
fn a_task_keeps_the_ports_that_it_was_made_with() {
    let mut world = World::new();
    let mut out = String::new();
    let script = [
        "init a",
        "ready a",
        "service web replicas=1 order=start-first publish=host:8080:80",
        "obey",
        "update web unpublish publish=host:8081:80",
    ];
    script.iter().for_each(|line| world.command(line, &mut out));
    assert_eq!(out, "");
    let node = world.state.find_node("a").unwrap().id;
    let assignment = crate::assignment_for(&world.state, node).unwrap();
    let ports = assignment.own.values().flat_map(|own| &own.ports);
    let mut ports: Vec<u16> = ports.map(|port| port.published).collect();
    ports.sort_unstable();
    assert_eq!(ports, [8080, 8081]);
}
