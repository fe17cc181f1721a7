//! Goal: what one change costs does not grow with what the cluster holds.
//!
//! Method: each kind of change on a cluster and on one of ten times the size; objects that walks
//! over tables come past are counted. What an object holds for each node, such as a port that
//! every node has or the tasks of a global service, has to grow and is not asked for here.

use std::sync::Arc;

use crate::apply::Outcome;
use crate::fixture::{self, NOW};
use crate::id::{NodeId, TaskId};
use crate::object::{KeyDigest, PublishedPort, Slot, TaskState, TaskStatus};
use crate::request::{JoinNode, Request};
use crate::script::World;
use crate::spec::{Availability, Protocol, PublishMode, Role};
use crate::state::{State, passed};
use crate::time::Revision;
use crate::transaction::Object;
use crate::{decide, plan};

/// A cluster with so many more nodes, services and tasks, all of which are as they should be.
fn world(size: u128) -> World {
    let mut world = World::new();
    let mut told = String::new();
    for line in ["init a", "ready a", "join b", "ready b", "network web", "service one", "obey"] {
        world.command(line, &mut told);
    }
    assert_eq!(told, "");
    let ingress = world.state.ingress_network().map(|network| network.id.0);
    let mut put = |object| world.state.put(object).unwrap();
    for number in 1_000..1_000 + size {
        let mut node = fixture::node(number, &format!("n{number}"), None);
        node.key = Some(key(number));
        node.spec.labels.insert("zone".to_owned(), number.to_string());
        node.ingress = ingress.map(|id| fixture::attachment(id, &format!("fd00::{number}")));
        put(Object::Node(Arc::new(node)));
        let mut service = fixture::service(number, &format!("s{number}"));
        service.ports = vec![PublishedPort {
            name: String::new(),
            protocol: Protocol::Tcp,
            target: 80,
            published: 8080,
            mode: PublishMode::Host,
            address: None,
            ingress_ports: std::collections::BTreeMap::new(),
        }];
        put(Object::Service(Arc::new(service)));
        let mut task = fixture::task(number, number, Vec::new());
        (task.node, task.slot) = (Some(NodeId(number)), Slot::Replica(1));
        task.status.state = TaskState::Running;
        put(Object::Task(Arc::new(task)));
    }
    world
}

fn key(number: u128) -> KeyDigest {
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(&number.to_be_bytes());
    KeyDigest(digest)
}

fn join(number: u128) -> Request {
    Request::JoinNode(Box::new(JoinNode {
        id: NodeId(number),
        key: Some(key(number)),
        role: Role::Worker,
        availability: Availability::Active,
        description: fixture::description("new"),
        manager: None,
    }))
}

fn report(state: &State, id: TaskId, task_state: TaskState) -> Request {
    let task = &state.tasks[&id];
    let status = TaskStatus { state: task_state, ..task.status.clone() };
    Request::ReportTasks { node: task.node.unwrap(), statuses: vec![(id, status)] }
}

/// What each change came past.
fn costs(size: u128) -> Vec<(String, usize)> {
    let mut world = world(size);
    let mut found = Vec::new();
    let mut revision = 10_000;
    let mut change = |what: &str, world: &mut World, request: &Request| {
        let before = passed();
        revision += 1;
        let decision = decide(&world.state, request, revision.into(), NOW).unwrap();
        let outcome = world.state.apply(Revision(revision), &decision.transaction);
        assert!(plan(&world.state, NOW).transaction.is_empty(), "{what}");
        assert_eq!(outcome, Outcome::Applied, "{what}");
        found.push((what.to_owned(), passed() - before));
    };
    for line in [
        "service plain network=web",
        "service spread replicas=3",
        "service open publish=host:0:80",
        "service given publish=host:8080:80",
        "service bound constraint=node.labels.zone==1000",
        "service two",
        "update plain image=dir:/2 publish=host:0:80",
        "update one replicas=4",
        "rm-service two",
        "network more",
        "rm-network more",
        "drain b",
        "active b",
        "label b x=1",
        "role b manager",
        "join c",
    ] {
        let request = world.request_of(line).unwrap_or_else(|| panic!("{line}"));
        change(line, &mut world, &request);
    }
    let mut unnamed = world.request_of("service x").unwrap();
    if let Request::CreateService { spec } = &mut unnamed {
        spec.name.clear();
    }
    change("a service without a name", &mut world, &unnamed);
    change("a node joins", &mut world, &join(7));
    change("a node joins again", &mut world, &join(7));
    for state in [TaskState::Running, TaskState::Failed] {
        let request = report(&world.state, TaskId(1_000), state);
        change(&format!("a task is {state}"), &mut world, &request);
    }
    found
}

#[test]
fn a_change_costs_the_same_in_a_larger_cluster() {
    let (small, large) = (costs(10), costs(100));
    for ((what, few), (_, many)) in small.iter().zip(&large) {
        assert_eq!(few, many, "{what}: objects that were looked at among 10 and among 100");
    }
}
