//! What users get wrong, and what they are told.

use expect_test::expect_file;

use crate::script;

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
