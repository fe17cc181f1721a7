//! `rust-version` is the lowest that works: what the dependencies need, and what this code uses.
//! Clippy knows the version of each item of the standard library (`incompatible_msrv`); the code
//! uses no language feature newer than [`LANGUAGE`].

use serde_json::Value;

/// `let` chains in `if` (Rust 1.88) are the youngest part of the language that is used.
const LANGUAGE: Version = (1, 88, 0);

type Version = (u64, u64, u64);

/// A version of two or three numbers.
fn read(text: &str) -> Option<Version> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    Some((major, minor, numbers.next().flatten().unwrap_or_default()))
}

/// The highest `rust-version` of the packages, without those of the workspace.
fn needed(metadata: &Value) -> Option<(Version, String)> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let foreign = packages.filter(|package| !package["source"].is_null());
    let known = foreign.filter_map(|package| {
        let version = read(package["rust_version"].as_str()?)?;
        Some((version, package["name"].as_str()?.to_owned()))
    });
    known.max()
}

/// Goal: nobody is sent away who has a compiler that would do, nor let in with one that will not.
/// Method: the workspace's `rust-version` against what `cargo metadata` knows of all packages.
#[test]
fn rust_version_is_the_lowest_that_the_dependencies_need() {
    let metadata = crate::metadata(&[]);
    let (dependency, name) = needed(&metadata).expect("some dependency states its version");
    let own = env!("CARGO_PKG_RUST_VERSION");
    let lowest = dependency.max(LANGUAGE);
    assert_eq!(read(own), Some(lowest), "rust-version is {own}, {name} needs {dependency:?}");
}

#[test]
fn the_highest_version_counts_and_the_own_does_not() {
    let metadata = serde_json::json!({"packages": [
        {"name": "own", "source": null, "rust_version": "1.99"},
        {"name": "a", "source": "registry", "rust_version": "1.70.1"},
        {"name": "b", "source": "registry", "rust_version": "1.9"},
        {"name": "c", "source": "registry", "rust_version": null},
    ]});
    assert_eq!(needed(&metadata), Some(((1, 70, 1), "a".to_owned())));
    assert_eq!(read("1.88"), Some((1, 88, 0)));
    assert_eq!(read("new"), None);
}
