//! Goal: the queue gives each task the node that a look at every node gives it.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::constraint::place_in_spread;
use crate::fixture::{self, NOW};
use crate::generic;
use crate::id::TaskId;
use crate::object::PublishedPort;
use crate::spec::{Availability, Protocol, PublishMode, TaskSpec};
use crate::time::Timestamp;
use crate::transaction::Object;

/// What tasks may ask of a node; number 8 is a port.
fn spec(kind: u8) -> TaskSpec {
    let spread = |label: &str| json!({ "Spread": { "SpreadDescriptor": label } });
    let zone = spread("node.labels.zone");
    let placement = match kind {
        1 => json!({ "Preferences": [zone] }),
        2 => json!({ "Preferences": [zone, spread("node.labels.rack")] }),
        3 => json!({ "Constraints": ["node.labels.zone==0"] }),
        4 => json!({ "MaxReplicas": 1 }),
        5 => json!({ "Preferences": [zone], "MaxReplicas": 2 }),
        _ => json!({}),
    };
    let gpu = json!([{ "DiscreteResourceSpec": { "Kind": "gpu", "Value": 1 } }]);
    let reserved = match kind {
        6 => json!({ "NanoCPUs": 1 }),
        7 => json!({ "GenericResources": gpu }),
        _ => json!({}),
    };
    let spec = json!({ "Placement": placement, "Resources": { "Reservations": reserved } });
    serde_json::from_value(spec).unwrap()
}

fn port() -> PublishedPort {
    PublishedPort {
        name: String::new(),
        protocol: Protocol::Tcp,
        target: 80,
        published: 80,
        mode: PublishMode::Host,
        address: None,
        ingress_ports: BTreeMap::new(),
    }
}

fn node() -> impl Strategy<Value = Node> {
    (0..3_u8, 0..3_u8, 0..8_u8, 1..4_u64, any::<bool>()).prop_map(
        |(zone, rack, availability, cpus, gpu)| {
            let mut node = fixture::node(0, "n", None);
            for (label, value) in [("zone", zone), ("rack", rack)] {
                if value < 2 {
                    node.spec.labels.insert(label.to_owned(), value.to_string());
                }
            }
            node.spec.availability = match availability {
                0 => Availability::Drain,
                1 => Availability::Pause,
                _ => Availability::Active,
            };
            node.description.nano_cpus = cpus;
            let offered = gpu.then(|| generic::parse(&["gpu=1".to_owned()]).unwrap());
            node.description.generic_resources = offered.unwrap_or_default();
            node
        },
    )
}

/// A task of one of three services and two specs of each: on one of the nodes and in some state, or
/// without a node.
type Sketch = (u128, u64, Option<u128>, u8);

fn sketch() -> impl Strategy<Value = Sketch> {
    (1..4_u128, 1..3_u64, proptest::option::weighted(0.6, 1..9_u128), 0..6_u8)
}

fn state(nodes: &[Node], kinds: &[u8], tasks: &[Sketch]) -> State {
    let mut state = State::default();
    for (id, node) in (1..).zip(nodes) {
        state.put(Object::Node(Arc::new(Node { id: NodeId(id), ..node.clone() }))).unwrap();
    }
    for (id, (service, version, node, fate)) in (1..).zip(tasks) {
        let mut task = fixture::task(id, *service, Vec::new());
        let kind = kinds[usize::try_from(*service).unwrap() * 2 - *version as usize];
        task.spec = spec(kind).into();
        task.ports = if kind == 8 { vec![port()] } else { Vec::new() };
        task.spec_version = Revision(*version);
        task.slot = Slot::Replica(id as u64);
        if let Some(node) = node {
            task.node = Some(NodeId(*node));
            task.status.state = TaskState::Running;
            match fate {
                0 | 1 => task.status.state = TaskState::Rejected,
                2 => task.desired = TaskState::Shutdown,
                3 => task.released = true,
                _ => {}
            }
            if *fate == 1 {
                task.status.at = Timestamp(0);
            }
        }
        state.put(Object::Task(Arc::new(task))).unwrap();
    }
    state
}

/// The scheduler without its indexes.
fn by_a_look_at_all(draft: &mut Draft<'_>) {
    let waits = |task: &&Arc<Task>| allocator::waits_for_node(task);
    let mut waiting: Vec<_> = draft.state().tasks.values().filter(waits).cloned().collect();
    waiting.sort_by_key(|task| (task.service, task.slot, task.id));
    for task in waiting {
        if let Some(node) = best(draft.state(), &task) {
            let given = claim(draft.state(), node, &task).unwrap_or_default();
            assign(draft, &task, node, given);
        }
    }
}

fn best(state: &State, task: &Task) -> Option<NodeId> {
    let count = |matches: &dyn Fn(&Task) -> bool| {
        state.tasks.values().filter(|task| matches(task)).count() as u64
    };
    let counts = |other: &Task| other.is_wanted() && !other.is_over();
    let over = &task.spec.terms().spread;
    let place = |node: NodeId| {
        let node = state.nodes.get(&node);
        node.map(|node| place_in_spread(over, node)).unwrap_or_default()
    };
    let fitting = state.nodes.values().filter(|node| obstacle(state, node, task).is_none());
    let ranked = fitting.map(|node| {
        let rejected = |other: &Task| {
            (other.service, other.node) == (task.service, Some(node.id))
                && other.status.state == TaskState::Rejected
                && other.spec == task.spec
                && other.status.at == NOW
        };
        let own = place(node.id);
        let spread: Vec<u64> = (1..=own.len())
            .map(|level| {
                count(&|other: &Task| {
                    let there = other.node.map(place).unwrap_or_default();
                    let same = there.get(..level) == Some(&own[..level]);
                    counts(other) && other.service == task.service && same
                })
            })
            .collect();
        let here = |other: &Task| counts(other) && other.node == Some(node.id);
        let same = count(&|other: &Task| here(other) && other.service == task.service);
        (count(&rejected), spread, same, count(&here), node.id)
    });
    ranked.min().map(|(.., node)| node)
}

proptest! {
    /// Method: random nodes with random tasks, and some that wait; each is given a node by both.
    #[test]
    fn equals_a_look_at_all_nodes(
        nodes in proptest::collection::vec(node(), 0..9),
        kinds in proptest::collection::vec(0..9_u8, 6),
        tasks in proptest::collection::vec(sketch(), 1..40),
    ) {
        let state = state(&nodes, &kinds, &tasks);
        let given = |plan: &dyn Fn(&mut Draft<'_>)| {
            let mut draft = Draft::new(&state, 1, NOW);
            plan(&mut draft);
            let placed = |(id, task): (&TaskId, &Arc<Task>)| {
                (*id, task.node, task.generic_resources.clone())
            };
            draft.state().tasks.iter().map(placed).collect::<Vec<_>>()
        };
        prop_assert_eq!(given(&run), given(&by_a_look_at_all));
    }
}
