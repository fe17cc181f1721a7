//! A client: asks one manager for networks and services, and records the answers and their times.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Error, Result};
use lab::cluster::text;
use lab::http::{Answer, over_unix_within};
use lab::wait::now;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value as Json, json};

use super::model::{Event, Operation, Outcome, Value};

/// A request that has no answer by then is open. Managers look for a leader for 10 s.
const ANSWER_MAX: Duration = Duration::from_secs(13);
/// The label that holds an object's value.
const LABEL: &str = "value";

/// Kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Made and removed by name.
    Network,
    /// And replaced where its version is the one that was read.
    Service,
}

/// An object of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) number: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Network => write!(f, "network{}", self.number),
            Kind::Service => write!(f, "service{}", self.number),
        }
    }
}

/// The answers that clients got about each object.
pub(super) type Histories = BTreeMap<Key, Vec<Event>>;

/// One client of one manager.
pub(super) struct Client {
    socket: PathBuf,
    /// No two clients give one value.
    number: u64,
    given: u64,
    choices: StdRng,
    /// Appended to the path of a read.
    query: &'static str,
    pub(super) told: Histories,
}

/// An answer that no rule of the API explains.
fn unexpected(line: &str, answer: &Answer) -> Error {
    anyhow::anyhow!("{line} is answered {}: {}", answer.status, answer.text())
}

impl Client {
    pub(super) fn new(socket: &Path, number: u64, seed: u64) -> Self {
        let choices = StdRng::seed_from_u64(seed ^ (number << 32));
        let socket = socket.to_owned();
        Self { socket, number, given: 0, choices, query: "", told: Histories::new() }
    }

    /// One that takes what its manager holds, however old it is.
    pub(super) fn reading_stale(socket: &Path, number: u64) -> Self {
        Self { query: "?consistency=stale", ..Self::new(socket, number, 0) }
    }

    /// Does something to one of `count` objects from a number on.
    pub(super) fn act(&mut self, kinds: &[Kind], first: u32, count: u32) -> Result<()> {
        let number = first + self.choices.random_range(0..count);
        let key = Key { kind: kinds[self.choices.random_range(0..kinds.len())], number };
        match (self.choices.random_range(0..10), key.kind) {
            (0..3, _) => self.read(key).map(drop),
            (3..5, _) | (5..8, Kind::Network) => self.create(key),
            (5..9, Kind::Service) => self.replace(key),
            (_, Kind::Network | Kind::Service) => self.remove(key),
        }
    }

    /// Asks, and records what came of it; `what` tells that from the answer, and from none.
    fn ask(
        &mut self,
        key: Key,
        (method, path, body): (&str, &str, &Json),
        what: impl FnOnce(Option<&Answer>) -> Option<Operation>,
    ) -> Result<()> {
        let asked = now();
        let answer = over_unix_within(ANSWER_MAX, &self.socket, method, path, body);
        let answered = now();
        let answer = match answer {
            // A manager that does not know, or cannot now: 5xx.
            Ok(answer) if answer.status < 500 => Some(answer),
            Ok(_) => None,
            Err(error) if is_unsent(&error) => return Ok(()),
            Err(_) => None,
        };
        let operation = what(answer.as_ref());
        // A body that was cut short tells nothing; any other answer has to fit.
        if operation.is_none()
            && let Some(answer) = answer.as_ref().filter(|answer| answer.status != 200)
        {
            return Err(unexpected(&format!("{method} {path}"), answer));
        }
        let event = operation.map(|operation| Event { asked, answered, operation });
        self.told.entry(key).or_default().extend(event);
        Ok(())
    }

    /// The value, version and id that it has now.
    pub(super) fn read(&mut self, key: Key) -> Result<Option<Read>> {
        let path = format!("{}{}", path(key), self.query);
        let mut seen = None;
        // A read without an answer has told nothing.
        self.ask(key, ("GET", &path, &Json::Null), |answer| {
            let answer = answer?;
            if answer.status == 200 {
                seen = Read::of(key.kind, answer).ok();
                seen.as_ref().map(|read| Operation::Read(Some(read.value)))
            } else {
                (answer.status == 404).then_some(Operation::Read(None))
            }
        })?;
        Ok(seen)
    }

    pub(super) fn create(&mut self, key: Key) -> Result<()> {
        let value = self.new_value();
        let name = key.to_string();
        let labels = json!({ LABEL: value.to_string() });
        let body = match key.kind {
            Kind::Network => json!({"Name": name, "Driver": "overlay", "Labels": labels}),
            Kind::Service => service(&name, value),
        };
        self.ask(key, ("POST", &path_of(key.kind, "create"), &body), |answer| {
            Some(Operation::Create(value, outcome(answer, 409)?))
        })
    }

    /// Reads it, and replaces what was read.
    pub(super) fn replace(&mut self, key: Key) -> Result<()> {
        let Some(Read { value: old, version, id }) = self.read(key)? else { return Ok(()) };
        let value = self.new_value();
        let path = path_of(key.kind, &format!("{id}/update?version={version}"));
        let body = service(&key.to_string(), value);
        self.ask(key, ("POST", &path, &body), |answer| {
            let outcome = outcome(answer, 409).or_else(|| outcome(answer, 404))?;
            Some(Operation::Replace(old, value, outcome))
        })
    }

    fn remove(&mut self, key: Key) -> Result<()> {
        self.ask(key, ("DELETE", &path(key), &Json::Null), |answer| {
            Some(Operation::Remove(outcome(answer, 404)?))
        })
    }

    fn new_value(&mut self) -> Value {
        self.given += 1;
        (self.number << 32) | self.given
    }
}

/// What a reader was told.
pub(super) struct Read {
    value: Value,
    version: u64,
    id: String,
}

impl Read {
    fn of(kind: Kind, answer: &Answer) -> Result<Self> {
        let told = answer.json()?;
        let (labels, id) = match kind {
            Kind::Network => (&told["Labels"], &told["Id"]),
            Kind::Service => (&told["Spec"]["Labels"], &told["ID"]),
        };
        let value = text(&labels[LABEL]).parse().context("reading the value")?;
        let version = told["Version"]["Index"].as_u64().unwrap_or_default();
        Ok(Self { value, version, id: text(id) })
    }
}

/// Nobody had listened, so nobody was asked.
fn is_unsent(error: &Error) -> bool {
    let io = error.root_cause().downcast_ref::<io::Error>();
    io.is_some_and(|io| {
        matches!(io.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    })
}

/// What came of a write; nothing for an answer that it cannot have.
fn outcome(answer: Option<&Answer>, refusal: u16) -> Option<Outcome> {
    match answer {
        None => Some(Outcome::Open),
        Some(answer) if (200..300).contains(&answer.status) => Some(Outcome::Done),
        Some(answer) => (answer.status == refusal).then_some(Outcome::Refused),
    }
}

fn path_of(kind: Kind, rest: &str) -> String {
    match kind {
        Kind::Network => format!("/networks/{rest}"),
        Kind::Service => format!("/services/{rest}"),
    }
}

fn path(key: Key) -> String {
    path_of(key.kind, &key.to_string())
}

/// A service without tasks.
fn service(name: &str, value: Value) -> Json {
    json!({
        "Name": name,
        "Labels": { LABEL: value.to_string() },
        "TaskTemplate": {"ContainerSpec": {"Image": "host", "Command": ["true"]}},
        "Mode": {"Replicated": {"Replicas": 0}},
    })
}
