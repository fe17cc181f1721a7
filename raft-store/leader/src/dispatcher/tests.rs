//! Goal: leases run out only when a node is silent, and a stopping task is released only when
//! every node concerned has it out. Method: states made by the real `decide` and `apply`.

use cluster::assign::Held;

use super::*;
use crate::fixture::{
    A, B, cluster, create_network, create_service, hash, remove_service, set_state,
};

/// The nodes' ends of their sessions.
struct Nodes {
    dispatcher: Dispatcher,
    held: BTreeMap<NodeId, Held>,
    confirmed: BTreeSet<NodeId>,
}

impl Nodes {
    fn of(state: &State) -> Self {
        let (held, confirmed) = (BTreeMap::new(), BTreeSet::new());
        Self { dispatcher: taken_over(state, ms(0)), held, confirmed }
    }

    /// A node asks and takes what it is told.
    fn watch(&mut self, state: &State, node: NodeId) -> Watched {
        let before = self.held.get(&node);
        let have = before.map(Held::digests).unwrap_or_default();
        let confirmed = self.confirmed.contains(&node);
        let schema = cluster::object::newest_schema();
        let call = WatchCall { have, confirmed, released: BTreeSet::new(), schema };
        self.dispatcher.follow(state, ms(0));
        let watched = self.dispatcher.watch(node, &call, Timestamp(0)).unwrap();
        if let Some(told) = watched.answer.told.clone() {
            let held = Held::next(before, node, told, hash).unwrap();
            self.held.insert(node, held);
            self.confirmed.insert(node);
        }
        watched
    }

    /// A node says that its kernel holds what it was told last.
    fn apply(&mut self, node: NodeId) -> bool {
        let digest = self.held[&node].digest;
        self.dispatcher.hear(node, Some(digest), ms(0)).rings
    }

    fn both_follow(&mut self, state: &State) {
        for node in [A, B] {
            self.watch(state, node);
            self.apply(node);
        }
    }
}

fn task_on(state: &State, node: NodeId) -> Arc<Task> {
    state.stopping_on(node).next().unwrap().clone()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn taken_over(state: &State, now: Duration) -> Dispatcher {
    let mut dispatcher = Dispatcher::new(hash);
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
fn a_silent_node_expires_and_a_new_leader_grants_a_full_lease() {
    let state = cluster();
    let lease = u64::try_from(LEASE.as_millis()).unwrap();
    let mut dispatcher = taken_over(&state, ms(1000));
    assert_eq!(dispatcher.expired(&state, ms(1000 + lease - 1)), []);
    dispatcher.hear(A, None, ms(1500));
    assert_eq!(dispatcher.expired(&state, ms(1000 + lease)), [B]);
    let fresh = taken_over(&state, ms(9000));
    assert_eq!(fresh.expired(&state, ms(9000 + lease - 1)), []);
}

#[test]
fn a_stopping_task_is_released_when_every_node_has_it_out() {
    let mut state = cluster();
    remove_service(&mut state, "web");
    let on_b = task_on(&state, B);
    let mut nodes = Nodes::of(&state);
    for node in [A, B] {
        nodes.watch(&state, node);
    }
    assert_eq!(nodes.dispatcher.released(B), BTreeSet::new());
    nodes.apply(B);
    assert_eq!(nodes.dispatcher.released(B), BTreeSet::new(), "node A balances to it too");
    assert_eq!(nodes.dispatcher.behind(&on_b), BTreeSet::from([A]));
    assert!(nodes.apply(A), "the watch of node B waits for it");
    let watched = nodes.watch(&state, B);
    assert_eq!(watched.answer.released, BTreeSet::from([on_b.id]));
    assert!(watched.is_news && watched.answer.told.is_none());
}

#[test]
fn a_node_with_an_older_assignment_in_its_kernel_holds_the_release_up() {
    let before = cluster();
    let mut state = before.clone();
    let mut nodes = Nodes::of(&before);
    nodes.both_follow(&before);
    assert_eq!(nodes.dispatcher.applied(A), Some(before.revision));
    remove_service(&mut state, "web");
    for node in [A, B] {
        nodes.watch(&state, node);
    }
    assert_eq!(nodes.dispatcher.applied(A), Some(before.revision));
    assert_eq!(nodes.dispatcher.released(B), BTreeSet::new());
    assert_eq!(nodes.dispatcher.behind(&task_on(&state, B)), BTreeSet::from([A, B]));
}

/// Goal: a change on one network does not make nodes lag behind on another one.
/// Method: one node is sent a change on a network of its own, and has not applied it.
#[test]
fn a_network_does_not_wait_for_another() {
    let mut state = cluster();
    create_network(&mut state, "other");
    create_service(&mut state, "alone", "other", Some(A));
    let mut nodes = Nodes::of(&state);
    nodes.both_follow(&state);
    remove_service(&mut state, "web");
    for node in [A, B] {
        nodes.watch(&state, node);
    }
    let told_of_web = nodes.held[&A].digest;
    create_service(&mut state, "more", "other", Some(A));
    nodes.watch(&state, A);
    nodes.apply(B);
    assert_eq!(nodes.dispatcher.behind(&task_on(&state, B)), BTreeSet::from([A]));
    nodes.dispatcher.hear(A, Some(told_of_web), ms(0));
    assert!(nodes.dispatcher.applied(A) < Some(state.revision), "it lags on the other network");
    assert_eq!(nodes.dispatcher.released(B).len(), 1);
}

/// Goal: where a network changes all the time, a task is released once every node has followed the
/// change by which it stops. Method: one node lags by one later change.
#[test]
fn a_node_need_not_have_the_newest_part() {
    let mut state = cluster();
    let mut nodes = Nodes::of(&state);
    remove_service(&mut state, "web");
    nodes.both_follow(&state);
    create_service(&mut state, "more", "vote", None);
    nodes.watch(&state, B);
    assert_eq!(nodes.dispatcher.released(B).len(), 1);
    remove_service(&mut state, "more");
    nodes.watch(&state, B);
    assert_eq!(nodes.dispatcher.released(B).len(), 1, "only of the one that stopped first");
}

/// Goal: what changes while a pass is under way does not hide what the kernel holds after it, up to
/// a limit. Method: a node is told many lists, and its kernel holds the first one.
#[test]
fn a_busy_network_hides_no_acknowledgement() {
    for (changes, is_known) in [(LISTS_MAX - 1, true), (LISTS_MAX, false)] {
        let mut state = cluster();
        let mut nodes = Nodes::of(&state);
        remove_service(&mut state, "web");
        let stopping = task_on(&state, B);
        for node in [A, B] {
            nodes.watch(&state, node);
        }
        nodes.apply(B);
        let first = nodes.held[&A].digest;
        for number in 0..changes {
            create_service(&mut state, &format!("more-{number}"), "vote", Some(B));
            nodes.watch(&state, A);
        }
        nodes.dispatcher.hear(A, Some(first), ms(0));
        let behind = nodes.dispatcher.behind(&stopping);
        assert_eq!(behind.contains(&A), !is_known, "after {changes} changes");
    }
}

/// Goal: a node does not decide how much the leader remembers.
#[test]
fn one_list_is_remembered_of_what_a_node_says_it_has() {
    let state = cluster();
    let mut nodes = Nodes::of(&state);
    for number in 0..3 {
        let (have, released) = ([Digest([number; 32])].into(), BTreeSet::new());
        let call = WatchCall { have, confirmed: true, released, schema: 1 };
        nodes.dispatcher.watch(A, &call, Timestamp(0)).unwrap();
    }
    let claimed = nodes.dispatcher.sessions[&A].lists.iter().filter(|known| known.at.is_none());
    assert_eq!(claimed.count(), 1);
    assert_eq!(nodes.dispatcher.sessions[&A].lists.len(), 2);
}

/// Goal: a leader that has heard nobody releases nothing, and learns what kernels hold from what
/// the nodes have. Method: another dispatcher, and nodes that have all.
#[test]
fn a_new_leader_learns_what_kernels_hold() {
    let mut state = cluster();
    remove_service(&mut state, "web");
    let mut nodes = Nodes::of(&state);
    nodes.both_follow(&state);
    nodes.dispatcher = taken_over(&state, ms(0));
    assert_eq!(nodes.dispatcher.behind(&task_on(&state, B)), BTreeSet::from([A, B]));
    // Reports come first, and name lists that this leader has not seen.
    for node in [A, B] {
        nodes.apply(node);
    }
    assert_eq!(nodes.dispatcher.released(B), BTreeSet::new());
    create_network(&mut state, "other");
    assert!(nodes.watch(&state, A).answer.told.is_none(), "nothing concerns it");
    assert_eq!(nodes.dispatcher.released(B), BTreeSet::new());
    let watched = nodes.watch(&state, B);
    assert_eq!(watched.answer.released.len(), 1);
}

/// Goal: only live nodes that take part are waited for. Method: the node that lags is lost; then
/// one that held everything joins the network later.
#[test]
fn who_is_down_or_came_later_is_not_waited_for() {
    let mut state = cluster();
    create_network(&mut state, "other");
    create_service(&mut state, "alone", "other", Some(B));
    let mut nodes = Nodes::of(&state);
    nodes.both_follow(&state);
    remove_service(&mut state, "alone");
    nodes.watch(&state, B);
    nodes.apply(B);
    let stopping = task_on(&state, B);
    assert_eq!(nodes.dispatcher.behind(&stopping), BTreeSet::new());
    nodes.watch(&state, A);
    create_service(&mut state, "later", "other", Some(A));
    nodes.watch(&state, A);
    assert_eq!(nodes.dispatcher.behind(&stopping), BTreeSet::new(), "it drains in all A gets");
    remove_service(&mut state, "web");
    nodes.watch(&state, B);
    nodes.apply(B);
    let of_web = state.stopping_on(B).find(|task| task.service_name == "web").unwrap().clone();
    nodes.dispatcher.follow(&state, ms(0));
    assert_eq!(nodes.dispatcher.behind(&of_web), BTreeSet::from([A]));
    set_state(&mut state, A, NodeState::Down);
    nodes.dispatcher.follow(&state, ms(0));
    assert_eq!(nodes.dispatcher.behind(&of_web), BTreeSet::new());
}

/// Goal: what a node has from its disk is confirmed at once and not sent again.
#[test]
fn a_node_that_restarts_is_sent_nothing() {
    let state = cluster();
    let mut nodes = Nodes::of(&state);
    nodes.both_follow(&state);
    assert!(!nodes.watch(&state, A).is_news, "it has what there is");
    let kept = Held::restore(A, nodes.held[&A].kept(), hash).unwrap();
    nodes.held.insert(A, kept);
    nodes.confirmed.remove(&A);
    let told = nodes.watch(&state, A).answer.told.unwrap();
    assert!(told.parts.iter().all(|listed| listed.bytes.is_none()), "{told:?}");
    assert!(!nodes.watch(&state, A).is_news);
}
