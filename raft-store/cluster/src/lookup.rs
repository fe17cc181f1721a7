//! Finds one object by what a user typed: the full id, else the exact name, else a prefix of the
//! id. Several matches are an error that says so. Objects that are being removed are not found.

use std::fmt::Display;
use std::sync::Arc;

use crate::object::{Network, Node, Service, Task};
use crate::rejection::{Code, Rejection};
use crate::state::State;

impl State {
    /// A node by id, name or prefix of the id. Its name is the spec's or the host's.
    pub fn find_node(&self, text: &str) -> Result<&Arc<Node>, Rejection> {
        let named = |node: &Node| node.spec.name == text || node.description.hostname == text;
        find("node", text, self.nodes.values(), |node| node.id, named)
    }

    /// A network by id, name or prefix of the id.
    pub fn find_network(&self, text: &str) -> Result<&Arc<Network>, Rejection> {
        let named = |network: &Network| network.spec.name == text;
        find("network", text, self.live_networks(), |network| network.id, named)
    }

    /// A service by id, name or prefix of the id.
    pub fn find_service(&self, text: &str) -> Result<&Arc<Service>, Rejection> {
        let named = |service: &Service| service.spec.name == text;
        find("service", text, self.live_services(), |service| service.id, named)
    }

    /// A task by id, name (`<service>.<slot>.<id>`) or prefix of the id.
    pub fn find_task(&self, text: &str) -> Result<&Arc<Task>, Rejection> {
        let named = |task: &Task| text.contains('.') && task.name() == text;
        find("task", text, self.tasks.values(), |task| task.id, named)
    }
}

fn find<'a, T, I: Display>(
    kind: &str,
    text: &str,
    all: impl Iterator<Item = &'a Arc<T>>,
    id: impl Fn(&T) -> I,
    named: impl Fn(&T) -> bool,
) -> Result<&'a Arc<T>, Rejection> {
    if text.is_empty() {
        return Err(Rejection::not_found(kind, "\"\""));
    }
    let mut by_name = Vec::new();
    let mut by_prefix = Vec::new();
    for object in all {
        let printed = id(object).to_string();
        if printed == text {
            return Ok(object);
        }
        if named(object) {
            by_name.push(object);
        }
        if printed.starts_with(text) {
            by_prefix.push(object);
        }
    }
    let (matches, by) =
        if by_name.is_empty() { (by_prefix, "ID prefix") } else { (by_name, "name") };
    match matches.as_slice() {
        [] => Err(Rejection::not_found(kind, text)),
        [one] => Ok(one),
        several => Err(Rejection::new(
            Code::Invalid,
            format!(
                "{kind} {text} is ambiguous ({} matches found on {by}): give its full ID",
                several.len()
            ),
        )),
    }
}
