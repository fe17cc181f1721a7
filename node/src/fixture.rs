//! States for tests, made by the real `decide` and `apply`.

use cluster::decide;
use cluster::id::NodeId;
use cluster::object::{GossipKey, KeyDigest, ManagerInfo, NodeDescription, NodeState};
use cluster::request::{InitCluster, JoinNode, Request};
use cluster::spec::{Availability, ClusterSpec, Role};
use cluster::state::State;
use cluster::time::{Revision, Timestamp};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn description(number: u8) -> NodeDescription {
    let address = [192, 0, 2, number].into();
    NodeDescription {
        hostname: format!("node-{number}"),
        os: "linux".into(),
        architecture: "x86_64".into(),
        nano_cpus: 1,
        memory_bytes: 1,
        engine_version: "0".into(),
        gossip: (address, 7946).into(),
        vtep: address,
        routes: vec![],
        balancer: "nft".into(),
        executors: vec!["process".into()],
        certificate_subject: String::new(),
        schema: cluster::object::newest_schema(),
        manager_address: Some((address, 2377).into()),
        proof_key: None,
        trust: None,
        underlay_mtu: None,
        generic_resources: Vec::new(),
    }
}

pub(crate) fn joining(id: NodeId, role: Role) -> JoinNode {
    let number = u8::try_from(id.0).unwrap();
    let manager = ManagerInfo { raft_id: 1, address: ([192, 0, 2, number], 2377).into() };
    JoinNode {
        id,
        key: Some(KeyDigest([number; 32])),
        role,
        availability: Availability::Active,
        description: description(number),
        manager: (role == Role::Manager).then_some(manager),
    }
}

pub(crate) fn carry_out(state: &mut State, request: &Request) {
    let decision = decide(state, request, u128::from(state.revision.0), Timestamp(0)).unwrap();
    let revision = Revision(state.revision.0 + 1);
    let outcome = state.apply(revision, &decision.transaction);
    assert_eq!(outcome, cluster::apply::Outcome::Applied);
}

/// Two ready nodes with a global service on one network.
pub(crate) fn cluster() -> State {
    let mut state = State::default();
    let founding = InitCluster {
        id: cluster::id::ClusterId(1),
        spec: ClusterSpec::default(),
        ca_certificate: String::new(),
        ca_key: String::new(),
        worker_token: "w".into(),
        manager_token: "m".into(),
        gossip_keys: vec![GossipKey { id: 1, key: [0; 32] }],
        address_pools: vec![],
        subnet_size: 0,
        data_path_port: 0,
        unlock_key: None,
        node: joining(A, Role::Manager),
    };
    carry_out(&mut state, &Request::InitCluster(Box::new(founding)));
    carry_out(&mut state, &Request::JoinNode(Box::new(joining(B, Role::Worker))));
    for id in [A, B] {
        let (message, address) = (String::new(), String::new());
        let ready = Request::SetNodeState { id, state: NodeState::Ready, message, address };
        carry_out(&mut state, &ready);
    }
    let network = serde_json::from_str(r#"{"Name":"vote","Driver":"overlay"}"#).unwrap();
    carry_out(&mut state, &Request::CreateNetwork { spec: network });
    let service = r#"{"Name":"web","Mode":{"Global":{}},"TaskTemplate":{
        "ContainerSpec":{"Image":"host","Args":["true"]},"Networks":[{"Target":"vote"}]}}"#;
    let spec = serde_json::from_str(service).unwrap();
    carry_out(&mut state, &Request::CreateService { spec });
    state
}
