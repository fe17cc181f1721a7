//! The laws of the cluster plane, on random requests and random transactions.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use crate::apply::Outcome;
use crate::assign::{Held, Parts, assignment_for};
use crate::assignment::Assignment;
use crate::codec::{decode_request, decode_transaction, encode_request, encode_transaction};
use crate::decide::{Added, Batch, decide};
use crate::fixture;
use crate::generic::GenericResource;
use crate::id::{NetworkId, NodeId, RequestId};
use crate::invariant;
use crate::net::{Addresses, Subnets};
use crate::object::{Attachment, Meta, PublishedPort, Service, Slot, Task, TaskState};
use crate::plan::{self, Cause, Why};
use crate::request::{Attempt, Request};
use crate::script::World;
use crate::session::Told;
use crate::spec::{Protocol, PublishMode, Replicated, ServiceMode};
use crate::state::State;
use crate::time::Revision;
use crate::transaction::{Change, Key, Object, Transaction};

/// One line of a story. Names come from a small pool, so that requests meet each other.
fn command() -> impl Strategy<Value = String> {
    let service = prop_oneof![Just("one"), Just("two"), Just("three")];
    let network = prop_oneof![Just("tiny"), Just("wide")];
    let node = prop_oneof![Just("a"), Just("b"), Just("c")];
    let word = prop_oneof![
        (0..6_u8).prop_map(|n| format!("replicas={n}")),
        Just("global".to_owned()),
        Just("network=tiny".to_owned()),
        Just("network=wide".to_owned()),
        Just("dnsrr".to_owned()),
        (0..4_u8).prop_map(|n| format!("image=dir:/{n}")),
        (80..83_u16).prop_map(|port| format!("publish={port}:80")),
        Just("publish=80".to_owned()),
        Just("publish=host:81:81".to_owned()),
        Just("order=start-first".to_owned()),
        Just("on-failure=rollback".to_owned()),
        Just("on-failure=continue".to_owned()),
        (0..3_u8).prop_map(|n| format!("parallelism={n}")),
        Just("delay=0".to_owned()),
        Just("restart=none".to_owned()),
        Just("restart=on-failure".to_owned()),
        Just("attempts=2".to_owned()),
        Just("max=1".to_owned()),
        (1..3_u8).prop_map(|n| format!("reserve=gpu={n}")),
        (1..3_u8).prop_map(|n| format!("reserve=ssd={n}")),
        Just("constraint=node.role==worker".to_owned()),
        Just("constraint=node.labels.x==1".to_owned()),
    ];
    let words = proptest::collection::vec(word, 0..4).prop_map(|words| words.join(" "));
    let state = prop_oneof![
        1 => Just("accepted"),
        1 => Just("preparing"),
        3 => Just("running"),
        2 => Just("failed"),
        1 => Just("complete"),
        1 => Just("rejected"),
        1 => Just("shutdown"),
    ];
    let node_verb = prop_oneof![
        3 => Just("ready"),
        1 => Just("down"),
        1 => Just("drain"),
        1 => Just("pause"),
        2 => Just("active"),
        1 => Just("leave"),
        1 => Just("rm-node"),
        1 => Just("demoted"),
        1 => Just("promoted"),
    ];
    prop_oneof![
        3 => (service.clone(), words.clone()).prop_map(|(s, w)| format!("service {s} {w}")),
        3 => (service.clone(), words).prop_map(|(s, w)| format!("update {s} {w}")),
        1 => service.clone().prop_map(|s| format!("rollback {s}")),
        1 => service.prop_map(|s| format!("rm-service {s}")),
        1 => Just("network tiny subnet=10.0.1.0/29".to_owned()),
        1 => Just("network wide".to_owned()),
        1 => network.prop_map(|n| format!("rm-network {n}")),
        3 => (node_verb, node.clone()).prop_map(|(verb, node)| format!("{verb} {node}")),
        1 => (node.clone(), 0..2_u8).prop_map(|(node, x)| format!("label {node} x={x}")),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, manager)| {
            format!("role {node} {}", if manager { "manager" } else { "worker" })
        }),
        1 => node.clone().prop_map(|node| format!("join {node} generic=gpu=x generic=ssd=3")),
        1 => (node, prop_oneof![Just("y"), Just("z")]).prop_map(|(node, gpu)| {
            format!("offer {node} generic=ssd=3 generic=gpu=x generic=gpu={gpu}")
        }),
        6 => (1..20_u8, state).prop_map(|(task, state)| format!("report t{task} {state}")),
        4 => Just("obey".to_owned()),
        3 => (0..20_000_u32).prop_map(|ms| format!("wait {ms}")),
        1 => (0..4_u8).prop_map(|limit| format!("history {limit}")),
    ]
}

fn snapshot(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.write_snapshot(&mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Goal: what is decided on a state is applied to it, keeps the invariants and leaves the
    /// planners nothing to do; the log gives the same state again; bytes give objects again.
    /// Method: random stories; the first three are asserted by the world after each command.
    #[test]
    fn stories_keep_the_laws(commands in proptest::collection::vec(command(), 1..60)) {
        let mut world = World::new();
        let mut told = String::new();
        let first = "init a generic=gpu=x generic=gpu=y generic=ssd=3";
        for line in [first, "ready a", "join b", "ready b", "network tiny subnet=10.0.1.0/29"] {
            world.command(line, &mut told);
        }
        for line in &commands {
            world.command(line, &mut told);
        }
        prop_assert_eq!(replay(&world.log), world.state.clone());
        let bytes = snapshot(&world.state);
        let restored = State::read_snapshot(&mut &bytes[..]).unwrap();
        // Kept change by change, and counted from nothing: the same.
        prop_assert_eq!(restored.digest, world.state.digest);
        prop_assert_eq!(snapshot(&restored), bytes);
        prop_assert_eq!(restored, world.state.clone());
        for (_, transaction) in &world.log {
            let bytes = encode_transaction(transaction).unwrap();
            prop_assert_eq!(&decode_transaction(&bytes).unwrap(), transaction);
        }
        for request in &world.requests {
            let attempt = Attempt { id: RequestId(1), since: None };
            let bytes = encode_request(attempt, request).unwrap();
            prop_assert_eq!(decode_request(&bytes).unwrap(), (attempt, request.clone()));
        }
        check_assignments(&world.state);
        check_counts(&world.state);
    }

    /// Goal: requests decided together are answered as they would be one after the other, give the
    /// same objects, and leave the planners nothing to do; asked again, they are answered as before
    /// and change nothing.
    /// Method: after a random story, random requests in one batch, and each in a transaction.
    #[test]
    fn a_batch_is_its_requests_one_by_one(
        story in proptest::collection::vec(command(), 0..20),
        lines in proptest::collection::vec(command(), 1..12),
    ) {
        let mut world = World::new();
        let mut told = String::new();
        for line in ["init a", "ready a", "join b", "ready b", "network tiny subnet=10.0.1.0/29"] {
            world.command(line, &mut told);
        }
        for line in &story {
            world.command(line, &mut told);
        }
        let requests: Vec<Request> =
            lines.iter().filter_map(|line| world.request_of(line)).collect();
        let mut batch = Batch::new(&world.state, world.now);
        let mut one_by_one = world.state.clone();
        let mut done = Vec::new();
        for (request, seed) in requests.iter().zip(1_000..) {
            let attempt = Some(Attempt { id: RequestId(seed), since: None });
            let Added::Decided(together) = batch.add(request, attempt, seed) else { break };
            done.extend(together.clone().ok().map(|answer| (request, attempt, answer)));
            let alone = decide(&one_by_one, request, seed, world.now);
            prop_assert_eq!(
                together.as_ref().map_err(|rejection| rejection.code),
                alone.as_ref().map(|decision| &decision.answer).map_err(|rejection| rejection.code)
            );
            if let Ok(decision) = alone {
                let revision = Revision(one_by_one.revision.0 + 1);
                prop_assert_eq!(
                    one_by_one.apply(revision, &decision.transaction),
                    Outcome::Applied
                );
            }
        }
        let mut together = world.state.clone();
        let revision = Revision(together.revision.0 + 1);
        let transaction = batch.finish();
        prop_assert_eq!(together.apply(revision, &transaction), Outcome::Applied);
        if !transaction.is_empty() {
            let mut again = Batch::new(&together, world.now);
            for (request, attempt, answer) in done {
                prop_assert_eq!(again.add(request, attempt, 5), Added::Decided(Ok(answer)));
            }
            prop_assert!(again.finish().is_empty());
        }
        prop_assert_eq!(invariant::check(&together), []);
        prop_assert_eq!(crate::plan(&together, world.now).transaction.changes, []);
        prop_assert_eq!(unversioned(&together), unversioned(&one_by_one));
    }

    /// Goal: parts that are kept from one state to the next are those made from nothing, and change
    /// with the assignments alone. A node that takes what it is told holds its assignment, is sent
    /// nothing that it has, and has the same after a restart.
    /// Method: random stories; after each command every node is told what it lacks.
    #[test]
    fn parts_follow_the_assignments(commands in proptest::collection::vec(command(), 1..40)) {
        let mut world = World::new();
        let mut output = String::new();
        let mut kept = Parts::new(hash);
        let mut held_by = BTreeMap::new();
        for line in ["init a", "ready a", "join b", "ready b", "network tiny subnet=10.0.1.0/29"]
            .into_iter()
            .chain(commands.iter().map(String::as_str))
        {
            world.command(line, &mut output);
            let mut fresh = Parts::new(hash);
            kept.follow(&world.state);
            fresh.follow(&world.state);
            for node in world.state.nodes.keys() {
                let (list, assignment) = (kept.list(*node), assignment_for(&world.state, *node));
                prop_assert_eq!(&list, &fresh.list(*node), "{}", line);
                prop_assert_eq!(list.is_some(), assignment.is_some());
                let (Some(list), Some(assignment)) = (list, assignment) else { continue };
                let before = held_by.get(node);
                let have = before.map(Held::digests).unwrap_or_default();
                let told = kept.tell(*node, &have).unwrap();
                for listed in &told.parts {
                    prop_assert_eq!(listed.bytes.is_none(), have.contains(&listed.digest));
                }
                let known = before.map(|held| {
                    Assignment { revision: world.state.revision, ..(*held.assignment).clone() }
                });
                let same = known.as_ref() == Some(&assignment);
                prop_assert_eq!(have == *list.digests, same, "{}", line);
                let held = Held::next(before, *node, told, hash).unwrap();
                prop_assert_eq!(&*held.assignment, &assignment);
                prop_assert_eq!(held.digest, list.digest);
                prop_assert_eq!(held.digests(), (*list.digests).clone());
                let whole = Held::next(None, *node, Told::whole(&assignment, hash), hash);
                prop_assert_eq!(&*whole.unwrap().assignment, &assignment);
                let file = serde_json::to_vec(&held.kept()).unwrap();
                let kept = serde_json::from_slice(&file).unwrap();
                let read = Held::restore(*node, kept, hash).unwrap();
                prop_assert_eq!((&read.assignment, read.digest), (&held.assignment, held.digest));
                held_by.insert(*node, held);
            }
        }
    }

    /// Goal: at rest everything that is not as it should be says why, in the words that clients see
    /// of pending tasks, and what falls due is what the planners will do.
    /// Method: random stories; after each command `why` of all services.
    #[test]
    fn what_waits_says_why(commands in proptest::collection::vec(command(), 1..40)) {
        let mut world = World::new();
        let mut told = String::new();
        for line in ["init a generic=gpu=x", "ready a", "join b", "ready b",
            "network tiny subnet=10.0.1.0/29"]
            .into_iter()
            .chain(commands.iter().map(String::as_str))
        {
            world.command(line, &mut told);
            let mut due = Vec::new();
            for service in world.state.services.values() {
                let why = plan::why(&world.state, &service.id.to_string(), world.now, &|_| vec![]);
                let why = why.unwrap();
                check_why(&world.state, service, &why);
                due.extend(why.next_due);
            }
            prop_assert_eq!(due.into_iter().min(), crate::plan(&world.state, world.now).next_due);
        }
    }

    /// Goal: one plan says what is due now and when there will be more: nothing is before, and then
    /// something is, or time has to pass once more.
    /// Method: random stories, also in the middle of what they entail; plans at other times.
    #[test]
    fn nothing_is_due_before_it_is_said_to_be(
        commands in proptest::collection::vec(command(), 1..40),
        part in 0..1_000_u64,
    ) {
        let mut world = World::new();
        let mut told = String::new();
        for line in ["init a", "ready a", "join b", "ready b", "network tiny subnet=10.0.1.0/29"]
            .into_iter()
            .chain(commands.iter().map(String::as_str))
        {
            world.command(line, &mut told);
            let planned = crate::plan(&world.state, world.now);
            prop_assert_eq!(&planned.transaction.changes, &[]);
            let Some(due) = planned.next_due else { continue };
            prop_assert!(due > world.now);
            let before = world.now.plus_ms((due.since_ms(world.now) - 1) * part / 1_000);
            let unchanged = crate::plan(&world.state, before);
            prop_assert_eq!(&unchanged.transaction.changes, &[]);
            prop_assert_eq!(unchanged.next_due, Some(due));
            let then = crate::plan(&world.state, due);
            let later = then.next_due.is_none_or(|next| next > due);
            prop_assert!(then.transaction.is_empty() == later, "{:?} at {:?}", then, due);
        }
    }

    /// Goal: `apply` is total and deterministic, changes nothing when it rejects, and gives nothing
    /// out twice, whatever is in the log.
    /// Method: transactions of random objects from a small pool of ids, names and addresses.
    #[test]
    fn apply_is_total(log in proptest::collection::vec(garbage(), 1..40)) {
        let mut states = [State::default(), State::default()];
        for (revision, (transaction, honest)) in (1..).map(Revision).zip(&log) {
            let before = states[0].clone();
            let honest = honest.then(|| rebased(&before, transaction));
            let transaction = honest.as_ref().unwrap_or(transaction);
            let outcomes = states.each_mut().map(|state| state.apply(revision, transaction));
            prop_assert_eq!(&outcomes[0], &outcomes[1]);
            prop_assert_eq!(invariant::check_allocations(&states[0]), []);
            if outcomes[0] != Outcome::Applied {
                prop_assert_eq!(&before, &states[0]);
            }
        }
        let [first, second] = states;
        prop_assert_eq!(first, second);
    }
}

/// Enough for tests.
fn hash(bytes: &[u8]) -> [u8; 32] {
    use std::hash::Hasher as _;

    let mut hash = [0; 32];
    for (key, part) in (0_u64..).zip(hash.chunks_mut(8)) {
        let mut hasher = siphasher::sip::SipHasher24::new_with_keys(key, 0);
        hasher.write(bytes);
        part.copy_from_slice(&hasher.finish().to_be_bytes());
    }
    hash
}

/// The objects without their versions. Which tasks of one moment are kept as history follows from
/// those, so it is left out.
fn unversioned(state: &State) -> Vec<Object> {
    let zero = Revision(0);
    let unversioned = |object: Object| match object.with_meta(Meta::default()) {
        Object::Service(service) => Object::Service(Arc::new(Service {
            spec_version: zero,
            previous_spec_version: zero,
            ..Service::clone(&service)
        })),
        Object::Task(task) => {
            Object::Task(Arc::new(Task { spec_version: zero, ..Task::clone(&task) }))
        }
        other => other,
    };
    let is_history = |object: &Object| match object {
        Object::Task(task) => task.is_over() && task.desired > TaskState::Complete,
        Object::Cluster(_) | Object::Node(_) | Object::Network(_) | Object::Service(_) => false,
    };
    state.objects().filter(|object| !is_history(object)).map(unversioned).collect()
}

fn replay(log: &[(Revision, Transaction)]) -> State {
    let mut state = State::default();
    for (revision, transaction) in log {
        assert_eq!(state.apply(*revision, transaction), Outcome::Applied);
    }
    state
}

/// A service's tasks are as they should be, or are listed with what they wait for.
fn check_why(state: &State, service: &Service, why: &Why) {
    let listed = |id| why.waiting.iter().find(|waiting| waiting.task == Some(id));
    let mut untils = Vec::new();
    for reason in why.waiting.iter().flat_map(|waiting| &waiting.reasons) {
        assert_ne!(reason.cause, Cause::Due, "the planners are at rest: {why:?}");
        untils.extend(reason.until);
    }
    assert!(why.waiting.iter().all(|waiting| !waiting.reasons.is_empty()), "{why:?}");
    assert!(why.next_due.is_none_or(|due| untils.contains(&due)), "{why:?}");
    for task in state.tasks_of(service.id) {
        let is_new = task.spec_version == service.spec_version;
        let runs = task.status.state == TaskState::Running;
        if task.is_wanted() && runs && is_new || task.status.state.is_terminal() {
            continue;
        }
        let waiting = listed(task.id).unwrap_or_else(|| panic!("{task:?} is not in {why:?}"));
        let first = &waiting.reasons[0];
        if task.is_wanted() && task.node.is_none() {
            assert!(matches!(first.cause, Cause::NoNode | Cause::NoAddress), "{why:?}");
            if first.cause == Cause::NoAddress {
                assert_eq!(first.text, task.status.error);
            }
            let nodes: usize = first.nodes.iter().map(|refused| refused.nodes).sum();
            let all = if matches!(task.slot, Slot::Node(_)) { 1 } else { state.nodes.len() };
            assert!(first.cause == Cause::NoAddress || nodes == all, "{why:?}");
        }
    }
    if why.waiting.is_empty() {
        let wanted = state.tasks_of(service.id).filter(|task| task.is_wanted()).count();
        assert_eq!(why.running, wanted, "{why:?}");
        if let ServiceMode::Replicated(Replicated { replicas, .. }) = service.spec.mode {
            assert_eq!(why.running as u64, replicas.unwrap_or(1), "{why:?}");
        }
    }
}

/// Each node learns of all its own open tasks, and of no two tasks with one address.
fn check_assignments(state: &State) {
    for (node, object) in state.nodes.iter() {
        let assignment = crate::assignment_for(state, *node);
        assert_eq!(assignment.is_none(), object.has_left(), "who left is told nothing more");
        let Some(assignment) = assignment else { continue };
        assert!(!assignment.removed.contains(node));
        assert_eq!(assignment.raft_id, object.raft().map(|place| place.raft_id));
        let mut held = BTreeMap::new();
        for (id, task) in &assignment.tasks {
            for at in &task.attachments {
                for address in at.addresses.iter() {
                    let other = held.insert((at.network, address), *id);
                    assert_eq!(other, None, "two tasks hold {address}");
                }
                assert!(assignment.networks.contains_key(&at.network));
            }
            assert!(assignment.services.contains_key(&task.service));
        }
        for task in state.tasks.values() {
            let open = task.node == Some(*node) && !task.status.state.is_terminal();
            assert_eq!(assignment.own.contains_key(&task.id), open);
            let wanted = open && task.desired <= TaskState::Running;
            assert!(!wanted || assignment.tasks.contains_key(&task.id));
        }
        let names = assignment.services.values().map(|service| &service.name);
        let mut names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "a name stands for one service");
    }
}

/// Nodes have three of a kind at all times, or none: tasks on them hold no more.
fn check_counts(state: &State) {
    let mut held: BTreeMap<_, i64> = BTreeMap::new();
    for task in state.tasks.values().filter(|task| !task.status.state.is_terminal()) {
        for resource in &task.generic_resources {
            if let GenericResource::Discrete(ssd) = resource {
                *held.entry(task.node).or_default() += ssd.value;
            }
        }
    }
    assert!(held.values().all(|count| *count <= 3), "{held:?}");
}

/// The transaction with the versions that are really there.
fn rebased(state: &State, transaction: &Transaction) -> Transaction {
    let version = |key| state.get(key).map(|object| object.meta().version);
    let changes = transaction.changes.iter().map(|change| match change {
        Change::Put { object, .. } => {
            Change::Put { expected: version(object.key()), object: object.clone() }
        }
        Change::Remove { key, expected } => {
            Change::Remove { key: *key, expected: version(*key).unwrap_or(*expected) }
        }
    });
    let (at, answered) = (transaction.at, transaction.answered.clone());
    Transaction { at, changes: changes.collect(), answered }
}

/// A transaction, and whether it is to be decided on the versions that are there.
fn garbage() -> impl Strategy<Value = (Transaction, bool)> {
    let v4 = (2..6_u8).prop_map(|n| Ipv4Addr::new(10, 0, 1, n));
    let v6 = (2..6_u16).prop_map(|n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n));
    let address = prop_oneof![
        4 => v4.clone().prop_map(Addresses::V4),
        1 => v6.clone().prop_map(Addresses::V6),
        2 => (v4, v6).prop_map(|(v4, v6)| Addresses::Both(v4, v6)),
    ];
    let id = 1..4_u128;
    let node = (id.clone(), proptest::option::of(1..3_u64))
        .prop_map(|(id, raft_id)| Object::Node(Arc::new(fixture::node(id, "n", raft_id))));
    let port =
        (1..3_u16, 1..4_u16, any::<bool>(), 0..3_u8).prop_map(|(published, ingress, host, at)| {
            PublishedPort {
                name: String::new(),
                protocol: Protocol::Tcp,
                target: 80,
                published,
                mode: if host { PublishMode::Host } else { PublishMode::Ingress },
                address: (at > 0).then_some([192, 0, 2, at].into()),
                ingress_ports: BTreeMap::from([(NodeId(1), ingress)]),
            }
        });
    let service = (
        id.clone(),
        id.clone(),
        address.clone(),
        proptest::collection::vec(port, 0..3),
        any::<bool>(),
    )
        .prop_map(|(id, name, vips, ports, removed)| {
            let mut service = fixture::service(id, &format!("s{name}"));
            service.vips.insert(NetworkId(1), vips);
            service.ports = ports;
            service.removed = removed;
            Object::Service(Arc::new(service))
        });
    let task = (id.clone(), proptest::collection::vec(address, 0..3), any::<bool>()).prop_map(
        |(id, addresses, over)| {
            let plain = fixture::attachment(1, "10.0.1.2");
            let held = addresses.into_iter();
            let held = held.map(|addresses| Attachment { addresses, ..plain.clone() });
            let mut task = fixture::task(id, 1, held.collect());
            if over {
                task.status.state = TaskState::Failed;
            }
            Object::Task(Arc::new(task))
        },
    );
    let cluster = Just(Object::Cluster(Arc::new(fixture::cluster())));
    let object = prop_oneof![1 => cluster, 2 => node, 3 => network(), 3 => service, 3 => task];
    let expected = proptest::option::of((1..12_u64).prop_map(Revision));
    let change = (object, expected, 0..20_u8).prop_map(|(object, expected, kind)| match kind {
        0..3 => Change::Remove { key: object.key(), expected: expected.unwrap_or(Revision(1)) },
        3 => Change::Remove { key: Key::Cluster, expected: Revision(1) },
        _ => Change::Put { expected, object },
    });
    let at = (0..u64::MAX).prop_map(crate::time::Timestamp);
    (at, proptest::collection::vec(change, 0..4), proptest::bool::weighted(0.8)).prop_map(
        |(at, changes, honest)| (Transaction { at, changes, answered: Vec::new() }, honest),
    )
}

/// A network with subnets that overlap those of others, of each family and of both.
fn network() -> impl Strategy<Value = Object> {
    let v4 = (0..8_u8, 22..26_u8).prop_map(|(third, length)| {
        Ipv4Net::new(Ipv4Addr::new(10, 0, third << 1, 1), length).unwrap()
    });
    let v6 = (0..8_u16, 46..50_u8).prop_map(|(third, length)| {
        Ipv6Net::new(Ipv6Addr::new(0xfd00, 0, third, 0, 0, 0, 0, 1), length).unwrap()
    });
    let subnets = prop_oneof![
        3 => v4.clone().prop_map(Subnets::V4),
        1 => v6.clone().prop_map(Subnets::V6),
        3 => (v4, v6).prop_map(|(v4, v6)| Subnets::Both(v4, v6)),
    ];
    (1..4_u128, 1..4_u8, 0..3_u32, any::<bool>(), subnets).prop_map(
        |(id, name, vni, removed, subnets)| {
            let mut network = fixture::network(id, &format!("n{name}"), "10.0.0.0/24");
            network.vni = (4096 + vni).try_into().unwrap();
            network.removed = removed;
            network.subnets = subnets;
            Object::Network(Arc::new(network))
        },
    )
}
