//! Stories: goal and method stand in each script.

use expect_test::expect_file;

use crate::script;

fn story(file: &expect_test::ExpectFile) {
    file.assert_eq(&script::run(&file.data()));
}

/// Goal: a plan for a cluster at rest looks at nothing, whatever the cluster holds.
#[test]
fn a_cluster_at_rest_has_nothing_on_the_agenda() {
    let mut world = script::World::new();
    let mut told = String::new();
    for line in [
        "init a",
        "ready a",
        "join b",
        "ready b",
        "network web",
        "service one replicas=3 network=web publish=80:80",
        "service all global network=web",
        "obey",
        "service gone replicas=2",
        "obey",
        "report t2 failed",
        "update one replicas=2 image=dir:/other",
        "rm-service gone",
    ] {
        world.command(line, &mut told);
    }
    // Stopped, replaced and watched, one after the other.
    for _ in 0..6 {
        world.command("obey", &mut told);
        world.command("wait 60000", &mut told);
    }
    assert_eq!(told, "");
    assert_eq!(world.state.agenda.to_do(), 0, "{:?}", world.state.agenda);
    world.command("pause b", &mut told);
    assert_eq!(world.state.agenda.to_do(), 0, "{:?}", world.state.agenda);
    world.command("drain b", &mut told);
    assert_ne!(world.state.agenda.to_do(), 0);
}

#[test]
fn orchestrator_story() {
    story(&expect_file!["../../testdata/orchestrator.script"]);
}

#[test]
fn scheduler_story() {
    story(&expect_file!["../../testdata/scheduler.script"]);
}

#[test]
fn allocator_story() {
    story(&expect_file!["../../testdata/allocator.script"]);
}

#[test]
fn updater_story() {
    story(&expect_file!["../../testdata/updater.script"]);
}

#[test]
fn restart_story() {
    story(&expect_file!["../../testdata/restart.script"]);
}

#[test]
fn node_story() {
    story(&expect_file!["../../testdata/node.script"]);
}

#[test]
fn pool_story() {
    story(&expect_file!["../../testdata/pool.script"]);
}

#[test]
fn why_story() {
    story(&expect_file!["../../testdata/why.script"]);
}

#[test]
fn rotation_story() {
    story(&expect_file!["../../testdata/rotation.script"]);
}
