//! The import table of ARCHITECTURE.md: a heavy dependency belongs to one crate, and the cores stay
//! pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What each crate of the workspace may name in `[dependencies]`. A crate that is absent here is
/// a complaint, so that a new crate has to state its place.
const ALLOWED: &[(&str, &[&str])] = &[
    ("agent", &["cluster", "gossip", "netprog"]),
    (
        "cluster",
        &["bincode", "bytes", "imbl", "ipnet", "serde", "serde_json", "siphasher", "thiserror"],
    ),
    ("leader", &["cluster"]),
    ("gossip", &["bincode", "bytes", "cluster", "foca", "rand", "ring", "serde", "thiserror"]),
    ("netprog", &["cluster", "serde", "serde_json", "thiserror"]),
    (
        "netprog-linux",
        &[
            "async-trait",
            "cluster",
            "futures-util",
            "hickory-server",
            "netlink-packet-core",
            "netlink-packet-route",
            "netlink-proto",
            "netprog",
            "nix",
            "rtnetlink",
            "serde_json",
            "siphasher",
            "thiserror",
            "tokio",
            "tracing",
        ],
    ),
    (
        "raft-store",
        &[
            "async-trait",
            "bincode",
            "bytes",
            "futures-util",
            "openraft",
            "redb",
            "ring",
            "serde",
            "thiserror",
            "tokio",
            "tracing",
        ],
    ),
    (
        "api",
        &[
            "async-trait",
            "axum",
            "base64",
            "bytes",
            "cluster",
            "futures-util",
            "http-body-util",
            "hyper",
            "hyper-util",
            "serde",
            "serde_json",
            "thiserror",
            "time",
            "tokio",
            "tower",
            "tracing",
            "x509-parser",
        ],
    ),
    ("supervise", &["cluster", "nix", "seccompiler", "serde", "serde_json", "thiserror", "time"]),
    (
        "skein",
        &[
            "agent",
            "anyhow",
            "api",
            "async-trait",
            "axum",
            "base64",
            "bincode",
            "bytes",
            "clap",
            "clap_complete",
            "cluster",
            "comfy-table",
            "csv",
            "futures-util",
            "gossip",
            "http-body-util",
            "hyper",
            "hyper-util",
            "ipnet",
            "leader",
            "netprog",
            "netprog-linux",
            "nix",
            "percent-encoding",
            "raft-store",
            "prometheus-client",
            "rand",
            "rcgen",
            "ring",
            "rustls",
            "sd-notify",
            "serde",
            "serde_json",
            "shlex",
            "subtle",
            "supervise",
            "tempfile",
            "thiserror",
            "time",
            "tokio",
            "tokio-rustls",
            "tokio-util",
            "toml",
            "tower",
            "tracing",
            "tracing-log",
            "tracing-subscriber",
            "x509-parser",
        ],
    ),
    ("lab", &["anyhow", "nix", "percent-encoding", "rand", "serde", "serde_json"]),
    (
        "tests",
        &[
            "agent",
            "anyhow",
            "axum",
            "api",
            "cluster",
            "gossip",
            "http-body-util",
            "hyper",
            "hyper-util",
            "lab",
            "leader",
            "netprog",
            "netprog-linux",
            "nix",
            "raft-store",
            "rand",
            "serde",
            "serde_json",
            "skein",
            "tempfile",
            "tokio",
            "tokio-util",
        ],
    ),
];

/// Direct dependencies of each package, without those that only its tests use.
fn direct_dependencies(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let names = dependencies
            .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
            .filter_map(|dependency| dependency["name"].as_str())
            .map(String::from)
            .collect();
        let name = package["name"].as_str().unwrap_or_default();
        found.insert(name.to_owned(), names);
    }
    found
}

/// One complaint per import that the table does not have.
fn check(found: &BTreeMap<String, BTreeSet<String>>, allowed: &[(&str, &[&str])]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, dependencies) in found {
        let Some((_, row)) = allowed.iter().find(|(allowed, _)| allowed == name) else {
            complaints.push(format!("{name} has no row in the import table"));
            continue;
        };
        for dependency in dependencies {
            if !row.contains(&dependency.as_str()) {
                complaints.push(format!("{name} may not depend on {dependency}"));
            }
        }
    }
    complaints
}

/// Goal: the crates' import rules hold. Method: `cargo metadata` against the table.
#[test]
fn crates_import_only_what_the_architecture_allows() {
    let found = direct_dependencies(&crate::metadata(&["--no-deps"]));
    assert!(found.len() >= ALLOWED.len(), "cargo metadata lists the workspace: {found:?}");
    crate::report(&check(&found, ALLOWED));
}

/// Crates that no runtime may come into by way of what they depend on.
const WITHOUT_RUNTIME: &[&str] = &["cluster", "gossip", "netprog", "supervise"];

/// All that a package is built with, by name.
fn built_with(metadata: &Value, package: &str) -> BTreeSet<String> {
    let nodes = metadata["resolve"]["nodes"].as_array().into_iter().flatten();
    let nodes: BTreeMap<&str, &Value> =
        nodes.filter_map(|node| Some((node["id"].as_str()?, &node["deps"]))).collect();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let names: BTreeMap<&str, &str> = packages
        .filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?)))
        .collect();
    let mut found = BTreeSet::new();
    let mut ahead: Vec<&str> =
        names.iter().filter(|(_, name)| **name == package).map(|(id, _)| *id).collect();
    while let Some(id) = ahead.pop() {
        if !found.insert(id) {
            continue;
        }
        let is_shipped = |dependency: &&Value| {
            let kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
            kinds.into_iter().any(|kind| kind["kind"].as_str() != Some("dev"))
        };
        let dependencies = nodes.get(id).and_then(|deps| deps.as_array()).into_iter().flatten();
        ahead.extend(dependencies.filter(is_shipped).filter_map(|to| to["pkg"].as_str()));
    }
    found.into_iter().filter_map(|id| names.get(id).map(|name| (*name).to_owned())).collect()
}

/// Goal: cores and the processes of one thread have no runtime, whatever their dependencies get.
/// Method: the packages that cargo chooses for a build of the whole workspace.
#[test]
fn no_runtime_comes_into_a_core_or_a_supervisor() {
    let metadata = crate::metadata(&[]);
    for package in WITHOUT_RUNTIME {
        let built = built_with(&metadata, package);
        assert!(built.contains("serde"), "cargo metadata resolves {package}: {built:?}");
        assert!(!built.contains("tokio"), "{package} is built with tokio");
    }
    assert!(built_with(&metadata, "skein").contains("tokio"), "the search can find it");
}

#[test]
fn an_import_outside_the_table_is_a_complaint() {
    let metadata = serde_json::json!({"packages": [
        {"name": "gossip", "dependencies": [
            {"name": "foca", "kind": null},
            {"name": "tokio", "kind": null},
            {"name": "proptest", "kind": "dev"},
        ]},
        {"name": "extra", "dependencies": []},
    ]});
    let complaints = check(&direct_dependencies(&metadata), ALLOWED);
    assert_eq!(
        complaints,
        ["extra has no row in the import table", "gossip may not depend on tokio"]
    );
}
