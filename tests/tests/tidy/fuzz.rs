//! Every decoder of foreign bytes has a fuzz target, every target is documented, and no build of
//! the workspace enables the feature through which the targets reach the decoders.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::files::files;
use crate::source::blank_non_code;

/// The feature that exposes the decoders to the targets.
const FEATURE: &str = "fuzzing";
const SECURITY: &str = "docs/security.md";
/// Its section with the table of targets.
const SECTION: &str = "## Decoders and fuzz targets";
/// Words of code that decodes.
const WORDS: &[&str] = &[
    "Deserializer",
    "NetlinkBuffer",
    "NlasIterator",
    "OffsetDateTime::parse",
    "decode",
    "decode_from_slice",
    "from_be_bytes",
    "from_bytes",
    "from_der",
    "from_le_bytes",
    "from_ne_bytes",
    "from_pem",
    "from_pem_slice",
    "from_slice",
    "from_utf8",
    "from_utf8_lossy",
    "from_vec",
    "parse_x509_certificate",
    "parse_x509_pem",
    "pem_slice_iter",
    "read_json",
    "serde_json::from_str",
    "toml::from_str",
];

/// Files with one of these words, and the targets that give any bytes to what they decode.
const DECODERS: &[(&str, &[&str])] = &[
    ("api/src/docker/networks.rs", &["api_body"]),
    ("api/src/docker/nodes.rs", &["api_body"]),
    ("api/src/docker/services.rs", &["api_body"]),
    ("api/src/docker/swarm.rs", &["api_body"]),
    ("api/src/docker/wire/certificate.rs", &["api_text"]),
    ("api/src/filters.rs", &["api_request", "api_text"]),
    ("api/src/native.rs", &["api_body"]),
    ("api/src/native/exec.rs", &["api_body", "node_message"]),
    ("api/src/query.rs", &["api_body", "api_request"]),
    ("gossip/src/codec.rs", &["gossip_datagram", "gossip_sync"]),
    ("gossip/src/engine/vet.rs", &["gossip_engine"]),
    ("gossip/src/keyring.rs", &["gossip_engine"]),
    ("netprog/linux/src/bulk.rs", &["netlink"]),
    ("netprog/linux/src/conntrack.rs", &["netlink"]),
    ("netprog/linux/src/dns_server.rs", &["dns_question"]),
    ("netprog/linux/src/dns_server/upstream.rs", &["dns_answer"]),
    ("netprog/linux/src/drift/notice.rs", &["netlink"]),
    ("netprog/linux/src/firewalls/legacy.rs", &["netlink"]),
    ("netprog/linux/src/netlink.rs", &["netlink"]),
    ("netprog/linux/src/netlink/raw.rs", &["netlink"]),
    ("netprog/linux/src/nft/element.rs", &["netlink"]),
    ("node/src/backup.rs", &["node_backup"]),
    ("node/src/cli/cluster.rs", &["node_file"]),
    ("node/src/config.rs", &["node_file"]),
    ("node/src/daemon.rs", &["node_file"]),
    ("node/src/daemon/join.rs", &["node_message"]),
    ("node/src/disk.rs", &["node_file", "node_key_file"]),
    ("node/src/identity.rs", &["node_file"]),
    ("node/src/key_file.rs", &["node_certificate", "node_key_file"]),
    ("node/src/exec_stream.rs", &["node_message"]),
    ("node/src/log_stream.rs", &["node_message"]),
    ("node/src/logs.rs", &["node_log"]),
    ("node/src/manager/agreement.rs", &["node_message"]),
    ("node/src/manager/routes.rs", &["node_message"]),
    ("node/src/manager/why.rs", &["node_message"]),
    ("node/src/native.rs", &["node_message"]),
    ("node/src/node_routes.rs", &["node_message"]),
    ("node/src/pki.rs", &["node_certificate"]),
    ("node/src/pki/successor.rs", &["node_certificate"]),
    ("node/src/pki/tls.rs", &["node_certificate", "node_file"]),
    ("node/src/pki/token.rs", &["node_certificate"]),
    ("node/src/wire.rs", &["node_message"]),
    ("node/src/worker/session.rs", &["node_message"]),
    ("node/src/worker/shell/kept.rs", &["node_file"]),
    ("node/supervise/src/client.rs", &["node_socket"]),
    ("node/supervise/src/exec.rs", &["node_socket"]),
    ("node/supervise/src/exec/watch.rs", &["node_socket"]),
    ("node/supervise/src/logs/line.rs", &["node_log"]),
    ("node/supervise/src/server.rs", &["node_socket"]),
    ("node/supervise/src/shell.rs", &["node_socket"]),
    ("node/supervise/src/status.rs", &["node_file"]),
    ("node/supervise/src/wire.rs", &["node_socket"]),
    ("raft-store/cluster/src/assign/held.rs", &["node_file", "node_message"]),
    ("raft-store/cluster/src/exec/frame.rs", &["node_message"]),
    ("raft-store/cluster/src/frame.rs", &["node_message"]),
    (
        "raft-store/cluster/src/codec.rs",
        &["cluster_request", "cluster_snapshot", "cluster_transaction"],
    ),
    ("raft-store/cluster/src/id.rs", &["cluster_text"]),
    (
        "raft-store/cluster/src/net/per_family.rs",
        &["cluster_text", "cluster_transaction", "gossip_datagram", "gossip_sync"],
    ),
    ("raft-store/cluster/src/session/frame.rs", &["node_message"]),
    ("raft-store/src/codec.rs", &["raft_message", "raft_row"]),
    ("raft-store/src/log_store/database.rs", &["raft_row"]),
    ("raft-store/src/log_store/mark.rs", &["raft_mark"]),
    ("raft-store/src/network.rs", &["raft_message"]),
    ("raft-store/src/node.rs", &["raft_message"]),
    ("raft-store/src/snapshot/file.rs", &["raft_snapshot_file"]),
];

/// Files with one of these words that decode nothing that somebody else made, and why.
const OTHERS: &[(&str, &str)] = &[
    ("raft-store/cluster/src/laws.rs", "a test reads what it wrote"),
    ("netprog/linux/src/facts/capability.rs", "the version that nft prints"),
    ("netprog/linux/src/nft.rs", "what nft complains of, shown as text"),
    ("netprog/src/render/service/ipvs.rs", "a number made of an address"),
    ("raft-store/cluster/src/object.rs", "the number of the newest schema in the program itself"),
    ("node/src/cli/http.rs", "the client reads the answers of its own daemon"),
    ("node/src/cli/service.rs", "the client reads the answers of its own daemon"),
    ("node/supervise/src/lost.rs", "what a supervisor wrote last, shown as text"),
    ("node/src/manager/decider.rs", "what this manager's own state machine says of an entry"),
    ("node/supervise/src/probe.rs", "what a health check prints, shown as text"),
    ("node/src/transport/client.rs", "what a refusal says, shown as text"),
];

/// The text without its tests, comments and strings.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    blank_non_code(&text[..end])
}

/// Whether a word is in the code, other than where a function of that name is defined.
fn has(code: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        let called = after.starts_with('(') || after.starts_with("::");
        called && !before.ends_with(is_word) && !before.ends_with("fn ")
    })
}

/// One complaint per file that decodes and has no row, and per row without such a file.
fn unknown(decoding: &BTreeSet<String>, listed: &BTreeSet<&str>) -> Vec<String> {
    let without = decoding.iter().filter(|file| !listed.contains(file.as_str()));
    let stale = listed.iter().filter(|file| !decoding.contains(**file));
    without
        .map(|file| format!("{file} decodes: name its fuzz target in tests/tests/tidy/fuzz.rs"))
        .chain(stale.map(|file| format!("{file} no longer decodes anything")))
        .collect()
}

/// The files of the crates that decode.
fn decoding(root: &Path) -> BTreeSet<String> {
    let sources =
        ["api", "gossip", "netprog", "node", "raft-store"].map(|folder| root.join(folder));
    let mut found = BTreeSet::new();
    for file in sources.iter().flat_map(|folder| files(folder)) {
        let path = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        let is_test =
            ["/tests", "/script", "/fixture", "fuzzing"].iter().any(|mark| path.contains(mark));
        if !path.ends_with(".rs") || is_test {
            continue;
        }
        let code = code(&fs::read_to_string(&file).expect("a source file is text"));
        if WORDS.iter().any(|word| has(&code, word)) {
            found.insert(path);
        }
    }
    found
}

/// What stands between two marks, wherever it does.
fn between<'a>(text: &'a str, before: &str, after: &str) -> BTreeSet<&'a str> {
    text.split(before).skip(1).filter_map(|rest| Some(rest.split_once(after)?.0)).collect()
}

/// The targets that the last column of the section's table names.
fn documented(security: &str) -> BTreeSet<&str> {
    let section = security.split(SECTION).nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_suffix('|')?.rsplit('|').next());
    rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// Goal: no decoder that faces a peer, a client, the kernel or the disk is left out. Method: words
/// that code which decodes cannot do without, against the table.
#[test]
fn every_decoder_has_a_target() {
    let decoding = decoding(&crate::root());
    let listed = DECODERS.iter().map(|(file, _)| *file).chain(OTHERS.iter().map(|(file, _)| *file));
    let mut complaints = unknown(&decoding, &listed.collect());
    let used: BTreeSet<_> = DECODERS.iter().flat_map(|(_, targets)| *targets).copied().collect();
    let targets = fs::read_to_string(crate::root().join("tests/fuzz/src/targets.rs"));
    let targets = targets.expect("the list of targets is text");
    let targets = between(&targets, "name: \"", "\"");
    complaints.extend(
        used.symmetric_difference(&targets).map(|name| format!("{name} is no target of a decoder")),
    );
    crate::report(&complaints);
}

/// Goal: every message between nodes is in the target of messages. Method: their names, which end
/// alike.
#[test]
fn every_message_between_nodes_is_fuzzed() {
    let node = crate::root().join("node/src");
    let session = crate::root().join("raft-store/cluster/src/session.rs");
    let fuzzed = fs::read_to_string(node.join("fuzzing.rs")).expect("fuzzing.rs is text");
    let mut complaints = Vec::new();
    let mut messages = 0;
    for file in files(&node).into_iter().chain([session]) {
        let text = fs::read_to_string(&file).expect("a source file is text");
        let structs = text.lines().filter_map(|line| line.strip_prefix("pub struct "));
        for name in structs.filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next()) {
            if name.ends_with("Call") || name.ends_with("Answer") {
                messages += 1;
                // Answers to a watch have a law of their own.
                let by_itself = name == "WatchAnswer" && fuzzed.contains("watch_answer(bytes)");
                if !by_itself && !fuzzed.contains(&format!("{name}>(bytes)")) {
                    complaints.push(format!("message {name} is not in node/src/fuzzing.rs"));
                }
            }
        }
    }
    assert!(messages > 10, "found {messages} messages");
    crate::report(&complaints);
}

/// Goal: no target is forgotten: it is built, listed, run and documented. Method: the names in the
/// manifest, the list, the folder and the documentation.
#[test]
fn every_target_is_built_listed_and_documented() {
    let root = crate::root();
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("a source file is text");
    let (manifest, list) = (read("tests/fuzz/Cargo.toml"), read("tests/fuzz/src/targets.rs"));
    let security = read(SECURITY);
    let listed = between(&list, "name: \"", "\"");
    assert!(listed.len() > 20, "the list has targets: {listed:?}");
    assert_eq!(between(&manifest, "[[bin]]\nname = \"", "\""), listed, "in the manifest");
    assert_eq!(documented(&security), listed, "in {SECURITY}");
    let programs = files(&root.join("tests/fuzz/targets"));
    let mut names = BTreeSet::new();
    for program in &programs {
        let name = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(program).expect("a program is text");
        assert_eq!(between(&text, "(\"", "\""), BTreeSet::from([name.as_str()]), "{program:?}");
        names.insert(name);
    }
    assert_eq!(names.iter().map(String::as_str).collect::<BTreeSet<_>>(), listed, "programs");
}

/// Packages of a resolved workspace that have the feature.
fn open(metadata: &Value) -> Vec<&str> {
    let nodes = metadata["resolve"]["nodes"].as_array().into_iter().flatten();
    let with = nodes.filter(|node| {
        node["features"].as_array().is_some_and(|all| all.iter().any(|name| name == FEATURE))
    });
    with.filter_map(|node| node["id"].as_str()).collect()
}

/// Goal: no shipped build enables the fuzzing feature. Method: the features that cargo chooses for
/// a build of the whole workspace.
#[test]
fn no_build_of_the_workspace_enables_fuzzing() {
    let metadata = crate::metadata(&[]);
    let members = metadata["workspace_members"].as_array().map_or(0, Vec::len);
    assert!(members > 8, "cargo metadata lists the workspace");
    assert_eq!(open(&metadata), Vec::<&str>::new());
}

/// Versions by name of a lock file's packages.
fn locked(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for package in text.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let rest = package.split(&format!("\n{name} = \"")).nth(1)?;
            rest.split('"').next()
        };
        if let (Some(name), Some(version)) = (field("name"), field("version")) {
            found.entry(name).or_default().insert(version);
        }
    }
    found
}

/// One complaint per package that is fuzzed in another version than the one that is shipped.
fn other_versions(fuzzed: &str, shipped: &str) -> Vec<String> {
    let shipped = locked(shipped);
    let mut complaints = Vec::new();
    for (name, versions) in locked(fuzzed) {
        let Some(known) = shipped.get(name) else { continue };
        for version in versions.difference(known) {
            complaints.push(format!(
                "tests/fuzz/Cargo.lock has {name} {version}, Cargo.lock {known:?}: copy that one \
                 over it, then cargo metadata --manifest-path tests/fuzz/Cargo.toml"
            ));
        }
    }
    complaints
}

/// Goal: what is fuzzed is what is shipped. Method: the two lock files.
#[test]
fn the_fuzzed_packages_are_those_that_are_shipped() {
    let read = |path: &str| fs::read_to_string(crate::root().join(path)).expect("it is text");
    let fuzzed = read("tests/fuzz/Cargo.lock");
    assert!(locked(&fuzzed).contains_key("libfuzzer-sys"), "the lock file is the targets'");
    crate::report(&other_versions(&fuzzed, &read("Cargo.lock")));
}

/// What packages of the workspace need, and the lock file of the targets does not say so: cargo
/// refuses it then.
fn not_locked(fuzzed: &str, metadata: &Value) -> Vec<String> {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let mut missing = Vec::new();
    for package in list(&metadata["packages"]) {
        let name = package["name"].as_str().unwrap_or_default();
        let head = format!("name = \"{name}\"\n");
        let Some((_, entry)) = fuzzed.split_once(&head) else { continue };
        let entry = entry.split("[[package]]").next().unwrap_or_default();
        let is_needed = |of: &&Value| of["kind"] != "dev" && of["optional"] != true;
        let needed = list(&package["dependencies"]);
        let needed = needed.iter().filter(is_needed).filter_map(|of| of["name"].as_str());
        // With its version, where there are several.
        let is_locked = |of: &str| {
            [format!(" \"{of}\",\n"), format!(" \"{of} ")].iter().any(|line| entry.contains(line))
        };
        let lacking = needed.filter(|of| !is_locked(of));
        missing.extend(lacking.map(|of| format!("tests/fuzz/Cargo.lock: {name} needs {of}")));
    }
    missing
}

/// Goal: the targets are built from the lock file as it is. Method: what each member needs.
#[test]
fn the_targets_lock_what_the_workspace_needs() {
    let path = crate::root().join("tests/fuzz/Cargo.lock");
    let fuzzed = fs::read_to_string(path).expect("it is text");
    crate::report(&not_locked(&fuzzed, &crate::metadata(&["--no-deps"])));
}

#[test]
fn each_rule_can_fail() {
    let decoding = code("fn f() { serde_json::from_slice::<T>(b) }\n#[cfg(test)]\nmod tests {}");
    assert!(has(&decoding, "from_slice"));
    for text in [
        "fn decode(b: u8) {}",
        "a.extend_from_slice(b)",
        "// decode(b)",
        "decoder.x()",
        "a_decode(b)",
    ] {
        assert!(!WORDS.iter().any(|word| has(&code(text), word)), "{text}");
    }
    let found = ["a.rs", "b.rs"].map(String::from).into();
    assert_eq!(unknown(&found, &["b.rs", "c.rs"].into()).len(), 2);
    let rows = "| a | b |\n|---|---|\n| `x` | `c`, `d` |\n\n## Next\n| `e` |\n";
    let table = [SECTION, "\n", rows].concat();
    assert_eq!(documented(&table), ["c", "d"].into());
    let metadata = serde_json::json!({"resolve": {"nodes": [
        {"id": "a", "features": ["fuzzing"]},
        {"id": "b", "features": ["default"]},
    ]}});
    assert_eq!(open(&metadata), ["a"]);
    let of = |name: &str, kind: Value| serde_json::json!({"name": name, "kind": kind});
    let needed = [of("b", Value::Null), of("c", Value::Null), of("d", "dev".into())];
    let metadata = serde_json::json!({"packages": [{"name": "a", "dependencies": needed}]});
    let lock =
        "[[package]]\nname = \"a\"\ndependencies = [\n \"b\",\n]\n\n[[package]]\nname = \"c\"\n";
    assert_eq!(not_locked(lock, &metadata), ["tests/fuzz/Cargo.lock: a needs c"]);
    let lock = |version: &str| format!("[[package]]\nname = \"a\"\nversion = \"{version}\"\n");
    assert_eq!(other_versions(&lock("2"), &lock("1")).len(), 1);
    assert_eq!(other_versions(&lock("1"), &lock("1")), Vec::<String>::new());
}
