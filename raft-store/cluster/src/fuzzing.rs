//! What fuzzing calls: each function decodes any bytes, panics where a law of a decoder breaks, and
//! says whether there was something to decode.

use std::sync::Arc;

use crate::codec;
use crate::constraint::Constraint;
use crate::fixture::{attachment, network, node, small_state, task};
use crate::id::{NodeId, RequestId, ServiceId, TaskId};
use crate::net::{MacAddr, Subnet, Subnets};
use crate::request::{Answer, Attempt, Request};
use crate::state::State;
use crate::template::Template;
use crate::time::{Revision, Timestamp};
use crate::transaction::{Answered, Change, Key, Object, Transaction};

/// A manager, two networks, a service, and a task that runs on the manager.
#[must_use]
pub fn state() -> State {
    let mut state = small_state();
    let mut placed = task(7, 5, vec![attachment(3, "10.0.1.3")]);
    placed.node = Some(NodeId(2));
    let change = crate::fixture::new(Object::Task(Arc::new(placed)));
    let answered = vec![answered()];
    let entry = Transaction { answered, ..crate::fixture::transaction(vec![change]) };
    let outcome = state.apply(Revision(2), &entry);
    assert_eq!(outcome, crate::apply::Outcome::Applied, "the fixture is consistent");
    state
}

fn answered() -> Answered {
    let answer = Arc::new(Answer::Service { id: ServiceId(10), warnings: Vec::new() });
    Answered { request: RequestId(7), answer }
}

/// A transaction; one that decodes can be applied.
pub fn transaction(bytes: &[u8]) -> bool {
    let Ok(decoded) = codec::decode_transaction(bytes) else { return false };
    let again = codec::encode_transaction(&decoded).expect("what was decoded can be encoded");
    let again = codec::decode_transaction(&again).expect("what was encoded can be decoded");
    assert_eq!(again, decoded, "a transaction changed on its way");
    for mut state in [State::default(), state()] {
        let before = state.clone();
        let outcome = state.apply(Revision(3), &decoded);
        if outcome != crate::apply::Outcome::Applied {
            assert_eq!(before.nodes, state.nodes, "a rejected transaction changed something");
            assert_eq!(before.tasks, state.tasks, "a rejected transaction changed something");
        }
    }
    true
}

/// Transactions of every kind of change.
#[must_use]
pub fn transaction_seeds() -> Vec<Vec<u8>> {
    let objects: Vec<Change> = [
        Object::Cluster(Arc::new(crate::fixture::cluster())),
        Object::Node(Arc::new(node(9, "b", None))),
        Object::Network(Arc::new(network(8, "other", "10.0.3.0/24"))),
        Object::Network(Arc::new(network(12, "six", "fd00:3::/64"))),
        Object::Network(Arc::new(network(13, "both", "10.0.4.0/24 fd00:4::/64"))),
        Object::Service(Arc::new(crate::fixture::service(10, "vote"))),
        Object::Task(Arc::new(task(11, 5, vec![attachment(3, "10.0.1.4")]))),
    ]
    .into_iter()
    .map(crate::fixture::new)
    .collect();
    let removal = Change::Remove { key: Key::Task(TaskId(7)), expected: Revision(2) };
    let each = objects.iter().cloned().chain([removal]).map(|change| vec![change]);
    (each.chain([objects.clone(), Vec::new()]))
        .filter_map(|changes| {
            let answered = vec![answered()];
            codec::encode_transaction(&Transaction { at: Timestamp(7), changes, answered }).ok()
        })
        .collect()
}

/// A snapshot.
pub fn snapshot(bytes: &[u8]) -> bool {
    let Ok(decoded) = State::read_snapshot(&mut &bytes[..]) else { return false };
    let mut again = Vec::new();
    decoded.write_snapshot(&mut again).expect("what was decoded can be encoded");
    let again = State::read_snapshot(&mut &again[..]).expect("what was encoded can be decoded");
    assert_eq!(again, decoded, "a state changed on its way");
    true
}

/// Snapshots of states.
#[must_use]
pub fn snapshot_seeds() -> Vec<Vec<u8>> {
    let of = |state: &State| {
        let mut bytes = Vec::new();
        state.write_snapshot(&mut bytes).ok()?;
        Some(bytes)
    };
    [State::default(), state()].iter().filter_map(of).collect()
}

/// A request, which is decided on a small cluster, or a reply.
pub fn request(bytes: &[u8]) -> bool {
    let request = codec::decode_request(bytes);
    let reply = codec::decode_reply(bytes);
    let found = request.is_ok() || reply.is_ok();
    if let Ok((attempt, decoded)) = request {
        let again = codec::encode_request(attempt, &decoded);
        let again = again.expect("what was decoded can be encoded");
        let again = codec::decode_request(&again).expect("what was encoded can be decoded");
        assert_eq!(again, (attempt, decoded.clone()), "a request changed on its way");
        let state = state();
        if let Ok(decision) = crate::decide(&state, &decoded, 7, Timestamp(9)) {
            // What is decided must apply to the state that it was decided on.
            let outcome = state.clone().apply(Revision(3), &decision.transaction);
            assert_eq!(outcome, crate::apply::Outcome::Applied, "{decoded:?}");
        }
    }
    if let Ok(decoded) = reply {
        let again = codec::encode_reply(&decoded).expect("what was decoded can be encoded");
        let again = codec::decode_reply(&again).expect("what was encoded can be decoded");
        assert_eq!(again, decoded, "a reply changed on its way");
    }
    found
}

/// Requests of several kinds, and replies.
#[must_use]
pub fn request_seeds() -> Vec<Vec<u8>> {
    let state = state();
    let mut requests = vec![Request::RemoveNode { id: NodeId(2), force: true }];
    for service in state.services.values() {
        let mut spec = crate::spec::ServiceSpec::clone(&service.spec);
        "copy".clone_into(&mut spec.name);
        requests.push(Request::CreateService { spec: Box::new(spec) });
        requests.push(Request::RemoveService { id: service.id });
    }
    for network in state.networks.values() {
        let mut spec = network.spec.clone();
        "copy".clone_into(&mut spec.name);
        requests.push(Request::CreateNetwork { spec: Box::new(spec) });
        requests.push(Request::RemoveNetwork { id: network.id });
    }
    let attempt = Attempt { id: RequestId(7), since: Some(Revision(2)) };
    let requests =
        requests.iter().filter_map(|request| codec::encode_request(attempt, request).ok());
    let replies = [Ok(Answer::Done), Err(crate::rejection::Rejection::not_found("node", "x"))];
    requests.chain(replies.iter().filter_map(|reply| codec::encode_reply(reply).ok())).collect()
}

/// Texts within objects: constraints, templates, ids, subnets, MAC addresses, all subnets of a
/// network. What is printed reads the same.
pub fn text(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let constraint = Constraint::parse(text);
    if let Ok(constraint) = &constraint {
        let _either = constraint.matches(&node(2, "a", None));
    }
    let id = text.parse::<NodeId>();
    if let Ok(id) = &id {
        assert_eq!(id.to_string().parse::<NodeId>().as_ref(), Ok(id), "an id changed on its way");
    }
    let subnet = text.parse::<Subnet>();
    if let Ok(subnet) = &subnet {
        let again = subnet.to_string().parse::<Subnet>();
        assert_eq!(again.as_ref().ok(), Some(subnet), "a subnet changed on its way");
        let _last = (subnet.address(u64::MAX), subnet.address(1));
    }
    let subnets = serde_json::from_str::<Subnets>(text);
    if let Ok(subnets) = &subnets {
        let again = serde_json::to_string(subnets).expect("what was decoded can be encoded");
        let again = serde_json::from_str::<Subnets>(&again).expect("and be decoded again");
        assert_eq!(&again, subnets, "subnets changed on their way");
        assert!(subnets.gateways().iter().all(|gateway| subnets.contains(gateway)));
    }
    let mac = text.parse::<MacAddr>();
    if let Ok(mac) = &mac {
        let again = mac.to_string().parse::<MacAddr>();
        assert_eq!(again.as_ref().ok(), Some(mac), "a MAC address changed on its way");
    }
    let template = text.contains("{{") && Template::parse(text).is_ok();
    let quantity = subnet.is_ok() || subnets.is_ok() || mac.is_ok();
    constraint.is_ok() || template || id.is_ok() || quantity
}

/// One text of each kind.
#[must_use]
pub fn text_seeds() -> Vec<Vec<u8>> {
    let id = NodeId(u128::MAX).to_string();
    let texts = [
        "node.labels.zone!=east",
        "node.role==worker",
        "{{.Node.Hostname}}-{{index .Service.Labels \"a\"}}",
        &id,
        "10.0.0.0/24",
        "2001:db8::/64",
        r#"{"v4":"10.0.0.1/24"}"#,
        r#"{"v4":"10.0.0.1/24","v6":"2001:db8::1/64"}"#,
        "02:42:0a:00:01:02",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
