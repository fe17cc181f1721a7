//! Stories: goal and method stand in each script.

use expect_test::expect_file;

use crate::script;

#[test]
fn orchestrator_story() {
    let file = expect_file!["../../testdata/orchestrator.script"];
    file.assert_eq(&script::run(&file.data()));
}
