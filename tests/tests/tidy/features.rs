//! All members of the workspace use a dependency with the same features. A member that adds some
//! would have it, and all that uses it, built again for other selections of packages: the tiers
//! select different ones.

use std::collections::BTreeMap;

use serde_json::Value;

/// One complaint per dependency that members use with different features.
fn differing(metadata: &Value) -> Vec<String> {
    let mut known: BTreeMap<String, (Vec<String>, String)> = BTreeMap::new();
    let mut complaints = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let user = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let name = dependency["name"].as_str().unwrap_or_default();
            let features = dependency["features"].as_array().into_iter().flatten();
            let mut features: Vec<String> =
                features.filter_map(|feature| feature.as_str().map(str::to_owned)).collect();
            if dependency["uses_default_features"] == Value::Bool(true) {
                features.push("default".to_owned());
            }
            features.sort();
            let new = (features.clone(), user.to_owned());
            let (before, first) = known.entry(name.to_owned()).or_insert(new);
            if *before != features {
                complaints.push(format!(
                    "{name}: {user} uses it with {features:?}, {first} with {before:?}: give the \
                     features in the workspace's Cargo.toml"
                ));
            }
        }
    }
    complaints
}

#[test]
fn members_use_a_dependency_with_the_same_features() {
    crate::report(&differing(&crate::metadata(&["--no-deps"])));
}

#[test]
fn a_member_that_adds_a_feature_is_found() {
    let user = |name: &str, features: &[&str]| {
        let used = serde_json::json!({"name": "x", "features": features});
        serde_json::json!({"name": name, "dependencies": [used]})
    };
    let of = |users: &[Value]| differing(&serde_json::json!({"packages": users})).len();
    assert_eq!(of(&[user("a", &["p", "q"]), user("b", &["q", "p"])]), 0);
    assert_eq!(of(&[user("a", &["p"]), user("b", &["p", "q"])]), 1);
    let mut whole = user("b", &["p"]);
    whole["dependencies"][0]["uses_default_features"] = Value::Bool(true);
    assert_eq!(of(&[user("a", &["p"]), whole]), 1);
}
