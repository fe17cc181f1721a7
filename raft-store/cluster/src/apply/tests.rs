use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::fixture::{attachment, network, new, node, service, small_state, task, transaction};
use crate::id::{NodeId, TaskId};
use crate::net::Addresses;
use crate::object::PublishedPort;
use crate::spec::Protocol;
use crate::time::Timestamp;

/// Applies one change at revision 2 and gives the text of the refusal, or `applied`.
fn outcome(change: Change) -> String {
    outcome_of(vec![change])
}

fn outcome_of(changes: Vec<Change>) -> String {
    let mut state = small_state();
    let before = state.clone();
    match state.apply(Revision(2), &transaction(changes)) {
        Outcome::Applied => {
            assert_ne!(state, before);
            "applied".to_owned()
        }
        Outcome::Rejected(conflict) => {
            assert_eq!(state, before, "a rejected transaction changes nothing");
            conflict.to_string()
        }
    }
}

fn with_port(id: u128, name: &str, published: u16, ingress: u16) -> Object {
    let mut service = service(id, name);
    service.ports.push(PublishedPort {
        name: String::new(),
        protocol: Protocol::Tcp,
        target: 80,
        published,
        address: None,
        mode: PublishMode::Ingress,
        ingress_ports: BTreeMap::from([(NodeId(2), ingress)]),
    });
    Object::Service(Arc::new(service))
}

#[test]
fn what_is_held_is_not_given_out_again() {
    let task_at =
        |address: &str| new(Object::Task(Arc::new(task(9, 5, vec![attachment(3, address)]))));
    assert_eq!(outcome(task_at("10.0.1.3")), "applied");
    for taken in ["10.0.1.1", "10.0.1.2"] {
        assert!(outcome(task_at(taken)).contains("has a holder"), "{taken}");
    }
    let network = |id, name, subnet| new(Object::Network(Arc::new(network(id, name, subnet))));
    assert_eq!(outcome(network(9, "new", "10.0.9.0/24")), "applied");
    assert!(outcome(network(9, "web", "10.0.9.0/24")).starts_with("name web of"));
    assert!(outcome(network(9, "new", "10.0.0.0/16")).starts_with("subnet 10.0.0.0/16 of"));
    let node = |raft_id| new(Object::Node(Arc::new(node(9, "b", raft_id))));
    assert_eq!(outcome(node(Some(8))), "applied");
    assert!(outcome(node(Some(7))).starts_with("Raft id 7 of"));
    assert!(outcome(new(Object::Service(Arc::new(service(9, "redis"))))).starts_with("name redis"));
}

/// Goal: no address of either family is given out twice. Method: objects with both, one of which
/// another object holds.
#[test]
fn each_address_of_both_families_is_held() {
    let six = |n: u16| std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n);
    let both = |id: u128, four: u8, n: u16| {
        let mut held = attachment(3, "10.0.1.1");
        held.addresses = Addresses::Both([10, 0, 1, four].into(), six(n));
        new(Object::Task(Arc::new(task(id, 5, vec![held]))))
    };
    assert_eq!(outcome_of(vec![both(8, 3, 3), both(9, 4, 4)]), "applied");
    for (four, n, taken) in [(3, 4, "10.0.1.3"), (4, 3, "fd00::3")] {
        let refused = outcome_of(vec![both(8, 3, 3), both(9, four, n)]);
        assert!(refused.starts_with(&format!("address {taken} for")), "{refused}");
    }
    let mut virtual_one = service(9, "new");
    virtual_one.vips.insert(crate::id::NetworkId(3), Addresses::V6(six(3)));
    let refused = outcome_of(vec![both(8, 3, 3), new(Object::Service(Arc::new(virtual_one)))]);
    assert!(refused.starts_with("address fd00::3 for"), "{refused}");
}

/// Goal: subnets and gateways of both families are given out once. Method: a network with both, and
/// others that share something with one of them; what it held is free when it goes.
#[test]
fn each_subnet_of_both_families_is_held() {
    let with = |id, name, subnets| new(Object::Network(Arc::new(network(id, name, subnets))));
    let mut state = small_state();
    let before = state.index.clone();
    let held = transaction(vec![with(8, "a", "10.0.8.0/24 fd00::/64")]);
    assert_eq!(state.apply(Revision(2), &held), Outcome::Applied);
    let then = |change| match state.clone().apply(Revision(3), &transaction(vec![change])) {
        Outcome::Applied => "applied".to_owned(),
        Outcome::Rejected(conflict) => conflict.to_string(),
    };
    assert_eq!(then(with(9, "b", "10.0.9.0/24 fd00:0:0:1::/64")), "applied");
    for (subnets, taken) in [
        ("10.0.0.0/16 fd00:0:0:1::/64", "10.0.0.0/16"),
        ("10.0.9.0/24 fd00::/48", "fd00::/48"),
        ("fd00::5:0/112", "fd00::5:0/112"),
    ] {
        let refused = then(with(9, "b", subnets));
        assert!(refused.starts_with(&format!("subnet {taken} of")), "{refused}");
    }
    for gateway in ["10.0.8.1", "fd00::1"] {
        let refused = then(new(Object::Task(Arc::new(task(7, 5, vec![attachment(8, gateway)])))));
        assert!(refused.starts_with(&format!("address {gateway} for")), "{refused}");
    }
    let key = Key::Network(crate::id::NetworkId(8));
    let removal = transaction(vec![Change::Remove { key, expected: Revision(2) }]);
    assert_eq!(state.apply(Revision(3), &removal), Outcome::Applied);
    assert_eq!(state.index, before);
}

#[test]
fn one_vni_is_not_given_out_twice_even_while_its_network_goes() {
    let mut state = small_state();
    let mut going = (*state.networks[&crate::id::NetworkId(3)]).clone();
    going.removed = true;
    let going =
        Change::Put { expected: Some(Revision(1)), object: Object::Network(Arc::new(going)) };
    assert_eq!(state.apply(Revision(2), &transaction(vec![going])), Outcome::Applied);
    let mut second = network(9, "web", "10.0.1.0/24");
    let same_name = new(Object::Network(Arc::new(second.clone())));
    assert_eq!(state.clone().apply(Revision(3), &transaction(vec![same_name])), Outcome::Applied);
    second.vni = network(3, "web", "10.0.1.0/24").vni;
    let same_vni = new(Object::Network(Arc::new(second)));
    let Outcome::Rejected(conflict) = state.apply(Revision(3), &transaction(vec![same_vni])) else {
        panic!("the VNI is still in use on nodes")
    };
    assert!(conflict.to_string().starts_with("VNI 4099 of"), "{conflict}");
}

#[test]
fn ports_are_given_once() {
    let two = vec![new(with_port(8, "a", 80, 6000)), new(with_port(9, "b", 81, 6000))];
    assert_eq!(outcome_of(two), "applied", "ingress ports belong to a service's own VIP");
    let two = vec![new(with_port(8, "a", 80, 6000)), new(with_port(9, "b", 80, 6001))];
    assert!(outcome_of(two).starts_with("port 80/tcp of"));
    let Object::Service(mut service) = with_port(8, "a", 80, 6000) else { unreachable!() };
    let mut second = service.ports[0].clone();
    second.published = 81;
    Arc::make_mut(&mut service).ports.push(second);
    assert!(outcome(new(Object::Service(service))).starts_with("ingress port 6000 of"));
}

#[test]
fn an_address_moves_within_one_transaction() {
    let moved = vec![
        Change::Remove { key: Key::Task(TaskId(6)), expected: Revision(1) },
        new(Object::Task(Arc::new(task(9, 5, vec![attachment(3, "10.0.1.2")])))),
    ];
    assert_eq!(outcome_of(moved), "applied");
}

#[test]
fn races_are_lost_whole() {
    let again = || Object::Task(Arc::new(task(6, 5, Vec::new())));
    let put = |expected| Change::Put { expected, object: again() };
    assert_eq!(outcome(put(Some(Revision(1)))), "applied");
    assert!(outcome(put(None)).contains("is at version Some(Revision(1))"));
    assert!(outcome(put(Some(Revision(9)))).contains("decided on Some(Revision(9))"));
    let remove =
        |id, revision| Change::Remove { key: Key::Task(TaskId(id)), expected: Revision(revision) };
    assert!(outcome(remove(6, 2)).contains("decided on"));
    assert!(outcome(remove(7, 1)).contains("is at version None"));
    assert!(outcome_of(vec![remove(6, 1), remove(6, 1)]).contains("twice"));
    let cluster = Change::Remove { key: Key::Cluster, expected: Revision(1) };
    assert!(outcome(cluster).contains("cannot be removed"));
}

#[test]
fn meta_is_set_here() {
    let mut state = small_state();
    let put = Change::Put {
        expected: Some(Revision(1)),
        object: Object::Task(Arc::new(task(6, 5, Vec::new()))),
    };
    let at = Timestamp(1_800_000_000_000);
    let entry = crate::transaction::Transaction { at, ..crate::fixture::transaction(vec![put]) };
    assert_eq!(state.apply(Revision(40), &entry), Outcome::Applied);
    let meta = state.tasks[&TaskId(6)].meta;
    let expected = Meta { version: Revision(40), created_at: crate::fixture::NOW, updated_at: at };
    assert_eq!((meta, state.revision), (expected, Revision(40)));
    let change = new(Object::Task(Arc::new(task(7, 5, Vec::new()))));
    let entry = crate::fixture::transaction(vec![change]);
    let replayed = state.apply(Revision(40), &entry);
    assert!(matches!(replayed, Outcome::Rejected(Conflict::NotNewer { .. })));
}
