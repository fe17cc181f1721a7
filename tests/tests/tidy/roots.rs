//! Every crate root says what it is for.

use std::fs;

/// Whether a source text starts with a sentence of purpose.
fn states_purpose(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let purpose = first.strip_prefix("//!").unwrap_or_default().trim();
    purpose.len() >= "Too short.".len() && purpose != "Skeleton."
}

/// Goal: a reader who opens any crate, program or test tier learns what it is for first.
/// Method: the source path of each target that cargo knows.
#[test]
fn every_crate_root_begins_with_its_purpose() {
    let metadata = crate::metadata(&["--no-deps"]);
    let mut complaints = Vec::new();
    let mut seen = 0;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            let path = target["src_path"].as_str().unwrap_or_default();
            let text = fs::read_to_string(path).expect("a target's source is readable");
            seen += 1;
            if !states_purpose(&text) {
                complaints.push(format!("{path} does not start with a //! that says its purpose"));
            }
        }
    }
    assert!(seen >= 8, "cargo metadata lists the targets, found {seen}");
    crate::report(&complaints);
}

#[test]
fn a_root_without_purpose_is_found() {
    assert!(states_purpose("//! Holds the rules.\n\nmod a;"));
    assert!(states_purpose("\n//! Holds the rules.\n"));
    assert!(!states_purpose("//! Skeleton."));
    assert!(!states_purpose("//!\nfn main() {}"));
    assert!(!states_purpose("// Holds the rules.\nmod a;"));
    assert!(!states_purpose(""));
}
