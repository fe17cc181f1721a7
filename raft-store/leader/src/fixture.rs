//! States for tests, made by the real `decide` and `apply`.

use cluster::apply::Outcome;
use cluster::decide;
use cluster::id::{ClusterId, NodeId};
use cluster::object::{ManagerInfo, NodeState};
use cluster::request::{InitCluster, JoinNode, Request};
use cluster::spec::{Availability, ClusterSpec, Role};
use cluster::state::State;
use cluster::time::{Revision, Timestamp};
use serde_json::json;

pub(crate) const A: NodeId = NodeId(1);
pub(crate) const B: NodeId = NodeId(2);

/// In the place of the daemon's SHA-256.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    use std::hash::Hasher as _;

    let mut hasher = siphasher::sip::SipHasher24::new();
    hasher.write(bytes);
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&hasher.finish().to_be_bytes());
    digest
}

pub(crate) fn carry_out(state: &mut State, request: &Request) {
    assert!(try_out(state, request), "{request:?}");
}

/// False if it is refused.
pub(crate) fn try_out(state: &mut State, request: &Request) -> bool {
    let seed = u128::from(state.revision.0);
    let Ok(decision) = decide(state, request, seed, Timestamp(0)) else { return false };
    let revision = Revision(state.revision.0 + 1);
    assert_eq!(state.apply(revision, &decision.transaction), Outcome::Applied);
    true
}

pub(crate) fn joining(id: NodeId, role: Role) -> JoinNode {
    let address = format!("192.0.2.{}", id.0);
    let description = json!({
        "hostname": format!("node-{}", id.0),
        "os": "linux",
        "architecture": "x86_64",
        "nano_cpus": 1,
        "memory_bytes": 1,
        "engine_version": "0",
        "gossip": format!("{address}:7946"),
        "vtep": address,
        "routes": [],
        "balancer": "nft",
        "executors": ["process"],
        "schema": cluster::object::newest_schema(),
    });
    let manager = ManagerInfo { raft_id: 1, address: format!("{address}:2377").parse().unwrap() };
    JoinNode {
        id,
        key: None,
        role,
        availability: Availability::Active,
        description: serde_json::from_value(description).unwrap(),
        manager: (role == Role::Manager).then_some(manager),
    }
}

pub(crate) fn set_state(state: &mut State, id: NodeId, to: NodeState) {
    let (message, address) = (String::new(), String::new());
    carry_out(state, &Request::SetNodeState { id, state: to, message, address });
}

pub(crate) fn create_network(state: &mut State, name: &str) {
    let spec = json!({ "Name": name, "Driver": "overlay" });
    carry_out(state, &Request::CreateNetwork { spec: serde_json::from_value(spec).unwrap() });
}

/// A global service; `only` is the one node that it runs on.
pub(crate) fn create_service(state: &mut State, name: &str, network: &str, only: Option<NodeId>) {
    let places: Vec<String> = only.iter().map(|id| format!("node.id=={id}")).collect();
    let spec = json!({
        "Name": name,
        "Mode": { "Global": {} },
        "TaskTemplate": {
            "Placement": { "Constraints": places },
            "ContainerSpec": { "Image": "host", "Args": ["true"] },
            "Networks": [{ "Target": network }],
        },
    });
    carry_out(state, &Request::CreateService { spec: serde_json::from_value(spec).unwrap() });
}

pub(crate) fn remove_service(state: &mut State, name: &str) {
    let id = state.service_named(name).unwrap().id;
    carry_out(state, &Request::RemoveService { id });
}

/// Two ready nodes with a global service `web` on a network `vote`.
pub(crate) fn cluster() -> State {
    let mut state = State::default();
    let founding = InitCluster {
        id: ClusterId(1),
        spec: ClusterSpec::default(),
        ca_certificate: String::new(),
        ca_key: String::new(),
        worker_token: "w".into(),
        manager_token: "m".into(),
        gossip_keys: Vec::new(),
        address_pools: Vec::new(),
        subnet_size: 0,
        data_path_port: 0,
        unlock_key: None,
        node: joining(A, Role::Manager),
    };
    carry_out(&mut state, &Request::InitCluster(Box::new(founding)));
    carry_out(&mut state, &Request::JoinNode(Box::new(joining(B, Role::Worker))));
    for id in [A, B] {
        set_state(&mut state, id, NodeState::Ready);
    }
    create_network(&mut state, "vote");
    create_service(&mut state, "web", "vote", None);
    state
}
