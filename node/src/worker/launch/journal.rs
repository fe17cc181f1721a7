//! The fields that a task's lines have in the journal, Docker's (moby `daemon/logger/journald`).

use cluster::assignment::OwnTask;
use cluster::id::TaskId;
use cluster::log_driver::Journald;

use crate::executor::HOSTNAME_CHARACTERS;

/// Fields of the task, then the labels and variables that are asked for.
pub(super) fn fields(told: &Journald, id: TaskId, own: &OwnTask) -> Vec<(String, String)> {
    let container = &own.spec.container_spec;
    let id = id.to_string();
    let short: String = id.chars().take(HOSTNAME_CHARACTERS).collect();
    let mut fields: Vec<(String, String)> = [
        ("CONTAINER_ID", short),
        ("CONTAINER_ID_FULL", id.clone()),
        ("CONTAINER_NAME", own.name.clone()),
        ("CONTAINER_TAG", told.tag.clone()),
        ("IMAGE_NAME", container.image.clone()),
        ("SYSLOG_IDENTIFIER", told.tag.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for name in &told.labels {
        let value = match name.as_str() {
            "com.docker.swarm.service.name" => Some(&own.service_name),
            "com.docker.swarm.task.id" => Some(&id),
            "com.docker.swarm.task.name" => Some(&own.name),
            name => container.labels.get(name),
        };
        fields.extend(value.map(|value| (field_name(name), value.clone())));
    }
    for name in &told.env {
        // The last of a name wins.
        let value = |entry: &&String| entry.split_once('=').is_some_and(|(key, _)| key == name);
        let entry = container.env.iter().rev().find(value);
        let value = entry.and_then(|entry| entry.split_once('='));
        fields.extend(value.map(|(_, value)| (field_name(name), value.to_owned())));
    }
    fields.retain(|(name, _)| !name.is_empty());
    fields
}

/// What a field may be named: capital letters, digits and `_`, which does not come first.
fn field_name(name: &str) -> String {
    let plain = |c: char| match c.to_ascii_uppercase() {
        c @ ('A'..='Z' | '0'..='9') => c,
        _ => '_',
    };
    name.chars().map(plain).collect::<String>().trim_start_matches('_').to_owned()
}

#[test]
fn labels_and_variables_become_fields() {
    let mut own = super::tests::own(|container| {
        container.labels.insert("com.example.tier-1".to_owned(), "front".to_owned());
        container.env = ["_MODE=a", "_MODE=b=c", "OTHER=x"].map(str::to_owned).into();
    });
    own.name = "web.1.x".to_owned();
    let words = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let told = Journald {
        tag: "t".to_owned(),
        labels: words(&["com.example.tier-1", "com.docker.swarm.service.name", "none"]),
        env: words(&["_MODE", "NONE"]),
    };
    let fields = fields(&told, TaskId(1), &own);
    let lines: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        lines,
        [
            "CONTAINER_ID=000000000000",
            "CONTAINER_ID_FULL=0000000000000000000000001",
            "CONTAINER_NAME=web.1.x",
            "CONTAINER_TAG=t",
            "IMAGE_NAME=host:latest",
            "SYSLOG_IDENTIFIER=t",
            "COM_EXAMPLE_TIER_1=front",
            "COM_DOCKER_SWARM_SERVICE_NAME=s",
            "MODE=b=c",
        ]
    );
}
