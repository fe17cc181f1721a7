//! Small objects for tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::id::{ClusterId, NetworkId, NodeId, ServiceId, TaskId};
use crate::net::{MacAddr, Subnet, Subnets, Vni};
use crate::object::{
    Attachment, Cluster, ManagerInfo, Meta, Network, Node, NodeDescription, NodeState, NodeStatus,
    Restarts, Service, Slot, Task, TaskState, TaskStatus, newest_schema,
};
use crate::spec::{ClusterSpec, NetworkSpec, NodeSpec, Role, ServiceSpec, TaskSpec};
use crate::state::State;
use crate::time::{Revision, Timestamp};
use crate::transaction::{Change, Object, Transaction};

pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

pub(crate) fn description(hostname: &str) -> NodeDescription {
    NodeDescription {
        hostname: hostname.to_owned(),
        os: "linux".to_owned(),
        architecture: "x86_64".to_owned(),
        nano_cpus: 4_000_000_000,
        memory_bytes: 8 << 30,
        engine_version: "0.1.0".to_owned(),
        gossip: SocketAddr::from(([192, 0, 2, 1], 7946)),
        vtep: IpAddr::from([192, 0, 2, 1]),
        routes: Vec::new(),
        balancer: "nft".to_owned(),
        executors: vec!["process".to_owned()],
        certificate_subject: String::new(),
        schema: newest_schema(),
        manager_address: None,
        proof_key: None,
        trust: None,
        underlay_mtu: None,
        generic_resources: Vec::new(),
    }
}

pub(crate) fn cluster() -> Cluster {
    Cluster {
        id: ClusterId(1),
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        ca_certificate: "certificate".to_owned(),
        ca_key: "key".to_owned(),
        worker_token: "SWMTKN-1-x-w".to_owned(),
        manager_token: "SWMTKN-1-x-m".to_owned(),
        gossip_keys: Vec::new(),
        address_pools: vec!["10.0.0.0/8".parse().unwrap()],
        subnet_size: 24,
        data_path_port: 4789,
        removed: std::collections::BTreeMap::new(),
        certificate_ms_max: 0,
        key_turn: crate::object::KeyTurn::Done,
        key_made_at: Timestamp(0),
        unlock_key: None,
        schema: newest_schema(),
        ca: None,
        ca_rotation: None,
    }
}

pub(crate) fn node(id: u128, hostname: &str, raft_id: Option<u64>) -> Node {
    let address = SocketAddr::from(([192, 0, 2, 1], 2377));
    Node {
        id: NodeId(id),
        meta: Meta::default(),
        spec: NodeSpec {
            role: if raft_id.is_some() { Role::Manager } else { Role::Worker },
            ..NodeSpec::default()
        },
        description: description(hostname),
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            address: String::new(),
        },
        manager: raft_id.map(|raft_id| ManagerInfo { raft_id, address }),
        ingress: None,
        key: None,
        promoting: None,
    }
}

/// `subnets` are one or two texts, of IPv4 before IPv6; the first host of each is the gateway.
pub(crate) fn network(id: u128, name: &str, subnets: &str) -> Network {
    let mut all = subnets.split(' ').map(|text| {
        let subnet: Subnet = text.parse().unwrap();
        Subnets::one(subnet, subnet.address(1).unwrap()).unwrap()
    });
    let (first, second) = (all.next().unwrap(), all.next());
    let v6 = first.v6().or(second.and_then(|subnets| subnets.v6()));
    Network {
        id: NetworkId(id),
        meta: Meta::default(),
        spec: NetworkSpec { name: name.to_owned(), ..NetworkSpec::default() },
        vni: Vni::try_from(4096 + u32::try_from(id).unwrap()).unwrap(),
        subnets: Subnets::new(first.v4(), v6).unwrap(),
        next_address: 2,
        removed: false,
    }
}

pub(crate) fn service(id: u128, name: &str) -> Service {
    Service {
        id: ServiceId(id),
        meta: Meta::default(),
        spec: ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() }.into(),
        previous_spec: None,
        spec_version: Revision(1),
        previous_spec_version: Revision(0),
        vips: BTreeMap::new(),
        ports: Vec::new(),
        update_status: None,
        removed: false,
    }
}

pub(crate) fn attachment(network: u128, address: &str) -> Attachment {
    let address: IpAddr = address.parse().unwrap();
    let (addresses, mac) = (address.into(), MacAddr::for_address(address));
    Attachment { network: NetworkId(network), addresses, mac, aliases: Vec::new() }
}

pub(crate) fn task(id: u128, service: u128, attachments: Vec<Attachment>) -> Task {
    Task {
        id: TaskId(id),
        meta: Meta::default(),
        service: ServiceId(service),
        service_name: "web".to_owned(),
        service_labels: BTreeMap::new(),
        slot: Slot::Replica(1),
        node: None,
        spec: TaskSpec::default().into(),
        spec_version: Revision(1),
        ports: Vec::new(),
        attachments,
        desired: TaskState::Running,
        status: TaskStatus {
            state: TaskState::Pending,
            at: NOW,
            message: String::new(),
            error: String::new(),
            pid: None,
            exit_code: None,
            healthy: true,
        },
        start_after: None,
        released: false,
        restarts: Restarts::default(),
        ran_at: None,
        generic_resources: Vec::new(),
    }
}

pub(crate) fn new(object: Object) -> Change {
    Change::Put { expected: None, object }
}

pub(crate) fn transaction(changes: Vec<Change>) -> Transaction {
    Transaction { at: NOW, changes, answered: Vec::new() }
}

/// A cluster of one manager with two networks, a service and a task, at revision 1.
pub(crate) fn small_state() -> State {
    let mut state = State::default();
    let objects = [
        Object::Cluster(Arc::new(cluster())),
        Object::Node(Arc::new(node(2, "a", Some(7)))),
        Object::Network(Arc::new(network(3, "web", "10.0.1.0/24"))),
        Object::Network(Arc::new(network(4, "vote", "10.0.2.0/24"))),
        Object::Service(Arc::new(service(5, "redis"))),
        Object::Task(Arc::new(task(6, 5, vec![attachment(3, "10.0.1.2")]))),
    ];
    let outcome = state.apply(Revision(1), &transaction(objects.into_iter().map(new).collect()));
    assert_eq!(outcome, crate::apply::Outcome::Applied);
    state
}
