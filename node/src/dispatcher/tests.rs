//! Goal: leases run out only when a node is silent, and a stopping task is released only when
//! every node concerned has it out. Method: states made by the real `decide` and `apply`.

use super::*;
use cluster::object::{GossipKey, KeyDigest, ManagerInfo, NodeDescription};
use cluster::request::{InitCluster, JoinNode, Request};
use cluster::spec::{Availability, ClusterSpec, Role};
use cluster::time::Timestamp;
use cluster::{assignment_for, decide};

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

fn digest(state: &State, node: NodeId) -> Digest {
    let mut assignment = assignment_for(state, node).unwrap();
    assignment.revision = Revision(0);
    Digest(crate::pki::digest_of(&serde_json::to_vec(&assignment).unwrap()))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn taken_over(state: &State, now: Duration) -> Dispatcher {
    let mut dispatcher = Dispatcher::default();
    dispatcher.take_over(state, now);
    dispatcher
}

#[test]
fn a_node_that_restarts_has_a_longer_lease_until_it_is_back() {
    let state = cluster();
    let mut dispatcher = taken_over(&state, ms(0));
    dispatcher.hear(B, None, ms(0));
    dispatcher.expect_restart(B, ms(0));
    // A leader that was told before it takes over does not forget it.
    dispatcher.take_over(&state, ms(10));
    dispatcher.hear(A, None, RESTART_LEASE);
    let last = RESTART_LEASE.saturating_sub(ms(1));
    assert_eq!(dispatcher.expired(&state, last), []);
    assert_eq!(dispatcher.expired(&state, RESTART_LEASE), [B]);
    dispatcher.hear(B, None, ms(4000));
    assert_eq!(dispatcher.expired(&state, ms(4000) + LEASE), [B]);
}

#[test]
fn the_leader_waits_for_a_restart_as_long_as_peers_do() {
    let address = "192.0.2.1:7946".parse().unwrap();
    let secret = gossip::ProofSecret::from_seed(&[1; 32]).unwrap();
    let peers = gossip::Config::lan(A, cluster::id::ClusterId(1), address, 1, 1, secret);
    assert_eq!(RESTART_LEASE, peers.restart_grace);
}

#[test]
fn a_silent_node_expires_and_a_new_leader_grants_a_full_lease() {
    let state = cluster();
    let lease = u64::try_from(LEASE.as_millis()).unwrap();
    let mut dispatcher = taken_over(&state, ms(1000));
    assert_eq!(dispatcher.expired(&state, ms(1000 + lease - 1)), []);
    dispatcher.hear(A, None, ms(1500));
    assert_eq!(dispatcher.expired(&state, ms(1000 + lease)), [B]);
    assert_eq!(dispatcher.next_expiry(), Some(ms(1000 + lease)));
    let fresh = taken_over(&state, ms(9000));
    assert_eq!(fresh.expired(&state, ms(9000 + lease - 1)), []);
}

#[test]
fn a_stopping_task_is_released_when_every_node_has_it_out() {
    let mut state = cluster();
    let service = *state.services.keys().next().unwrap();
    carry_out(&mut state, &Request::RemoveService { id: service });
    let on_b = state.tasks.values().find(|task| task.node == Some(B)).unwrap().id;
    let mut dispatcher = taken_over(&state, ms(0));
    for node in [A, B] {
        dispatcher.assigned(node, digest(&state, node), state.revision, ms(0));
    }
    assert_eq!(dispatcher.released(&state, B), BTreeSet::new());
    dispatcher.hear(B, Some(digest(&state, B)), ms(1));
    assert_eq!(dispatcher.released(&state, B), BTreeSet::new(), "node A balances to it too");
    assert_eq!(dispatcher.behind(&state, &state.tasks[&on_b]).collect::<Vec<_>>(), [A]);
    dispatcher.hear(A, Some(digest(&state, A)), ms(2));
    assert_eq!(dispatcher.released(&state, B), BTreeSet::from([on_b]));
}

#[test]
fn a_node_with_an_older_assignment_in_its_kernel_holds_the_release_up() {
    let before = cluster();
    let mut state = before.clone();
    let service = *state.services.keys().next().unwrap();
    carry_out(&mut state, &Request::RemoveService { id: service });
    let mut dispatcher = taken_over(&state, ms(0));
    for node in [A, B] {
        dispatcher.assigned(node, digest(&before, node), before.revision, ms(0));
        dispatcher.hear(node, Some(digest(&before, node)), ms(0));
        dispatcher.assigned(node, digest(&state, node), state.revision, ms(0));
    }
    assert_eq!(dispatcher.applied(A), Some(before.revision));
    assert_eq!(dispatcher.released(&state, B), BTreeSet::new());
}

/// Goal: each change is measured once per node, from its proposal, however often the node reports,
/// whatever changes meanwhile, and however quick its report is.
#[test]
fn a_change_is_measured_from_its_proposal_until_a_kernel_holds_it() {
    let state = cluster();
    let mut dispatcher = taken_over(&state, ms(0));
    let [none, first, second, third] = [0, 1, 2, 3].map(|number| Digest([number; 32]));
    let at = |number: u64| Revision(state.revision.0 + number);
    let tell = |dispatcher: &mut Dispatcher, digest, number, proposed| {
        dispatcher.proposing(ms(proposed));
        dispatcher.proposed(at(number));
        dispatcher.assigned(B, digest, at(number), ms(proposed + 10));
    };
    let no_time: Vec<Duration> = Vec::new();
    dispatcher.assigned(B, none, state.revision, ms(0));
    assert_eq!(dispatcher.hear(B, Some(none), ms(10)), no_time, "its proposal is not known");
    tell(&mut dispatcher, first, 1, 100);
    tell(&mut dispatcher, second, 2, 120);
    assert_eq!(dispatcher.hear(B, Some(none), ms(140)), no_time);
    assert_eq!(dispatcher.hear(B, Some(first), ms(160)), [ms(60)]);
    assert_eq!(dispatcher.hear(B, Some(first), ms(170)), no_time, "it is no news");
    tell(&mut dispatcher, third, 3, 180);
    assert_eq!(dispatcher.hear(B, Some(third), ms(200)), [ms(80), ms(20)]);
    tell(&mut dispatcher, third, 4, 300);
    assert_eq!(
        dispatcher.hear(B, Some(third), ms(320)),
        no_time,
        "it changed nothing for the node"
    );
    // The report comes before the leader's loop hears that the entry was applied.
    dispatcher.proposing(ms(400));
    dispatcher.assigned(B, first, at(5), ms(401));
    assert_eq!(dispatcher.hear(B, Some(first), ms(405)), [ms(5)]);
}

#[test]
fn what_is_remembered_to_measure_changes_has_limits() {
    let state = cluster();
    let mut dispatcher = taken_over(&state, ms(0));
    let digest = |number: usize| Digest([u8::try_from(number).unwrap(); 32]);
    let at = |number: usize| Revision(state.revision.0 + u64::try_from(number).unwrap());
    let changes = PENDING_MAX + 3;
    for number in 0..=changes {
        dispatcher.proposing(ms(100));
        dispatcher.proposed(at(number));
        dispatcher.assigned(B, digest(number), at(number), ms(100));
    }
    assert_eq!(dispatcher.hear(B, Some(digest(changes)), ms(150)), [ms(50); PENDING_MAX]);
    dispatcher.assigned(B, digest(0), at(changes + 1), ms(200));
    for number in 1..=PROPOSALS_MAX + 1 {
        dispatcher.proposing(ms(300));
        dispatcher.proposed(at(changes + 1 + number));
    }
    let times = dispatcher.hear(B, Some(digest(0)), ms(400));
    assert_eq!(times, Vec::<Duration>::new(), "its proposal is forgotten");
}
