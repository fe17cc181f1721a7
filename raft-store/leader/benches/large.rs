//! What one change costs the leader in a large cluster: 1,000 nodes, 10,000 services, 100,000
//! tasks on 100 networks, and 4,000 networks more where a network is created.
//!
//! `cargo bench -p leader --bench large`; sizes are arguments: `-- NODES SERVICES TASKS`.
#![allow(clippy::unwrap_used, reason = "a benchmark ends at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::apply::Outcome;
use cluster::codec::encode_transaction;
use cluster::decide::Decision;
use cluster::id::{ClusterId, NetworkId, NodeId, ServiceId, TaskId};
use cluster::net::MacAddr;
use cluster::object::{
    Node, NodeDescription, NodeState, Slot, TaskState, TaskStatus, newest_schema,
};
use cluster::request::{Answer, InitCluster, JoinNode, Request};
use cluster::session::{Digest, ReportCall, WatchCall, frame};
use cluster::spec::{ClusterSpec, NetworkSpec, Role, ServiceSpec};
use cluster::time::{Revision, Timestamp};
use cluster::transaction::{Change, Object, Transaction};
use cluster::{State, assignment_for, decide, plan};
use leader::{LEASE, Leader};
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const NETWORKS: usize = 100;
const MORE_NETWORKS: usize = 4_000;
/// Objects stored by one transaction while the cluster is made.
const BATCH: usize = 400;
/// How often a change is made for its mean.
const RUNS: u32 = 20;

fn main() {
    let given: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let [nodes, services, tasks] = given[..] else {
        let sizes = if given.is_empty() { [1_000, 10_000, 100_000] } else { panic!("give three") };
        return round(sizes);
    };
    round([nodes, services, tasks]);
}

fn round([nodes, services, tasks]: [usize; 3]) {
    let mut world = World::new();
    world.grow(nodes, services, tasks);
    let memory = resident_mib();
    world.say(&format!("{nodes} nodes, {services} services, {tasks} tasks: {memory} MiB"));
    world.timed("assignment of one node", |world, run| {
        let node = *world.state.nodes.keys().nth(run as usize).unwrap();
        assignment_for(&world.state, node).unwrap();
    });
    world.timed("when the next thing is due", |world, _| {
        assert_eq!(plan(&world.state, NOW).next_due, None);
    });
    let asked = |world: &World, name: &str| {
        cluster::plan::why(&world.state, name, NOW, &|_task| Vec::new()).unwrap().waiting.len()
    };
    world.timed("why, of a service that runs", |world, run| {
        assert_eq!(asked(world, &format!("service-{run}")), 0);
    });
    world.timed("service create, one task", |world, run| {
        world.request(&create_service(&format!("new-{run}"), "net-0", world, 1));
    });
    particular_creates(&mut world);
    world.timed("report of one task", |world, run| {
        let task = world.state.tasks.values().nth(run as usize).unwrap();
        let status = TaskStatus { healthy: !task.status.healthy, ..task.status.clone() };
        let report =
            Request::ReportTasks { node: task.node.unwrap(), statuses: vec![(task.id, status)] };
        world.request(&report);
    });
    world.timed("end of one task, replaced", |world, run| {
        let task = world.state.tasks.values().nth(1_000 + run as usize).unwrap();
        let status = TaskStatus { state: TaskState::Failed, ..task.status.clone() };
        let report =
            Request::ReportTasks { node: task.node.unwrap(), statuses: vec![(task.id, status)] };
        world.request(&report);
    });
    sessions(&mut world, nodes);
    change_of_leader(&world);
    // Last: every commit looks for a node for it.
    world.request(&homeless("homeless", "net-0", &world));
    world.timed("why, of a task that no node takes", |world, _| {
        assert_eq!(asked(world, "homeless"), 1);
    });
    let mut world = World::new();
    for number in 0..MORE_NETWORKS {
        world.request(&create_network(&format!("more-{number}")));
    }
    world.say(&format!("{MORE_NETWORKS} networks"));
    world.timed("network create", |world, run| {
        world.request(&create_network(&format!("new-{run}")));
    });
}

/// What all nodes' sessions cost the leader, and the release of a stopping task.
fn sessions(world: &mut World, nodes: usize) {
    let mut sessions = Sessions::new();
    assert_eq!(sessions.serve(&world.state), nodes);
    world.timed("all sessions, nothing changed", |world, _| {
        assert_eq!(sessions.serve(&world.state), 0);
    });
    world.timed("all sessions, one task new", |world, run| {
        world.request(&create_service(&format!("told-{run}"), "net-0", world, 1));
        assert_ne!(sessions.serve(&world.state), 0);
    });
    let mut took = Duration::ZERO;
    for run in 0..RUNS {
        let id = world.state.find_service(&format!("told-{run}")).unwrap().id;
        world.request(&Request::RemoveService { id });
        sessions.serve(&world.state);
        let task = world.state.tasks_of(id).next().unwrap();
        let (task, owner) = (task.id, task.node.unwrap());
        let network = world.state.find_network("net-0").unwrap().id;
        let on_network = world.state.nodes_on(network).map(|node| node.id);
        let last = on_network.filter(|node| *node != owner).last().unwrap();
        for node in world.state.nodes.keys().filter(|node| **node != last) {
            sessions.report(&world.state, *node);
        }
        assert!(!sessions.released(&world.state, owner).contains(&task));
        took += elapsed(|| {
            sessions.report(&world.state, last);
            assert!(sessions.released(&world.state, owner).contains(&task));
        });
    }
    world.say_mean("a stopping task is released", took);
}

/// Every node finds a new leader at once: it asks what it is to run, with all parts of its
/// assignment at hand, and tells what its kernel holds and what the node is like.
fn change_of_leader(world: &World) {
    let mut before = Sessions::new();
    before.serve(&world.state);
    let mut sessions = Sessions { leader: Leader::new(siphash), calls: before.calls };
    let take_over = elapsed(|| sessions.leader.take_over(&world.state, Duration::ZERO));
    let mut bytes = 0;
    let watches = elapsed(|| bytes = sessions.find(&world.state));
    let reports = elapsed(|| {
        for (id, node) in world.state.nodes.iter() {
            sessions.tell(&world.state, *id, Some(node.description.clone()));
        }
    });
    for (what, took) in [("take over", take_over), ("watches", watches), ("reports", reports)] {
        world.say(&format!("  {what:<30} {:>10.3} ms", took.as_secs_f64() * 1_000.0));
    }
    let all = (take_over + watches + reports).as_millis();
    let bytes = bytes / world.state.nodes.len();
    world.say(&format!("  {all} ms of a lease of {} ms, {bytes} bytes to each", LEASE.as_millis()));
}

/// The leader, and what each node asks.
struct Sessions {
    leader: Leader,
    calls: BTreeMap<NodeId, WatchCall>,
}

impl Sessions {
    fn new() -> Self {
        Self { leader: Leader::new(siphash), calls: BTreeMap::new() }
    }

    /// Answers every node whose assignment is not the one that it has; the number of them.
    fn serve(&mut self, state: &State) -> usize {
        let mut answered = 0;
        for node in state.nodes.keys() {
            let call = self.calls.entry(*node).or_insert_with(|| WatchCall {
                have: BTreeSet::new(),
                confirmed: true,
                released: BTreeSet::new(),
                schema: newest_schema(),
            });
            let now = (Duration::ZERO, NOW);
            let watched = self.leader.watch(state, *node, call, now).unwrap();
            let Some(told) = &watched.answer.told else { continue };
            call.have = told.parts.iter().map(|listed| listed.digest).collect();
            assert!(!frame::encode(watched.answer).unwrap().is_empty());
            answered += 1;
        }
        answered
    }

    /// Answers every node, which has all parts already but no manager's word for it; all bytes.
    fn find(&mut self, state: &State) -> usize {
        let mut bytes = 0;
        for (node, call) in &mut self.calls {
            call.confirmed = false;
            let watched = self.leader.watch(state, *node, call, (Duration::ZERO, NOW)).unwrap();
            assert!(watched.is_news);
            bytes +=
                frame::encode(watched.answer).unwrap().iter().map(|it| it.len()).sum::<usize>();
        }
        bytes
    }

    /// A node's kernel holds what it was told.
    fn report(&mut self, state: &State, node: NodeId) {
        self.tell(state, node, None);
    }

    fn tell(&mut self, state: &State, node: NodeId, description: Option<NodeDescription>) {
        let applied = Some(Digest::of_all(&self.calls[&node].have, siphash));
        let statuses = BTreeMap::new();
        let call = ReportCall { applied, statuses, description, restarts: false };
        self.leader.report(state, node, None, call, Duration::ZERO).unwrap();
    }

    fn released(&mut self, state: &State, node: NodeId) -> BTreeSet<TaskId> {
        let now = (Duration::ZERO, NOW);
        self.leader.watch(state, node, &self.calls[&node], now).unwrap().answer.released
    }
}

/// Services that ask for more than a task somewhere.
fn particular_creates(world: &mut World) {
    let host = json!({ "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host" });
    let ports = |port: Value| json!({ "EndpointSpec": { "Ports": [port] } });
    let placement = |placement: Value| json!({ "TaskTemplate": { "Placement": placement } });
    let bound = ["node.labels.zone==3", "node.role==worker", "node.platform.os==linux"];
    let zone = json!([{ "Spread": { "SpreadDescriptor": "node.labels.zone" } }]);
    for (what, name, asked) in [
        ("  with a published port", "open", ports(json!({ "TargetPort": 80 }))),
        ("  with a port in mode host", "host", ports(host)),
        ("  with three constraints", "bound", placement(json!({ "Constraints": bound }))),
        ("  spread over a label", "spread", placement(json!({ "Preferences": zone }))),
    ] {
        let asked: ServiceSpec = serde_json::from_value(asked).unwrap();
        world.timed(what, |world, run| {
            let mut spec = spec_on(&format!("{name}-{run}"), "net-0", world);
            spec.endpoint_spec.ports.clone_from(&asked.endpoint_spec.ports);
            spec.task_template.placement.clone_from(&asked.task_template.placement);
            world.request(&Request::CreateService { spec: Box::new(spec) });
        });
    }
}

struct World {
    state: State,
    revision: u64,
    waiting: Vec<Change>,
}

impl World {
    fn new() -> Self {
        let mut world = Self { state: State::default(), revision: 0, waiting: Vec::new() };
        world.request(&Request::InitCluster(Box::new(InitCluster {
            id: ClusterId(1),
            spec: ClusterSpec::default(),
            ca_certificate: String::new(),
            ca_key: String::new(),
            worker_token: String::new(),
            manager_token: String::new(),
            gossip_keys: Vec::new(),
            address_pools: vec!["10.0.0.0/8".parse().unwrap(), "172.16.0.0/12".parse().unwrap()],
            subnet_size: 24,
            data_path_port: 0,
            unlock_key: None,
            node: join(0),
        })));
        let id = *world.state.nodes.keys().next().unwrap();
        world.ready(id);
        world
    }

    fn ready(&mut self, id: NodeId) {
        let state = NodeState::Ready;
        let (message, address) = (String::new(), String::new());
        self.request(&Request::SetNodeState { id, state, message, address });
    }

    /// Decides, encodes and applies.
    fn request(&mut self, request: &Request) -> Answer {
        self.revision += 1;
        let seed = u128::from(self.revision) << 32;
        let Decision { transaction, answer } = decide(&self.state, request, seed, NOW).unwrap();
        encode_transaction(&transaction).unwrap();
        let outcome = self.state.apply(Revision(self.revision), &transaction);
        assert_eq!(outcome, Outcome::Applied);
        answer
    }

    fn put(&mut self, object: Object) {
        self.waiting.push(Change::Put { expected: None, object });
        if self.waiting.len() >= BATCH {
            self.store();
        }
    }

    fn store(&mut self) {
        self.revision += 1;
        let changes = std::mem::take(&mut self.waiting);
        let outcome = self.state.apply(
            Revision(self.revision),
            &Transaction { at: NOW, changes, answered: Vec::new() },
        );
        assert_eq!(outcome, Outcome::Applied);
    }

    /// Stores copies of one node, one service and its task: to decide each would take hours.
    fn grow(&mut self, nodes: usize, services: usize, tasks: usize) {
        let networks: Vec<NetworkId> =
            (0..NETWORKS).map(|number| self.network(&format!("net-{number}"), number)).collect();
        let first = Node::clone(self.state.nodes.values().next().unwrap());
        let ingress = first.ingress.clone().unwrap();
        for number in 1..nodes {
            let mut node = first.clone();
            node.id = NodeId(1_000 + number as u128);
            node.manager = None;
            node.spec.labels.insert("zone".to_owned(), (number % 10).to_string());
            let address =
                IpAddr::from((0x0A00_1000 + u32::try_from(number).unwrap()).to_be_bytes());
            node.ingress =
                Some(cluster::object::Attachment { addresses: address.into(), ..ingress.clone() });
            self.put(Object::Node(Arc::new(node)));
        }
        self.store();
        let all: Vec<NodeId> = self.state.nodes.keys().copied().collect();
        let create = create_service("template", "net-0", self, 1);
        let Answer::Service { id, .. } = self.request(&create) else { panic!("no service") };
        let template = Arc::clone(&self.state.services[&id]);
        let task = Arc::clone(self.state.tasks_of(id).next().unwrap());
        let replicas = tasks / services;
        for number in 0..services {
            let network = networks[number % NETWORKS];
            let base = 0x0A00_0000 + (u32::try_from(number % NETWORKS + 1).unwrap() << 16);
            let at =
                |host: usize| IpAddr::from((base + u32::try_from(host).unwrap()).to_be_bytes());
            let mut service = cluster::object::Service::clone(&template);
            service.id = ServiceId(1_000_000 + number as u128);
            service.spec = service_spec(&format!("service-{number}"), network, replicas).into();
            service.vips = [(network, at(0x100 + number / NETWORKS).into())].into();
            for slot in 0..replicas {
                let mut task = cluster::object::Task::clone(&task);
                let count = number * replicas + slot;
                task.id = TaskId(10_000_000 + count as u128);
                task.service = service.id;
                task.service_name.clone_from(&service.spec.name);
                task.spec = service.spec.task();
                task.slot = Slot::Replica(slot as u64 + 1);
                task.node = Some(all[count % all.len()]);
                task.status.state = TaskState::Running;
                let address = at(0x1000 + (number / NETWORKS) * replicas + slot);
                let held = &mut task.attachments[0];
                (held.network, held.addresses) = (network, address.into());
                held.mac = MacAddr::for_address(address);
                self.put(Object::Task(Arc::new(task)));
            }
            self.put(Object::Service(Arc::new(service)));
        }
        self.store();
    }

    fn network(&mut self, name: &str, number: usize) -> NetworkId {
        let subnet = format!("10.{}.0.0/16", number + 1);
        let spec = json!({"Name": name, "IPAM": {"Config": [{"Subnet": subnet}]}});
        let spec: NetworkSpec = serde_json::from_value(spec).unwrap();
        match self.request(&Request::CreateNetwork { spec: Box::new(spec) }) {
            Answer::Network { id, .. } => id,
            other => panic!("{other:?}"),
        }
    }

    fn say(&self, line: &str) {
        let mut out = std::io::stdout();
        writeln!(out, "{line}").unwrap();
    }

    fn timed(&mut self, what: &str, mut change: impl FnMut(&mut Self, u32)) {
        let took = elapsed(|| (0..RUNS).for_each(|run| change(self, run)));
        self.say_mean(what, took);
    }

    fn say_mean(&self, what: &str, took: Duration) {
        let took = took.as_secs_f64() * 1_000.0 / f64::from(RUNS);
        self.say(&format!("  {what:<30} {took:>10.3} ms"));
    }
}

#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn elapsed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

/// In the place of the daemon's SHA-256.
fn siphash(bytes: &[u8]) -> [u8; 32] {
    use std::hash::Hasher as _;

    let mut hasher = siphasher::sip::SipHasher24::new();
    hasher.write(bytes);
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&hasher.finish().to_be_bytes());
    digest
}

/// Memory of this process; pages have 4 KiB where this runs.
fn resident_mib() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() >> 8
}

fn create_network(name: &str) -> Request {
    let spec: NetworkSpec = serde_json::from_value(json!({ "Name": name })).unwrap();
    Request::CreateNetwork { spec: Box::new(spec) }
}

fn create_service(name: &str, network: &str, world: &World, replicas: usize) -> Request {
    let network = world.state.find_network(network).unwrap().id;
    Request::CreateService { spec: Box::new(service_spec(name, network, replicas)) }
}

fn spec_on(name: &str, network: &str, world: &World) -> ServiceSpec {
    service_spec(name, world.state.find_network(network).unwrap().id, 1)
}

/// A service whose one task no node can take.
fn homeless(name: &str, network: &str, world: &World) -> Request {
    let mut spec = spec_on(name, network, world);
    let placement = json!({ "Constraints": ["node.hostname==nowhere"] });
    spec.task_template.placement = serde_json::from_value(placement).unwrap();
    Request::CreateService { spec: Box::new(spec) }
}

fn service_spec(name: &str, network: NetworkId, replicas: usize) -> ServiceSpec {
    serde_json::from_value(json!({
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {"Image": "host:latest", "Command": ["/bin/true"]},
            "Networks": [{"Target": network.to_string()}],
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
        "EndpointSpec": {"Mode": "vip"},
    }))
    .unwrap()
}

fn join(number: u32) -> JoinNode {
    let description: Value = json!({
        "hostname": format!("node-{number}"),
        "os": "linux",
        "architecture": "x86_64",
        "nano_cpus": 4_000_000_000_u64,
        "memory_bytes": 8_u64 << 30,
        "engine_version": "0",
        "gossip": "192.0.2.1:7946",
        "vtep": "192.0.2.1",
        "routes": [],
        "balancer": "nft",
        "executors": ["process"],
        "schema": cluster::object::newest_schema(),
    });
    let description: NodeDescription = serde_json::from_value(description).unwrap();
    let manager =
        cluster::object::ManagerInfo { raft_id: 1, address: "192.0.2.1:2377".parse().unwrap() };
    JoinNode {
        id: NodeId(1),
        key: None,
        role: Role::Manager,
        availability: cluster::spec::Availability::Active,
        description,
        manager: Some(manager),
    }
}
