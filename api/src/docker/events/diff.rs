//! The events between two states.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

use cluster::object::{Meta, Network, Node, Service};
use cluster::spec::{Availability, Labels, ServiceMode};
use cluster::state::State;
use cluster::time::Timestamp;
use serde_json::{Value, json};

use crate::docker::wire::node::state_name;
use crate::docker::wire::service::update_state;
use crate::filters::Filters;

/// One event of Docker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    kind: &'static str,
    action: &'static str,
    id: String,
    attributes: BTreeMap<String, String>,
    labels: Labels,
    at: Timestamp,
}

impl Event {
    /// Docker's `EventMessage`.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "Type": self.kind,
            "Action": self.action,
            "Actor": { "ID": self.id, "Attributes": self.attributes },
            "scope": "swarm",
            "time": self.at.0 / 1000,
            "timeNano": self.at.0.saturating_mul(1_000_000),
        })
    }

    /// Docker's rules: a filter that names objects of one type excludes the other types.
    pub(super) fn matches(&self, filters: &Filters) -> bool {
        let name = self.attributes.get("name").map_or("", String::as_str);
        let object = |kind: &str| {
            filters.values(kind).is_none()
                || (kind == self.kind
                    && (filters.prefix(kind, &self.id) || filters.prefix(kind, name)))
        };
        filters.exact("type", self.kind)
            && filters.exact("event", self.action)
            && filters.exact("scope", "swarm")
            && filters.labels("label", &self.labels)
            && OBJECT_FILTERS.iter().all(|kind| object(kind))
    }
}

const OBJECT_FILTERS: &[&str] = &[
    "builder",
    "config",
    "container",
    "daemon",
    "image",
    "network",
    "node",
    "plugin",
    "secret",
    "service",
    "volume",
];

/// The data of an object in an event.
trait Subject {
    const KIND: &'static str;
    /// Whether `updated_at` is a user's change.
    const TELLS_UPDATES: bool;
    fn id(&self) -> String;
    fn meta(&self) -> Meta;
    fn labels(&self) -> &Labels;
    fn name(&self) -> &str;
    /// Whether it changed from a user's point of view: objects also change for internal reasons.
    fn differs(&self, old: &Self) -> bool;
    /// Attributes whose change is reported as `<name>.old` and `<name>.new`.
    fn facts(&self) -> BTreeMap<&'static str, String>;
}

impl Subject for Service {
    const KIND: &'static str = "service";
    const TELLS_UPDATES: bool = true;
    fn id(&self) -> String {
        self.id.to_string()
    }
    fn meta(&self) -> Meta {
        self.meta
    }
    fn labels(&self) -> &Labels {
        &self.spec.labels
    }
    fn name(&self) -> &str {
        &self.spec.name
    }
    fn differs(&self, old: &Self) -> bool {
        self.spec != old.spec || self.update_status != old.update_status
    }
    fn facts(&self) -> BTreeMap<&'static str, String> {
        let mut facts =
            BTreeMap::from([("image", self.spec.task_template.container_spec.image.clone())]);
        if let ServiceMode::Replicated(replicated) = &self.spec.mode {
            facts.insert("replicas", replicated.replicas.unwrap_or(1).to_string());
        }
        if let Some(status) = &self.update_status {
            facts.insert("updatestate", update_state(status.state).to_owned());
        }
        facts
    }
}

impl Subject for Node {
    const KIND: &'static str = "node";
    const TELLS_UPDATES: bool = false;
    fn id(&self) -> String {
        self.id.to_string()
    }
    fn meta(&self) -> Meta {
        self.meta
    }
    fn labels(&self) -> &Labels {
        &self.spec.labels
    }
    fn name(&self) -> &str {
        self.name()
    }
    fn differs(&self, old: &Self) -> bool {
        self.spec != old.spec
            || self.status.state != old.status.state
            || self.role() != old.role()
            || self.description != old.description
    }
    fn facts(&self) -> BTreeMap<&'static str, String> {
        let availability = match self.spec.availability {
            Availability::Active => "active",
            Availability::Pause => "pause",
            Availability::Drain => "drain",
        };
        BTreeMap::from([
            ("state", state_name(self.status.state).to_owned()),
            ("availability", availability.to_owned()),
            ("role", self.role().name().to_owned()),
        ])
    }
}

impl Subject for Network {
    const KIND: &'static str = "network";
    const TELLS_UPDATES: bool = false;
    fn id(&self) -> String {
        self.id.to_string()
    }
    fn meta(&self) -> Meta {
        self.meta
    }
    fn labels(&self) -> &Labels {
        &self.spec.labels
    }
    fn name(&self) -> &str {
        &self.spec.name
    }
    /// The spec of a network cannot be changed, and taking addresses is no change for a user.
    fn differs(&self, _old: &Self) -> bool {
        false
    }
    fn facts(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::new()
    }
}

/// The events from one applied state to a later one, which was just applied.
pub(super) fn between(before: &State, after: &State, now: Timestamp) -> Vec<Event> {
    let mut events = Vec::new();
    changed(before.nodes.values(), after.nodes.values(), now, &mut events);
    changed(before.live_networks(), after.live_networks(), now, &mut events);
    changed(before.live_services(), after.live_services(), now, &mut events);
    events
}

/// The events in a past period that the objects still show, oldest first. The reason of the last
/// change of an object is not stored, so past updates are reported for services only, whose changes
/// come from users.
pub(super) fn past(state: &State, since: Timestamp, until: Timestamp) -> Vec<Event> {
    let mut events = Vec::new();
    told(state.nodes.values(), &mut events);
    told(state.live_networks(), &mut events);
    told(state.live_services(), &mut events);
    events.retain(|event| (since..=until).contains(&event.at));
    events.sort_by_key(|event| event.at);
    events
}

fn told<'a, T: Subject + 'a>(objects: impl Iterator<Item = &'a Arc<T>>, events: &mut Vec<Event>) {
    for object in objects {
        let meta = object.meta();
        events.push(event(object.as_ref(), "create", meta.created_at));
        if T::TELLS_UPDATES && meta.updated_at > meta.created_at {
            events.push(event(object.as_ref(), "update", meta.updated_at));
        }
    }
}

fn changed<'a, T: Subject + 'a>(
    before: impl Iterator<Item = &'a Arc<T>>,
    after: impl Iterator<Item = &'a Arc<T>>,
    now: Timestamp,
    events: &mut Vec<Event>,
) {
    let before: BTreeMap<String, &Arc<T>> = before.map(|old| (old.id(), old)).collect();
    let mut present = BTreeSet::new();
    for new in after {
        let id = new.id();
        match before.get(&id) {
            None => events.push(event(new.as_ref(), "create", new.meta().created_at)),
            Some(old) if !new.differs(old) => {}
            Some(old) => events.push(update(old.as_ref(), new.as_ref())),
        }
        present.insert(id);
    }
    for (id, old) in before {
        if !present.contains(&id) {
            events.push(event(old.as_ref(), "remove", now));
        }
    }
}

fn event<T: Subject>(object: &T, action: &'static str, at: Timestamp) -> Event {
    Event {
        kind: T::KIND,
        action,
        id: object.id(),
        attributes: BTreeMap::from([("name".to_owned(), object.name().to_owned())]),
        labels: object.labels().clone(),
        at,
    }
}

fn update<T: Subject>(old: &T, new: &T) -> Event {
    let mut event = event(new, "update", new.meta().updated_at);
    let mut tell = |fact: &str, age: &str, value: &dyn Display| {
        event.attributes.insert(format!("{fact}.{age}"), value.to_string());
    };
    let old_facts = old.facts();
    for (fact, value) in new.facts() {
        let before = old_facts.get(fact);
        if before != Some(&value) {
            if let Some(before) = before {
                tell(fact, "old", before);
            }
            tell(fact, "new", &value);
        }
    }
    event
}
