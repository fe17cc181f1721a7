//! Rows reach every host, and only their owner writes them.

use super::*;

#[test]
fn rows_reach_all_hosts_despite_loss() {
    for seed in 0..10 {
        for members in [3, 5, 7] {
            let mut net = Net::started(seed, members, 0.05);
            // One flips to unhealthy, one vanishes.
            let mut endpoints: BTreeMap<_, _> =
                (0..9).map(|t| (key(2, t), endpoint(2, t, true))).collect();
            endpoints.insert(key(2, 3), endpoint(2, 3, false));
            let vtep = VtepRow { address: address(2).ip() };
            net.input(2, Input::Own { endpoints, vtep });
            net.until("the change everywhere", ms(3_000), |net| {
                net.hosts.values().all(|host| {
                    let view = host.engine.view();
                    view.endpoints[&key(2, 3)].condition == cluster::view::Condition::Unhealthy
                        && !view.endpoints.contains_key(&key(2, 9))
                })
            });
        }
    }
}

#[test]
fn a_change_does_not_wait_for_a_tick() {
    let mut net = Net::started(1, 7, 0.0);
    net.run(ms(3_000));
    net.input(1, own(1, 0..11));
    let took = net.until("the new row everywhere", ms(100), |net| {
        net.hosts.values().all(|host| host.engine.view().endpoints.contains_key(&key(1, 10)))
    });
    assert!(took < ms(2), "{took:?}");
}

#[test]
fn a_joiner_loads_thousands_of_rows_by_stream() {
    let mut net = Net::new(3, 3, 0.05);
    for host in 1..=2 {
        net.start(host);
        net.input(host, own(host, 0..6_000));
    }
    net.run(ms(2_000));
    net.start(3);
    net.input(3, own(3, 0..1));
    let took = net.until("12001 rows everywhere", ms(5_000), |net| {
        (1..=3).all(|host| net.shows_all(host, 12_001))
    });
    assert!(took < ms(2_500), "{took:?}");
}

#[test]
fn nobody_is_heard_with_another_key_or_from_another_cluster() {
    let mut net = Net::new(4, 2, 1.0);
    net.start(1);
    net.start(2);
    net.loss = 0.0;
    let other = Keyring::new(1, &[(1, [8; 32])].into()).unwrap();
    net.input(2, Input::Keys(other));
    net.run(ms(3_000));
    assert!(net.engine(1).stats().datagrams_unopened > 0);
    assert_eq!(net.liveness(1, 2), None);
    net.input(2, Input::Keys(keyring()));
    net.until("they meet", ms(3_000), |net| net.liveness(1, 2) == Some(Liveness::Alive));
}

#[test]
fn keys_rotate_without_loss_of_members() {
    let mut net = Net::started(5, 3, 0.0);
    let ring = |primary| Keyring::new(primary, &[(1, [7; 32]), (2, [9; 32])].into()).unwrap();
    for primary in [1, 2] {
        for host in 1..=3 {
            net.input(host, Input::Keys(ring(primary)));
            net.run(ms(500));
        }
    }
    assert!(net.worst.values().all(|worst| *worst == Liveness::Alive), "{:?}", net.worst);
    assert!((1..=3).all(|host| net.engine(host).stats().datagrams_unopened == 0));
}

#[test]
fn a_node_that_leaves_the_cluster_is_forgotten_with_its_rows() {
    for seed in 0..5 {
        let mut net = Net::started(seed, 5, 0.05);
        net.members.retain(|host| *host != 5);
        for host in [1, 2, 3, 4] {
            net.tell_peers(host);
            // Others that have not heard of it yet, and the node itself, still talk of it.
            net.run(ms(700));
            assert_eq!(net.liveness(host, 5), None);
        }
        net.run(ms(5_000));
        for host in [1, 2, 3, 4] {
            assert_eq!(net.liveness(host, 5), None);
            assert_eq!(net.engine(host).view().endpoints.len(), 40);
            assert!(!net.engine(host).view().vteps.contains_key(&node(5)));
        }
    }
}

#[test]
fn a_stranger_is_heard_as_soon_as_the_managers_tell_of_it() {
    let mut net = Net::new(6, 3, 0.0);
    // The assignments of 1 and 2 do not name host 3 yet.
    net.members = vec![1, 2];
    for host in [1, 2] {
        net.start(host);
        net.input(host, own(host, 0..10));
    }
    net.members = vec![1, 2, 3];
    net.start(3);
    net.input(3, own(3, 0..10));
    net.run(ms(5_000));
    assert!(
        [1, 2].iter().all(|h| net.engine(*h).view().endpoints.len() == 20),
        "{}",
        net.picture()
    );
    assert_eq!(net.liveness(1, 3), None);
    let stats = net.engine(1).stats();
    assert!(stats.unlisted > 0 && stats.forged == 0, "{stats:?}");
    let asked = stats.exchanges_begun;
    assert!(asked < 10, "{stats:?}");
    net.tell_peers(1);
    net.tell_peers(2);
    let took = net.until("they meet", ms(5_000), |net| (1..=3).all(|h| net.shows_all(h, 30)));
    assert!(took < ms(20), "{took:?}");
}

#[test]
fn forty_hosts_start_at_once_and_hear_a_change_in_milliseconds() {
    let mut net = Net::new(12, 40, 0.01);
    for host in 1..=40 {
        net.start(host);
        net.input(host, own(host, 0..3));
    }
    net.run(ms(4_000));
    assert!((1..=40).all(|host| net.shows_all(host, 120)), "{}", net.picture());
    let exchanges = |net: &Net| -> u64 {
        net.hosts.values().map(|host| host.engine.stats().exchanges_begun).sum()
    };
    // Not every host with every other one.
    assert!(exchanges(&net) < 40 * 39 / 2, "{}", exchanges(&net));
    let sent = net.sent;
    net.input(7, own(7, 0..4));
    let took = net.until("the new row everywhere", ms(1_000), |net| {
        net.hosts.values().all(|host| host.engine.view().endpoints.contains_key(&key(7, 3)))
    });
    assert!(took < ms(10), "{took:?}");
    assert!(net.sent - sent < 500, "{}", net.sent - sent);
    net.crash(9);
    net.until("host 9 is down", ms(3_000), |net| {
        net.hosts.keys().all(|host| net.liveness(*host, 9) == Some(Liveness::Down))
    });
}

#[test]
fn a_row_that_comes_back_from_the_dead_is_buried_by_its_owner() {
    let mut net = Net::started(16, 3, 0.0);
    // Host 3 is away for longer than the others remember that the row is dead.
    for other in [1, 2] {
        net.cut.extend([(3, other), (other, 3)]);
    }
    net.input(1, own(1, 1..10));
    net.run(ms(700_000));
    assert!(net.engine(3).view().endpoints.contains_key(&key(1, 0)));
    assert_eq!(net.engine(2).stats().tombstones, 0);
    net.cut.clear();
    net.until("the row is gone everywhere", ms(5_000), |net| (1..=3).all(|h| net.shows_all(h, 29)));
}

#[test]
fn a_peer_that_refuses_streams_is_not_stormed() {
    let mut net = Net::new(17, 3, 0.0);
    net.deaf = [2, 3].into();
    for host in 1..=3 {
        net.start(host);
        net.input(host, own(host, 0..10));
    }
    net.run(ms(10_000));
    let stats = net.engine(1).stats();
    assert!(!net.engine(1).view().complete);
    assert!((20..=45).contains(&stats.exchanges_failed), "{stats:?}");
    // Nor is it waited for without end, though it is alive.
    net.run(ms(6_000));
    assert!(net.engine(1).view().complete, "{}", net.picture());
    net.deaf.clear();
    net.until("all rows everywhere", ms(2_000), |net| (1..=3).all(|h| net.shows_all(h, 30)));
}

#[test]
fn an_engine_can_be_given_to_a_thread() {
    fn is_send<T: Send>() {}
    is_send::<Engine>();
    is_send::<Input>();
    is_send::<Output>();
}

#[test]
fn one_seed_is_one_history() {
    let history = |seed: u64| {
        let mut net = Net::started(seed, 4, 0.1);
        net.crash(3);
        net.run(ms(2_000));
        net.start(3);
        net.run(ms(2_000));
        (net.trace, net.picture())
    };
    assert_eq!(history(13), history(13));
    assert_ne!(history(13).0, history(14).0);
}

/// Goal: a push that does not arrive costs little time. Method: nothing reaches one of many
/// hosts while a change is pushed; its owner need not speak to it soon.
#[test]
fn a_missed_push_is_heard_of_from_the_next_datagram() {
    let mut times = Vec::new();
    for seed in 0..6 {
        let (owner, deaf) = (1, 20);
        let mut net = Net::started(seed, 24, 0.0);
        net.run(ms(3_000));
        net.cut = (1..=24).map(|host| (host, deaf)).collect();
        net.input(owner, own(owner, 0..11));
        net.run(ms(20));
        net.cut.clear();
        let shows = |net: &Net, host| net.engine(host).view().endpoints.contains_key(&key(1, 10));
        let others = net.hosts.keys().filter(|host| **host != deaf);
        assert!(others.copied().all(|host| shows(&net, host)) && !shows(&net, deaf));
        times.push(net.until("the row there", ms(10_000), |net| shows(net, deaf)));
    }
    assert!(times.iter().all(|took| *took <= ms(300)), "{times:?}");
}
