//! Holds the rules that no compiler holds: who may import whom, how long things may be, what each
//! crate is for, what the unit may do, which decoders are fuzzed. Every checker is a pure function
//! over text, with its own tests that show it fail.

mod files;
mod fuzz;
mod imports;
mod patches;
mod roots;
mod source;
mod units;
mod versions;

use std::path::PathBuf;
use std::process::Command;

/// The workspace's root.
fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(PathBuf::from).unwrap_or(own)
}

/// What cargo says about the workspace's packages: with `--no-deps` its own, else all.
fn metadata(more: &[&str]) -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args(more)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// Fails with every complaint on a line of its own.
fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}
