//! Three managers: writing, reading, losing the leader, losing the majority.

use bytes::Bytes;
use futures_util::future::join_all;

use super::harness::{Cluster, peer, put, until};
use crate::{Class, Error, PAYLOAD_BYTES_MAX, ProposeError, RaftConfig, ReadError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_managers_write_read_and_fail_over() {
    let mut cluster = Cluster::of(3, RaftConfig::lan()).await;
    let first = cluster.leader().await;
    put(&first, "one").await;

    let follower = &cluster.nodes[&(first.raft_id() % 3 + 1)];
    until(follower, |status| status.leader.is_some()).await;
    let error = follower.propose(b"no".to_vec()).await.unwrap_err();
    let leader = Some(peer(first.raft_id()));
    assert_eq!(error, ProposeError::NotLeader { leader });
    follower.read_barrier().await.unwrap();
    assert_eq!(cluster.journals[&follower.raft_id()].texts(), ["one"]);
    first.read_barrier().await.unwrap();

    cluster.stop(first.raft_id()).await;
    let second = cluster.leader().await;
    assert_ne!(second.raft_id(), first.raft_id());
    put(&second, "two").await;
    for (raft_id, node) in &cluster.nodes {
        node.read_barrier().await.unwrap();
        assert_eq!(cluster.journals[raft_id].texts(), ["one", "two"]);
    }

    cluster.open(first.raft_id()).await;
    cluster.level().await;
    assert_eq!(cluster.journals[&first.raft_id()].texts(), ["one", "two"]);
    let classes = cluster.mesh.classes();
    for class in [Class::Heartbeat, Class::Vote, Class::Append, Class::Control] {
        assert!(classes.contains(&class), "{class:?} had its own way: {classes:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_writes_and_reads_fail_with_a_reason() {
    let cluster = Cluster::of(3, RaftConfig::lan()).await;
    let leader = cluster.leader().await;
    put(&leader, "kept").await;
    for raft_id in (1..=3).filter(|id| *id != leader.raft_id()) {
        cluster.mesh.isolate(raft_id);
    }
    // Within the lease the leader cannot know yet: the payload is in the log and unconfirmed.
    let error = leader.propose(b"lost or not".to_vec()).await.unwrap_err();
    assert!(matches!(error, ProposeError::OutcomeUnknown { .. }), "{error}");
    until(&leader, |status| !status.has_quorum).await;
    assert_eq!(leader.propose(b"refused".to_vec()).await.unwrap_err(), ProposeError::NoQuorum);
    let error = leader.read_barrier().await.unwrap_err();
    assert!(matches!(error, ReadError::NoQuorum { .. }), "{error}");

    let follower = cluster.nodes[&(leader.raft_id() % 3 + 1)].clone();
    until(&follower, |status| status.leader.is_none()).await;
    let error = follower.propose(b"refused".to_vec()).await.unwrap_err();
    assert_eq!(error, ProposeError::NotLeader { leader: None });
    let error = follower.read_barrier().await.unwrap_err();
    assert!(matches!(error, ReadError::NoLeader { .. }), "{error}");

    // All see each other again. Whether the unconfirmed payload counts depends on who leads then.
    (1..=3).for_each(|raft_id| cluster.mesh.heal(raft_id));
    put(&cluster.leader().await, "again").await;
    cluster.level().await;
    let texts = cluster.journals[&1].texts();
    assert_eq!((texts.first().unwrap(), texts.last().unwrap()), (&"kept".into(), &"again".into()));
    assert_eq!(texts, cluster.journals[&2].texts());
    assert_eq!(texts, cluster.journals[&3].texts());
}

/// Goal: a manager that comes back from a partition does not depose a healthy leader.
/// Method: cut one follower off until it has asked for votes several times, then let it return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_returns_does_not_depose_the_leader() {
    let cluster = Cluster::of(3, RaftConfig::lan()).await;
    let leader = cluster.leader().await;
    let term = leader.status().term;
    let away = cluster.nodes[&(leader.raft_id() % 3 + 1)].clone();
    cluster.mesh.isolate(away.raft_id());
    until(&away, |status| status.leader.is_none()).await;
    cluster.mesh.until_refused(away.raft_id(), Class::Vote, 6).await;
    let index = put(&leader, "meanwhile").await;
    cluster.mesh.heal(away.raft_id());
    until(&away, |status| status.leader.is_some() && status.last_applied >= index).await;
    assert_eq!(away.status().term, term);
    assert!(leader.status().is_leader);
}

/// Goal: two survivors of three always elect a leader, however often (openraft 0.9 drew its
/// election timeout once per process, and two equal ones split every vote).
/// Method: stop one manager for good, then restart both others together, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_survivors_elect_again_and_again() {
    let mut cluster = Cluster::of(3, RaftConfig::lan()).await;
    let mut expected = Vec::new();
    cluster.stop(cluster.leader().await.raft_id()).await;
    let survivors: Vec<u64> = cluster.nodes.keys().copied().collect();
    for round in 0..6 {
        let leader = cluster.leader().await;
        let text = format!("round {round}");
        put(&leader, &text).await;
        expected.push(text);
        cluster.level().await;
        for raft_id in &survivors {
            assert_eq!(cluster.journals[raft_id].texts(), expected);
        }
        for raft_id in &survivors {
            cluster.stop(*raft_id).await;
        }
        for raft_id in &survivors {
            cluster.open(*raft_id).await;
        }
    }
    cluster.leader().await;
}

/// Goal: the decider may pipeline: what it submits in order is applied in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_are_applied_in_the_order_of_submission() {
    let cluster = Cluster::of(3, RaftConfig::lan()).await;
    let leader = cluster.leader().await;
    let term = leader.status().term;
    let mut proposals = Vec::new();
    for number in 0..500 {
        let payload = number.to_string().into_bytes();
        proposals.push(leader.submit(payload, Some(term)).await.unwrap());
    }
    let applied = join_all(proposals.into_iter().map(crate::Proposal::outcome)).await;
    let indexes: Vec<u64> = applied.into_iter().map(|result| result.unwrap().index).collect();
    assert!(indexes.is_sorted_by(|a, b| a < b));
    let wanted: Vec<String> = (0..500).map(|number: u32| number.to_string()).collect();
    cluster.level().await;
    for journal in cluster.journals.values() {
        assert_eq!(journal.texts(), wanted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_of_an_earlier_leadership_or_of_excess_size_is_not_written() {
    let cluster = Cluster::of(1, RaftConfig::lan()).await;
    let leader = &cluster.nodes[&1];
    let past = leader.status().term - 1;
    let stale = leader.submit(b"stale".to_vec(), Some(past)).await.unwrap().outcome().await;
    assert_eq!(stale, Err(ProposeError::NotLeader { leader: None }));
    let bytes = PAYLOAD_BYTES_MAX + 1;
    let large = leader.propose(vec![1; bytes]).await;
    assert_eq!(large, Err(ProposeError::TooLarge { bytes, max: PAYLOAD_BYTES_MAX }));
    let whole = leader.propose(vec![1; PAYLOAD_BYTES_MAX]).await.unwrap();
    assert_eq!(whole.response, b"1");
}

/// Goal: every operation may be awaited in a spawned task.
#[tokio::test]
async fn operations_are_send() {
    fn check<T: Send>(operation: T) -> T {
        operation
    }
    let cluster = Cluster::of(1, RaftConfig::lan()).await;
    let node = &cluster.nodes[&1];
    check(node.propose(b"sent".to_vec())).await.unwrap();
    check(check(node.submit(Vec::new(), None)).await.unwrap().outcome()).await.unwrap();
    check(node.read_barrier()).await.unwrap();
    check(node.add_member(peer(1))).await.unwrap();
    check(node.remove_member(5)).await.unwrap();
    check(node.transfer_leadership(1)).await.unwrap();
    check(node.serve(Class::Vote, Bytes::new())).await.unwrap_err();
    check(node.shutdown()).await.unwrap();
}

/// Followers must get large payloads too: many of the largest do not fit into one message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_payloads_reach_followers() {
    let mut config = RaftConfig::lan();
    config.propose_ms_max = 60_000;
    config.election_ms_min = 4_000;
    config.election_ms_max = 8_000;
    let cluster = Cluster::of(2, config).await;
    let leader = cluster.leader().await;
    let payloads = (0..6).map(|number| leader.propose(vec![number; PAYLOAD_BYTES_MAX]));
    for result in join_all(payloads).await {
        result.unwrap();
    }
    cluster.level().await;
    assert_eq!(cluster.journals[&1].payloads(), cluster.journals[&2].payloads());
}

#[tokio::test]
async fn a_message_for_another_node_or_without_sense_is_refused() {
    let cluster = Cluster::of(2, RaftConfig::lan()).await;
    let node = &cluster.nodes[&1];
    for body in [&b""[..], b"\x02", b"\x01\xff\xff\xff"] {
        let error = node.serve(Class::Append, Bytes::from_static(body)).await.unwrap_err();
        assert!(matches!(error, Error::Message { .. }), "{error}");
    }
    // Node 2's address now leads to node 1, which must not answer in its place.
    cluster.mesh.attach(&peer(2).address, node);
    let error = node.propose(b"unconfirmed".to_vec()).await.unwrap_err();
    assert!(
        matches!(error, ProposeError::OutcomeUnknown { .. } | ProposeError::NoQuorum),
        "{error}"
    );
}

/// Goal: a leader that was away for a moment serves no older state than it had acknowledged.
/// Method: it restarts; it may lead again in a new term alone, whose first entry is after all
/// others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_restarts_is_elected_again() {
    let mut cluster = Cluster::of(1, RaftConfig::lan()).await;
    let leader = cluster.leader().await;
    let last = put(&leader, "acknowledged").await;
    let before = leader.status().term;
    drop(leader);
    cluster.stop(1).await;
    let again = cluster.open(1).await;
    let status = until(&again, |status| status.leader_ready).await;
    assert!(status.term > before && status.last_applied > last, "{status:?}");
}
