//! Published crates that are built with a local change, only as long as it is needed.

use serde_json::Value;

/// Who asks for the crate, its name, and the requirement that the change was made for.
const PATCHED: &[(&str, &str, &str)] =
    &[("openraft", "base2histogram", "^0.2.3"), ("gossip", "foca", "=2.0.0")];

/// One complaint per patch that upstream may have made superfluous, or that is not used.
fn check(metadata: &Value, patched: &[(&str, &str, &str)]) -> Vec<String> {
    let mut complaints = Vec::new();
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    for (user, name, made_for) in patched {
        let asked = packages()
            .filter(|package| package["name"] == *user)
            .flat_map(|package| package["dependencies"].as_array().into_iter().flatten())
            .find(|dependency| dependency["name"] == *name)
            .and_then(|dependency| dependency["req"].as_str());
        if asked != Some(made_for) {
            complaints.push(format!(
                "{user} asks for {name} {asked:?}, the patch is of {made_for}: see its README.md \
                 whether it can go"
            ));
        }
        let published = |package: &&Value| package["name"] == *name && !package["source"].is_null();
        for package in packages().filter(published) {
            let version = &package["version"];
            complaints.push(format!(
                "{name} {version} of the registry is built, not the patch: see its README.md \
                 whether it can go"
            ));
        }
    }
    complaints
}

/// Goal: a patch is removed once upstream is fixed. Method: the versions that cargo chooses.
#[test]
fn patches_are_used_and_of_the_version_that_is_asked_for() {
    crate::report(&check(&crate::metadata(&[]), PATCHED));
}

#[test]
fn another_version_and_an_unused_patch_are_complaints() {
    let metadata = |requirement: &str, source: Value| {
        serde_json::json!({"packages": [
            {"name": "a", "dependencies": [{"name": "b", "req": requirement}]},
            {"name": "b", "version": "1.0.1", "source": source, "dependencies": []},
        ]})
    };
    let patched = [("a", "b", "^1.0.0")];
    assert_eq!(check(&metadata("^1.0.0", Value::Null), &patched), Vec::<String>::new());
    assert_eq!(check(&metadata("^1.0.1", Value::Null), &patched).len(), 1);
    assert_eq!(check(&metadata("^1.0.0", "registry".into()), &patched).len(), 1);
}
