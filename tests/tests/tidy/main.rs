//! Checks rules that no compiler checks: allowed imports, the same features everywhere, lengths,
//! words, the purpose of each crate, the capabilities of the unit, fuzzed decoders. Every checker
//! is a pure function over text, with tests that show it fail.

mod features;
mod files;
mod fuzz;
mod imports;
mod patches;
mod roots;
mod source;
mod units;
mod versions;
mod words;

use std::path::PathBuf;
use std::process::Command;

/// The workspace's root.
fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(PathBuf::from).unwrap_or(own)
}

/// The output of cargo metadata: with `--no-deps` only the packages of the workspace.
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

/// Fails with one complaint per line.
fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}
