//! Goal: what follows from a report, and whose silence counts. Method: states made by the real
//! `decide` and `apply`.

use std::collections::BTreeMap;

use cluster::object::{TaskStatus, newest_schema};

use super::*;
use crate::fixture::{A, B, cluster, hash, set_state};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn leader(state: &State) -> Leader {
    let mut leader = Leader::new(hash);
    leader.take_over(state, ms(0));
    leader
}

fn silence(restarts: bool) -> ReportCall {
    ReportCall { applied: None, statuses: BTreeMap::new(), description: None, restarts }
}

fn lost(look: &Look) -> Vec<NodeId> {
    let id = |request: &Request| match request {
        Request::SetNodeState { id, state: NodeState::Down, .. } => *id,
        other => panic!("{other:?}"),
    };
    look.requests.iter().map(id).collect()
}

#[test]
fn a_report_leads_to_what_the_state_does_not_have() {
    let mut state = cluster();
    let mut leader = leader(&state);
    let told = |leader: &mut Leader, state: &State, call: ReportCall| {
        leader.report(state, B, Some([192, 0, 2, 2].into()), call, ms(1)).unwrap().requests
    };
    assert_eq!(told(&mut leader, &state, silence(false)), []);
    let mut description = state.nodes[&B].description.clone();
    let same = ReportCall { description: Some(description.clone()), ..silence(false) };
    assert_eq!(told(&mut leader, &state, same), []);
    description.hostname = "other".to_owned();
    let task = state.tasks.values().next().unwrap();
    let statuses: BTreeMap<_, TaskStatus> = [(task.id, task.status.clone())].into();
    let news = ReportCall { description: Some(description), statuses, ..silence(false) };
    set_state(&mut state, B, NodeState::Down);
    let requests = told(&mut leader, &state, news);
    let [
        Request::DescribeNode { id: B, .. },
        Request::SetNodeState { id: B, state: NodeState::Ready, address, .. },
        Request::ReportTasks { node: B, .. },
    ] = &requests[..]
    else {
        panic!("{requests:?}")
    };
    assert_eq!(address, "192.0.2.2");
}

#[test]
fn who_cannot_read_what_the_cluster_writes_is_not_heard() {
    let mut state = cluster();
    let mut leader = leader(&state);
    state.revision.0 += 1;
    let mut cluster = cluster::object::Cluster::clone(state.cluster.as_ref().unwrap());
    cluster.schema = newest_schema() + 1;
    state.cluster = Some(std::sync::Arc::new(cluster));
    let refusal = Refusal::TooOld { cluster: newest_schema() + 1, node: newest_schema() };
    let call = WatchCall {
        have: BTreeSet::new(),
        confirmed: false,
        released: BTreeSet::new(),
        schema: newest_schema(),
    };
    let now = (ms(1), Timestamp(0));
    assert_eq!(leader.watch(&state, B, &call, now).unwrap_err(), refusal);
    let description = Some(state.nodes[&B].description.clone());
    let call = ReportCall { description, ..silence(false) };
    assert_eq!(leader.report(&state, B, None, call, LEASE).unwrap_err(), refusal);
    let look = leader.look(&state, true, ms(1000));
    assert_eq!(lost(&look), []);
    let stranger = NodeId(9);
    let unknown = leader.report(&state, stranger, None, silence(false), ms(1)).unwrap_err();
    assert_eq!(unknown, Refusal::Unknown(stranger));
}

/// Goal: silence while the leader could not hear does not count.
/// Method: a leader that looks often, then not at all, then without a majority.
#[test]
fn a_pause_of_the_leader_renews_every_lease() {
    let state = cluster();
    let mut leader = leader(&state);
    let mut now = ms(0);
    let mut look = |leader: &mut Leader, has_quorum: bool, after: Duration| {
        now += after;
        leader.look(&state, has_quorum, now)
    };
    for _ in 0..3 {
        assert_eq!(lost(&look(&mut leader, true, ms(800))), []);
    }
    let after_pause = look(&mut leader, true, PAUSE_MAX + ms(1));
    assert!(after_pause.leases_begin_again && after_pause.requests.is_empty());
    for _ in 0..20 {
        assert_eq!(lost(&look(&mut leader, false, ms(250))), []);
    }
    let after_cut = look(&mut leader, true, ms(250));
    assert!(after_cut.leases_begin_again && after_cut.requests.is_empty());
    for _ in 0..3 {
        assert_eq!(lost(&look(&mut leader, true, ms(800))), []);
    }
    let late = look(&mut leader, true, ms(800));
    assert!(!late.leases_begin_again);
    assert_eq!(lost(&late), [A, B]);
}

#[test]
fn a_node_that_restarts_is_waited_for() {
    let state = cluster();
    let mut leader = leader(&state);
    leader.report(&state, B, None, silence(true), ms(0)).unwrap();
    leader.report(&state, A, None, silence(false), ms(900)).unwrap();
    for at in [900, 1800, 2700] {
        assert_eq!(lost(&leader.look(&state, true, ms(at))), []);
    }
    assert_eq!(lost(&leader.look(&state, true, ms(3500))), [A]);
    leader.resign();
    leader.take_over(&state, ms(3600));
    assert_eq!(lost(&leader.look(&state, true, ms(3700))), [], "another leader, another lease");
}
