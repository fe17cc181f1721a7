//! What becomes of each field of a service's spec: nothing that is given is silently ignored.
//!
//! The fields are those of the Docker Engine API v1.44 (`ServiceSpec`); docs/api.md has the same
//! table for people. A field that Skein does not act on is refused where that would change
//! security, data or placement, and warned about elsewhere.

use std::sync::LazyLock;

use serde_json::Value;

use crate::rejection::{Code, Rejection};
use crate::spec::ServiceSpec;

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    Honoured,
    /// This value alone is what happens.
    Only(&'static str),
    /// Why, or what to do.
    Refused(&'static str),
    /// What happens instead.
    Warned(&'static str),
}

use Served::{Honoured, Only, Refused, Warned};

/// By path, which begins with the group's; `[]` stands for each element. What is below a path is
/// part of its field.
#[rustfmt::skip]
const FIELDS: [(&str, &[(&str, Served)]); 5] = [
    ("", &[
        ("Name", Honoured),
        ("Labels", Honoured),
        ("Mode.Replicated.Replicas", Honoured),
        ("Mode.Global", Honoured),
        ("Mode.ReplicatedJob", Refused("give Replicated or Global")),
        ("Mode.GlobalJob", Refused("give Replicated or Global")),
        ("UpdateConfig.Parallelism", Honoured),
        ("UpdateConfig.Delay", Honoured),
        ("UpdateConfig.FailureAction", Honoured),
        ("UpdateConfig.Monitor", Honoured),
        ("UpdateConfig.MaxFailureRatio", Honoured),
        ("UpdateConfig.Order", Honoured),
        ("RollbackConfig.Parallelism", Honoured),
        ("RollbackConfig.Delay", Honoured),
        ("RollbackConfig.FailureAction", Honoured),
        ("RollbackConfig.Monitor", Honoured),
        ("RollbackConfig.MaxFailureRatio", Honoured),
        ("RollbackConfig.Order", Honoured),
        ("Networks[].Target", Honoured),
        ("Networks[].Aliases", Honoured),
        ("Networks[].DriverOpts", Warned("there is none for an endpoint")),
        ("EndpointSpec.Mode", Honoured),
        ("EndpointSpec.Ports[].Name", Honoured),
        ("EndpointSpec.Ports[].Protocol", Honoured),
        ("EndpointSpec.Ports[].TargetPort", Honoured),
        ("EndpointSpec.Ports[].PublishedPort", Honoured),
        ("EndpointSpec.Ports[].PublishMode", Honoured),
        ("EndpointSpec.Ports[].HostIP", Honoured),
    ]),
    ("TaskTemplate.", &[
        ("PluginSpec", Refused("leave it out")),
        ("NetworkAttachmentSpec", Refused("leave it out")),
        ("Resources.Limits.NanoCPUs", Honoured),
        ("Resources.Limits.MemoryBytes", Honoured),
        ("Resources.Limits.Pids", Honoured),
        ("Resources.Reservations.NanoCPUs", Honoured),
        ("Resources.Reservations.MemoryBytes", Honoured),
        ("Resources.Reservations.GenericResources", Honoured),
        ("RestartPolicy.Condition", Honoured),
        ("RestartPolicy.Delay", Honoured),
        ("RestartPolicy.MaxAttempts", Honoured),
        ("RestartPolicy.Window", Honoured),
        ("Placement.Constraints", Honoured),
        ("Placement.Preferences[].Spread.SpreadDescriptor", Honoured),
        ("Placement.MaxReplicas", Honoured),
        ("Placement.Platforms[].Architecture", Honoured),
        ("Placement.Platforms[].OS", Honoured),
        ("ForceUpdate", Honoured),
        ("Runtime", Honoured),
        ("Networks[].Target", Honoured),
        ("Networks[].Aliases", Honoured),
        ("Networks[].DriverOpts", Warned("there is none for an endpoint")),
        ("LogDriver.Name", Honoured),
        ("LogDriver.Options", Honoured),
    ]),
    ("TaskTemplate.ContainerSpec.", &[
        ("Image", Honoured),
        ("Labels", Honoured),
        ("Command", Honoured),
        ("Args", Honoured),
        ("Hostname", Honoured),
        ("Env", Honoured),
        ("Dir", Honoured),
        ("User", Honoured),
        ("Groups", Honoured),
        ("TTY", Refused("tasks have no terminals: leave it out")),
        ("OpenStdin", Honoured),
        ("ReadOnly", Honoured),
        ("StopSignal", Honoured),
        ("StopGracePeriod", Honoured),
        ("Healthcheck.Test", Honoured),
        ("Healthcheck.Interval", Honoured),
        ("Healthcheck.Timeout", Honoured),
        ("Healthcheck.Retries", Honoured),
        ("Healthcheck.StartPeriod", Honoured),
        ("Healthcheck.StartInterval", Honoured),
        ("Hosts", Honoured),
        ("DNSConfig.Nameservers", Honoured),
        ("DNSConfig.Search", Honoured),
        ("DNSConfig.Options", Honoured),
        ("Secrets", Refused("pass a file by a mount")),
        ("Configs", Refused("pass a file by a mount")),
        ("Isolation", Only("default")),
        ("Init", Honoured),
        ("Sysctls", Honoured),
        ("CapabilityAdd", Honoured),
        ("CapabilityDrop", Honoured),
        ("Ulimits[].Name", Honoured),
        ("Ulimits[].Soft", Honoured),
        ("Ulimits[].Hard", Honoured),
    ]),
    ("TaskTemplate.ContainerSpec.Privileges.", &[
        ("CredentialSpec", Refused("leave it out")),
        ("SELinuxContext", Refused("leave it out")),
        ("Seccomp.Mode", Honoured),
        ("Seccomp.Profile", Refused("leave it out, or give the mode unconfined")),
        ("AppArmor.Mode", Honoured),
        ("NoNewPrivileges", Honoured),
    ]),
    ("TaskTemplate.ContainerSpec.Mounts[].", &[
        ("Target", Honoured),
        ("Source", Honoured),
        ("Type", Honoured),
        ("ReadOnly", Honoured),
        ("Consistency", Warned("a mount is always consistent")),
        ("BindOptions.Propagation", Honoured),
        ("BindOptions.NonRecursive", Honoured),
        ("BindOptions.CreateMountpoint", Honoured),
        ("BindOptions.ReadOnlyNonRecursive", Refused("leave it out")),
        ("BindOptions.ReadOnlyForceRecursive", Refused("leave it out")),
        ("VolumeOptions.NoCopy", Honoured),
        ("VolumeOptions.Labels", Warned("volumes have no labels")),
        ("VolumeOptions.Subpath", Honoured),
        ("VolumeOptions.DriverConfig.Name", Only("local")),
        ("VolumeOptions.DriverConfig.Options", Refused("bind a path that the node has mounted")),
        ("TmpfsOptions.SizeBytes", Honoured),
        ("TmpfsOptions.Mode", Honoured),
    ]),
];

/// The same with whole paths.
static PATHS: LazyLock<Vec<(String, Served)>> = LazyLock::new(|| {
    let whole = |(group, fields): &(&str, &[(&str, Served)])| {
        fields.iter().map(|(name, served)| (format!("{group}{name}"), *served)).collect::<Vec<_>>()
    };
    FIELDS.iter().flat_map(whole).collect()
});

/// Refuses what is not served and matters; what the user should know of the rest.
pub(super) fn check(spec: &ServiceSpec) -> Result<Vec<String>, Rejection> {
    let json = serde_json::to_value(spec).unwrap_or_default();
    let mut warnings = Vec::new();
    for (path, served) in PATHS.iter() {
        let refuse = |remedy: &str| Rejection::new(Code::Unimplemented, not_served(path, remedy));
        for value in given(&json, path).into_iter().filter(|value| !is_of_a_stack(value)) {
            match served {
                Honoured => {}
                Only(known) if value.as_str() == Some(*known) => {}
                Only(known) => return Err(refuse(&format!("give {known}, not {value}"))),
                Refused(remedy) => return Err(refuse(remedy)),
                Warned(instead) => warnings.push(not_served(path, instead)),
            }
        }
    }
    unknown(&json, "", &mut warnings);
    warnings.dedup();
    Ok(warnings)
}

fn not_served(path: &str, words: &str) -> String {
    format!("{path} is not supported: {words}")
}

/// Whether these are labels that `docker stack deploy` puts on everything.
fn is_of_a_stack(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.keys().all(|key| key.starts_with("com.docker.stack.")))
}

/// Whether a client that sends all fields would send it.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
    }
}

/// The values at a path that say something.
fn given<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in path.split('.') {
        let (name, each) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
        found = found.into_iter().filter_map(|value| value.get(name)).collect();
        if each {
            found = found.into_iter().filter_map(Value::as_array).flatten().collect();
        }
    }
    found.retain(|value| !is_empty(value));
    found
}

/// Warns about fields that Docker does not have either.
fn unknown(value: &Value, path: &str, warnings: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter().filter(|(_, value)| !is_empty(value)) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match PATHS.iter().find_map(|(known, _)| relation(known, &path)) {
                    Some(Relation::Same) => {}
                    Some(Relation::Above) => unknown(value, &path, warnings),
                    None => warnings.push(not_served(&path, "the field is unknown")),
                }
            }
        }
        Value::Array(list) => {
            let path = format!("{path}[]");
            list.iter().for_each(|value| unknown(value, &path, warnings));
        }
        _word => {}
    }
}

enum Relation {
    Same,
    /// The known field is below the path.
    Above,
}

fn relation(known: &str, path: &str) -> Option<Relation> {
    match known.strip_prefix(path)? {
        "" => Some(Relation::Same),
        rest => rest.starts_with(['.', '[']).then_some(Relation::Above),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    /// The API's own fields, one a line.
    const DOCKERS: &str = include_str!("../../testdata/docker-service-fields.txt");
    const DOCS: &str = include_str!("../../../../docs/api.md");

    /// A spec with one field set.
    fn with(path: &str, value: Value) -> Value {
        let wrap = |value: Value, step: &str| match step.strip_suffix("[]") {
            Some(name) => json!({ name: [value] }),
            None => json!({ step: value }),
        };
        let mut spec = path.rsplit('.').fold(value, wrap);
        if path.starts_with("TaskTemplate.ContainerSpec.Mounts[]") {
            spec["TaskTemplate"]["ContainerSpec"]["Mounts"][0]["Type"] = json!("volume");
        }
        spec
    }

    fn said(served: Served) -> String {
        match served {
            Honoured => "honoured".to_owned(),
            Only(value) => format!("only `{value}`"),
            Refused(remedy) => format!("refused: {remedy}"),
            Warned(instead) => format!("warned: {instead}"),
        }
    }

    #[test]
    fn every_field_of_docker_is_in_the_table_and_the_docs() {
        let shown: BTreeMap<&str, &str> = (DOCS.lines())
            .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "))
            .collect();
        for (path, served) in PATHS.iter() {
            let shown = shown.get(path.as_str()).copied();
            assert_eq!(shown, Some(said(*served).as_str()), "docs/api.md: {path}");
        }
        for field in DOCKERS.lines() {
            let covers = |known: &str| {
                let rest = field.strip_prefix(known);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            assert!(PATHS.iter().any(|(known, _)| covers(known)), "{field} is not in the table");
        }
    }

    /// Goal: what the table says is what happens. Method: each field alone, with some value.
    #[test]
    fn each_field_is_treated_as_the_table_says() {
        for (path, served) in PATHS.iter().filter(|(_, served)| *served != Honoured) {
            let sample = match path.rsplit('.').next().unwrap_or_default() {
                "CapabilityAdd" | "CapabilityDrop" => json!(["NET_ADMIN"]),
                "Sysctls" | "Options" | "Labels" | "DriverOpts" => json!({ "a": "b" }),
                "Secrets" | "Configs" | "Ulimits" => json!([{ "Name": "a" }]),
                "TTY"
                | "OpenStdin"
                | "NonRecursive"
                | "ReadOnlyNonRecursive"
                | "CreateMountpoint"
                | "ReadOnlyForceRecursive" => json!(true),
                // No such mode can be read: the API refuses it.
                "ReplicatedJob" | "GlobalJob" => continue,
                _text => json!("other"),
            };
            let spec: ServiceSpec = match serde_json::from_value(with(path, sample)) {
                Ok(spec) => spec,
                Err(error) => panic!("{path}: {error}"),
            };
            match (check(&spec), served) {
                (Ok(warnings), Warned(instead)) => {
                    assert_eq!(warnings, [not_served(path, instead)]);
                }
                (Err(rejection), Refused(_) | Only(_)) => {
                    assert_eq!(rejection.code, Code::Unimplemented);
                    assert!(rejection.message.starts_with(path), "{}", rejection.message);
                }
                (other, served) => panic!("{path}: {other:?}, but {served:?}"),
            }
        }
    }

    #[test]
    fn what_says_nothing_is_not_given() {
        let spec = with(
            "TaskTemplate.ContainerSpec.Privileges",
            json!({ "CredentialSpec": null,
            "SELinuxContext": { "Disable": false, "User": "" }, "Seccomp": { "Mode": "" } }),
        );
        let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(check(&spec).unwrap(), [""; 0]);
        let labels = with(
            "TaskTemplate.ContainerSpec.Mounts[].VolumeOptions.Labels",
            json!({ "com.docker.stack.namespace": "app" }),
        );
        let spec: ServiceSpec = serde_json::from_value(labels).unwrap();
        assert_eq!(check(&spec).unwrap(), [""; 0], "what a stack's volumes have");
        let isolation = with("TaskTemplate.ContainerSpec.Isolation", json!("default"));
        let spec: ServiceSpec = serde_json::from_value(isolation).unwrap();
        assert_eq!(check(&spec).unwrap(), [""; 0]);
    }

    #[test]
    fn unknown_fields_are_told() {
        for path in [
            "Colour",
            "EndpointSpec.Colour",
            "EndpointSpec.Ports[].Colour",
            "TaskTemplate.Networks[].Colour",
            "TaskTemplate.RestartPolicy.Colour",
            "TaskTemplate.LogDriver.Colour",
            "TaskTemplate.Placement.Preferences[].Spread.Colour",
            "TaskTemplate.Placement.Platforms[].Colour",
            "TaskTemplate.ContainerSpec.Healthcheck.Colour",
            "TaskTemplate.ContainerSpec.DNSConfig.Colour",
            "TaskTemplate.ContainerSpec.Mounts[].Colour",
            "TaskTemplate.ContainerSpec.Mounts[].TmpfsOptions.Colour",
            "TaskTemplate.ContainerSpec.Ulimits[].Colour",
            "Mode.Replicated.Colour",
        ] {
            let spec: ServiceSpec = serde_json::from_value(with(path, json!("red"))).unwrap();
            let told = check(&spec).unwrap();
            assert_eq!(told, [format!("{path} is not supported: the field is unknown")]);
        }
    }
}
