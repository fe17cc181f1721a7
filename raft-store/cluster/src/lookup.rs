//! Finds one object by what a user typed: the full id, else the exact name, else a prefix of the
//! id. Several matches are an error that says so. Objects that are being removed are not found.

use std::str::FromStr;
use std::sync::Arc;

use crate::id::{Id, TaskId, ids_with_prefix};
use crate::object::{Network, Node, Service, Task};
use crate::rejection::{Code, Rejection};
use crate::state::{State, Table};

impl State {
    /// A node by id, name or prefix of the id. Its name is the spec's or the host's.
    pub fn find_node(&self, text: &str) -> Result<&Arc<Node>, Rejection> {
        let called =
            |node: &&Arc<Node>| node.spec.name == text || node.description.hostname == text;
        let named = self.nodes.values().filter(called);
        find("node", text, &self.nodes, named, |_| true)
    }

    /// A network by id, name or prefix of the id.
    pub fn find_network(&self, text: &str) -> Result<&Arc<Network>, Rejection> {
        let named = self.network_named(text).into_iter();
        find("network", text, &self.networks, named, |network| !network.removed)
    }

    /// A service by id, name or prefix of the id.
    pub fn find_service(&self, text: &str) -> Result<&Arc<Service>, Rejection> {
        let named = self.service_named(text).into_iter();
        find("service", text, &self.services, named, |service| !service.removed)
    }

    /// A task by id, name (`<service>.<slot>.<id>`) or prefix of the id.
    pub fn find_task(&self, text: &str) -> Result<&Arc<Task>, Rejection> {
        let id = text.rsplit_once('.').and_then(|(_, id)| id.parse::<TaskId>().ok());
        let named = id.and_then(|id| self.tasks.get(&id)).filter(|task| task.name() == text);
        find("task", text, &self.tasks, named.into_iter(), |_| true)
    }
}

/// `named` are those of that name, `shown` tells whether one may be found at all.
fn find<'a, I, T>(
    kind: &str,
    text: &str,
    all: &'a Table<I, T>,
    named: impl Iterator<Item = &'a Arc<T>>,
    shown: impl Fn(&T) -> bool,
) -> Result<&'a Arc<T>, Rejection>
where
    I: Id + FromStr + From<u128>,
{
    if text.is_empty() {
        return Err(Rejection::not_found(kind, "\"\""));
    }
    let exact = text.parse().ok().and_then(|id: I| all.get(&id));
    if let Some(found) = exact.filter(|found| shown(found)) {
        return Ok(found);
    }
    let mut matches: Vec<_> = named.collect();
    let mut by = "name";
    if matches.is_empty() {
        by = "ID prefix";
        let range = ids_with_prefix(text).map(|(first, last)| I::from(first)..=I::from(last));
        let found = range.into_iter().flat_map(|range| all.range(range));
        matches = found.map(|(_, object)| object).filter(|object| shown(object)).collect();
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::fixture::{network, new, node, service, small_state, task};
    use crate::time::Revision;
    use crate::transaction::Object;

    /// Two nodes of one host name, a service whose name is a prefix of an id.
    fn state() -> crate::State {
        let mut state = small_state();
        let mut going = service(30, "going");
        going.removed = true;
        let mut gone = network(31, "gone", "10.0.7.0/24");
        gone.removed = true;
        let objects = [
            Object::Node(Arc::new(node(20, "twin", None))),
            Object::Node(Arc::new(node(21, "twin", None))),
            Object::Service(Arc::new(service(22, "0"))),
            Object::Service(Arc::new(going)),
            Object::Network(Arc::new(gone)),
            Object::Task(Arc::new(task(25, 5, Vec::new()))),
        ];
        let changes = objects.into_iter().map(new).collect();
        state.apply(Revision(2), &crate::fixture::transaction(changes));
        state
    }

    #[test]
    fn full_id_then_name_then_prefix() {
        let state = state();
        let redis = "0000000000000000000000005";
        assert_eq!(state.find_service(redis).unwrap().spec.name, "redis");
        assert_eq!(state.find_service("redis").unwrap().id.to_string(), redis);
        assert_eq!(state.find_service("0").unwrap().spec.name, "0", "a name beats a prefix");
        assert_eq!(state.find_network("web").unwrap().id.0, 3);
        assert_eq!(state.find_node("a").unwrap().id.0, 2);
        let name = state.find_task("0000000000000000000000006").unwrap().name();
        assert_eq!(state.find_task(&name).unwrap().id.0, 6);
    }

    #[test]
    fn no_match_and_several_say_so() {
        let state = state();
        let error = |result: Result<String, crate::rejection::Rejection>| {
            let rejection = result.unwrap_err();
            format!("{} {}", rejection.code.http_status(), rejection.message)
        };
        let service = |text| error(state.find_service(text).map(|found| found.id.to_string()));
        let node = |text| error(state.find_node(text).map(|found| found.id.to_string()));
        let network = |text| error(state.find_network(text).map(|found| found.id.to_string()));
        assert_eq!(service("nope"), "404 service nope not found");
        assert_eq!(service(""), "404 service \"\" not found");
        assert_eq!(service("going"), "404 service going not found");
        assert_eq!(network("gone"), "404 network gone not found");
        assert_eq!(
            node("twin"),
            "400 node twin is ambiguous (2 matches found on name): give its full ID"
        );
        assert_eq!(
            node("000"),
            "400 node 000 is ambiguous (3 matches found on ID prefix): give its full ID"
        );
    }
}
