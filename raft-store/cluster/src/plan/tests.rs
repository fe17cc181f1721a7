//! Stories: goal and method stand in each script.

use expect_test::expect_file;

use crate::script;

fn story(file: &expect_test::ExpectFile) {
    file.assert_eq(&script::run(&file.data()));
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
fn rotation_story() {
    story(&expect_file!["../../testdata/rotation.script"]);
}
