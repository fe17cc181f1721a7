use std::collections::BTreeMap;

use cluster::id::NodeId;
use cluster::object::KeyDigest;
use cluster::request::Request;
use cluster::spec::NodeSpec;

use cluster::state::State;

use super::*;
use crate::fixture::{carry_out, cluster as two_nodes, joining};
use crate::pki::PeerIdentity;

const CLUSTER: ClusterId = ClusterId(1);
const MANAGER: NodeId = NodeId(1);
const WORKER: NodeId = NodeId(2);
const REMOVED: NodeId = NodeId(3);
const LEFT: NodeId = NodeId(4);
/// Joined after the newest state that the callee has.
const NEWER: NodeId = NodeId(5);

fn certificate(node: NodeId, role: Role) -> PeerCertificate {
    let identity = PeerIdentity { cluster: CLUSTER, node, role };
    let key = KeyDigest([u8::try_from(node.0).expect("small"); 32]);
    PeerCertificate { identity, key, end: u64::MAX }
}

/// Two members, one that was removed, and one that left.
fn replicated() -> State {
    let mut state = two_nodes();
    for id in [REMOVED, LEFT] {
        carry_out(&mut state, &Request::JoinNode(Box::new(joining(id, Role::Worker))));
    }
    carry_out(&mut state, &Request::RemoveNode { id: REMOVED, force: true });
    carry_out(&mut state, &Request::LeaveNode { id: LEFT });
    state
}

/// A node's view: by a manager's state where `state` says so, else by a worker's assignment.
fn membership(state: bool) -> Membership {
    let replicated = replicated();
    let assignment = cluster::assignment_for(&replicated, WORKER).expect("a member's");
    Membership {
        cluster: CLUSTER,
        state: watch::channel(Arc::new(if state { replicated } else { State::default() })).1,
        assignment: watch::channel(Some(Arc::new(assignment))).1,
    }
}

/// A manager's view that has been told nothing newer.
fn by_state_alone(state: State) -> Membership {
    let state = watch::channel(Arc::new(state)).1;
    Membership { state, assignment: watch::channel(None).1, ..membership(false) }
}

/// Statuses by caller: 200 stands for being let in.
fn statuses(membership: &Membership, path: &str) -> BTreeMap<&'static str, u16> {
    let foreign = PeerCertificate {
        identity: PeerIdentity {
            cluster: ClusterId(8),
            ..certificate(MANAGER, Role::Manager).identity
        },
        ..certificate(MANAGER, Role::Manager)
    };
    let callers = [
        ("nobody", None),
        ("worker", Some(certificate(WORKER, Role::Worker))),
        ("manager", Some(certificate(MANAGER, Role::Manager))),
        // The certificate says what it was when it was signed.
        ("worker as manager", Some(certificate(WORKER, Role::Manager))),
        ("removed", Some(certificate(REMOVED, Role::Manager))),
        ("left", Some(certificate(LEFT, Role::Worker))),
        ("newer manager", Some(certificate(NEWER, Role::Manager))),
        ("newer, ended", Some(PeerCertificate { end: 1, ..certificate(NEWER, Role::Manager) })),
        // Known by its key: it may come back and renew its certificate.
        ("worker, ended", Some(PeerCertificate { end: 1, ..certificate(WORKER, Role::Worker) })),
        ("of another cluster", Some(foreign)),
    ];
    let status = |peer: Option<PeerCertificate>| {
        let judged = judge(path, peer.as_ref(), |peer| membership.standing(peer));
        judged.map_or_else(|(status, _)| status.as_u16(), |_| 200)
    };
    callers.into_iter().map(|(name, peer)| (name, status(peer))).collect()
}

#[test]
fn every_route_is_for_whom_the_table_says() {
    for state in [true, false] {
        let membership = membership(state);
        for (path, callers) in ROUTES {
            let anyone = callers == Callers::Anyone;
            let (stranger, nobody) = if anyone { (200, 200) } else { (410, 401) };
            let worker = if callers == Callers::Managers { 403 } else { 200 };
            let expected = BTreeMap::from([
                ("nobody", nobody),
                ("worker", worker),
                ("manager", 200),
                ("worker as manager", worker),
                ("removed", stranger),
                ("left", stranger),
                ("newer manager", 200),
                ("newer, ended", stranger),
                ("worker, ended", worker),
                ("of another cluster", stranger),
            ]);
            assert_eq!(statuses(&membership, path), expected, "{path}, by state: {state}");
        }
        let nobody = statuses(&membership, "/a/route/of/nobody");
        assert!(nobody.values().all(|status| *status == 403), "{nobody:?}");
    }
}

#[test]
fn another_key_is_a_stranger_where_the_state_has_the_key() {
    let thief = PeerCertificate { key: KeyDigest([9; 32]), ..certificate(MANAGER, Role::Manager) };
    assert_eq!(membership(true).standing(&thief), Standing::Stranger);
}

/// Goal: a manager that leaves can still be taken out of Raft, and does nothing else. Method: every
/// route, called by it and answered by it.
#[test]
fn a_manager_that_left_has_raft_alone() {
    let mut state = two_nodes();
    let joined = cluster::request::JoinNode {
        manager: Some(cluster::object::ManagerInfo {
            raft_id: 2,
            address: ([192, 0, 2, 4], 2377).into(),
        }),
        ..joining(LEFT, Role::Manager)
    };
    carry_out(&mut state, &Request::JoinNode(Box::new(joined)));
    carry_out(&mut state, &Request::LeaveNode { id: LEFT });
    let members = by_state_alone(state);
    let left = certificate(LEFT, Role::Manager);
    for (path, callers) in ROUTES {
        let judged = judge(path, Some(&left), |peer| members.standing(peer));
        let expected = callers == Callers::Anyone || path == RAFT;
        assert_eq!(judged.is_ok(), expected, "{path}");
        assert_eq!(answers(path, Some(&left), Some(&members)).is_ok(), path == RAFT, "{path}");
    }
}

fn wanted(state: &State, role: Role) -> Request {
    let node = &state.nodes[&WORKER];
    let (version, spec) = (node.meta.version, NodeSpec { role, ..node.spec.clone() });
    Request::UpdateNode { id: WORKER, version, spec: Box::new(spec) }
}

/// Goal: a worker that becomes a manager receives the log, and is no manager before it votes. A
/// manager that was demoted is a worker whatever its certificate says. Method: every route, called
/// by each and answered by each.
#[test]
fn who_becomes_a_manager_has_raft_and_is_a_worker_else() {
    let mut state = two_nodes();
    let request = wanted(&state, Role::Manager);
    carry_out(&mut state, &request);
    let promoting = state.clone();
    let manager = state.nodes[&WORKER].promoting.clone().expect("a place in Raft");
    carry_out(&mut state, &Request::PromotedManager { id: WORKER, manager });
    let promoted = state.clone();
    let request = wanted(&state, Role::Worker);
    carry_out(&mut state, &request);
    carry_out(&mut state, &Request::DemotedManager { id: WORKER });
    // Each with what its certificate says: it is renewed before and after.
    let cases = [
        (promoting, Role::Worker, true, false),
        (promoted, Role::Worker, true, true),
        (state, Role::Manager, false, false),
    ];
    for (state, certified, raft, manages) in cases {
        let members = by_state_alone(state);
        let node = certificate(WORKER, certified);
        for (path, callers) in ROUTES {
            let judged = judge(path, Some(&node), |peer| members.standing(peer));
            let expected = callers != Callers::Managers || manages || raft && path == RAFT;
            assert_eq!(judged.is_ok(), expected, "{path} {certified:?}");
            let anyone = ["/gossip/", "/node/"].iter().any(|begin| path.starts_with(begin));
            let expected = anyone || manages || raft && path == RAFT;
            let answered = answers(path, Some(&node), Some(&members)).is_ok();
            assert_eq!(answered, expected, "{path} {certified:?}");
        }
    }
}

/// Goal: a manager that has yet to receive the log takes it from its leader, whatever that was.
/// Method: a state in which two nodes have the roles and standing that they had before.
#[test]
fn what_was_told_since_counts_more_than_an_old_state() {
    let before = two_nodes();
    let mut state = before.clone();
    let request = wanted(&state, Role::Manager);
    carry_out(&mut state, &request);
    let promoting = state.clone();
    let manager = state.nodes[&WORKER].promoting.clone().expect("a place in Raft");
    carry_out(&mut state, &Request::PromotedManager { id: WORKER, manager });
    let told = |state: &State| cluster::assignment_for(state, MANAGER).expect("a member's");
    let members = |old: &State, newest: &State| Membership {
        state: watch::channel(Arc::new(old.clone())).1,
        assignment: watch::channel(Some(Arc::new(told(newest)))).1,
        ..membership(false)
    };
    let worker = certificate(WORKER, Role::Worker);
    let standing = |old, newest| members(old, newest).standing(&worker);
    assert_eq!(standing(&before, &state), Standing::Member(Role::Manager));
    assert_eq!(standing(&state, &before), Standing::Member(Role::Manager));
    assert_eq!(standing(&before, &promoting), Standing::Member(Role::Worker));
    assert_eq!(standing(&promoting, &state), Standing::Member(Role::Manager));
    let thief = PeerCertificate { key: KeyDigest([9; 32]), ..worker };
    assert_eq!(members(&before, &state).standing(&thief), Standing::Stranger);
}

#[test]
fn only_members_answer_and_managers_where_managers_serve() {
    let members = membership(false);
    let answered =
        |path, node, role| answers(path, Some(&certificate(node, role)), Some(&members)).is_ok();
    for (path, _) in ROUTES {
        let anyone = ["/gossip/", "/node/"].iter().any(|begin| path.starts_with(begin));
        assert!(answered(path, MANAGER, Role::Manager), "{path}");
        assert_eq!(answered(path, WORKER, Role::Manager), anyone, "{path}");
        assert!(!answered(path, REMOVED, Role::Manager), "{path}");
        assert!(answers(path, None, Some(&members)).is_err(), "{path}");
    }
    // A joiner goes by the certificate.
    let manager = certificate(MANAGER, Role::Manager);
    assert!(answers("/join", Some(&manager), None).is_ok());
    assert!(answers("/join", Some(&certificate(WORKER, Role::Worker)), None).is_err());
}
