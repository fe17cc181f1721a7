//! Who is held alive, suspect or down, by whom and when.

use super::*;

#[test]
fn a_crash_is_known_everywhere_within_three_seconds_and_nobody_else_falls() {
    for seed in 0..20 {
        for members in [3, 5, 7] {
            let mut net = Net::started(seed, members, 0.05);
            net.run(ms(1_000));
            net.crash(2);
            net.until("host 2 is down", ms(3_000), |net| {
                net.hosts.keys().all(|h| net.liveness(*h, 2) == Some(Liveness::Down))
            });
            net.run(ms(3_000));
            for host in net.hosts.keys() {
                assert_ne!(net.worst.get(host), Some(&Liveness::Down), "seed {seed} host {host}");
                // Hidden by liveness, not deleted.
                assert_eq!(net.engine(*host).view().endpoints.len(), 10 * usize::from(members));
            }
        }
    }
}

#[test]
fn a_suspect_is_shown_before_it_is_down_and_news_of_it_does_not_wait_for_a_tick() {
    let mut net = Net::started(7, 5, 0.0);
    net.crash(3);
    for liveness in [Liveness::Suspect, Liveness::Down] {
        net.until("one host knows", ms(2_000), |net| {
            net.hosts.keys().any(|h| net.liveness(*h, 3) == Some(liveness))
        });
        let took = net.until("all hosts know", ms(100), |net| {
            net.hosts.keys().all(|h| net.liveness(*h, 3) == Some(liveness))
        });
        assert!(took < ms(5), "{liveness:?} {took:?}");
    }
}

#[test]
fn a_false_suspicion_is_refuted_in_a_round_trip() {
    let mut suspicions = 0;
    for seed in 0..20 {
        // Two hosts have nobody to probe for them: a lost probe makes a suspect.
        let mut net = Net::started(seed, 2, 0.0);
        net.run(ms(1_000 + 20 * seed));
        net.loss = 1.0;
        net.run(ms(150));
        net.loss = 0.0;
        let end = net.now + ms(300);
        while net.liveness(1, 2) == Some(Liveness::Alive) && net.advance(end) {}
        if net.liveness(1, 2) == Some(Liveness::Suspect) {
            suspicions += 1;
            let took =
                net.until("refuted", ms(500), |net| net.liveness(1, 2) == Some(Liveness::Alive));
            assert!(took <= ms(3), "{took:?}");
            // It stays the same run of the same identity: nobody tells it later that it is dead.
            net.run(ms(3_000));
            assert!((1..=2).all(|h| net.engine(h).stats().rejoins == 0), "seed {seed}");
        }
    }
    assert!(suspicions > 5, "{suspicions}");
}

#[test]
fn a_suspect_that_missed_the_accusation_hears_it_again() {
    let mut net = Net::started(8, 2, 0.0);
    net.loss = 1.0;
    net.until("a suspicion", ms(2_000), |net| net.liveness(1, 2) == Some(Liveness::Suspect));
    net.run(ms(100));
    net.loss = 0.0;
    net.until("refuted", ms(250), |net| net.liveness(1, 2) == Some(Liveness::Alive));
}

#[test]
fn a_partition_heals() {
    for seed in 0..10 {
        let mut net = Net::started(seed, 7, 0.05);
        for a in 1..=3 {
            for b in 4..=7 {
                net.cut.extend([(a, b), (b, a)]);
            }
        }
        net.until("each side has the other down", ms(6_000), |net| {
            (1..=3).all(|a| (4..=7).all(|b| net.liveness(a, b) == Some(Liveness::Down)))
                && (4..=7).all(|a| (1..=3).all(|b| net.liveness(a, b) == Some(Liveness::Down)))
        });
        net.input(1, own(1, 0..12));
        net.input(7, own(7, 5..10));
        net.run(ms(5_000));
        net.cut.clear();
        net.until("one cluster", ms(5_000), |net| (1..=7).all(|h| net.shows_all(h, 67)));
    }
}

#[test]
fn a_host_that_is_cut_off_alone_comes_back() {
    let mut net = Net::started(8, 5, 0.05);
    for other in [1, 2, 4, 5] {
        net.cut.extend([(3, other), (other, 3)]);
    }
    net.run(ms(20_000));
    assert_eq!(net.liveness(1, 3), Some(Liveness::Down));
    net.cut.clear();
    net.until("one cluster", ms(4_000), |net| (1..=5).all(|h| net.shows_all(h, 50)));
}

#[test]
fn a_lost_announcement_isolates_nobody() {
    let mut net = Net::new(9, 2, 0.0);
    net.start(1);
    net.start(2);
    net.run(ms(5_000));
    net.crash(2);
    net.start(2);
    net.drop_next = 5;
    net.until("they meet", ms(3_000), |net| {
        (1..=2).all(|h| net.engine(h).members().iter().all(|m| m.liveness == Liveness::Alive))
            && net.engine(2).members().len() == 2
    });
}

#[test]
fn a_starved_host_declares_nobody_down() {
    for seed in 0..10 {
        let mut net = Net::started(seed, 5, 0.0);
        for _stall in 0..6 {
            net.pause(3, true);
            net.run(ms(900));
            net.pause(3, false);
            assert!(net.engine(3).stats().starvation > 0);
            net.run(ms(60));
        }
        net.run(ms(3_000));
        for host in [1, 2, 4, 5] {
            assert_eq!(net.worst.get(&host), Some(&Liveness::Alive), "seed {seed} host {host}");
        }
        assert_eq!(net.worst.get(&3), Some(&Liveness::Suspect), "seed {seed}");
        assert_eq!(net.engine(3).stats().starvation, 0);
    }
}

#[test]
fn a_host_that_was_starved_gives_others_more_time() {
    let mut net = Net::started(15, 2, 0.0);
    net.pause(1, true);
    net.pause(2, true);
    net.run(ms(900));
    net.pause(1, false);
    net.run(ms(2_500));
    assert_eq!(net.liveness(1, 2), Some(Liveness::Suspect));
    net.pause(2, false);
    net.until("host 2 is alive", ms(300), |net| net.liveness(1, 2) == Some(Liveness::Alive));
    // Once it is well, it judges as fast as ever.
    net.run(ms(5_000));
    net.crash(2);
    net.until("host 2 is down", ms(2_000), |net| net.liveness(1, 2) == Some(Liveness::Down));
}

#[test]
fn a_leaver_is_down_at_once() {
    let mut net = Net::started(10, 5, 0.0);
    net.input(4, Input::Leave);
    net.crash(4);
    let took = net.until("host 4 is down", ms(1_000), |net| {
        net.hosts.keys().all(|h| net.liveness(*h, 4) == Some(Liveness::Down))
    });
    assert!(took < ms(10), "{took:?}");
}

#[test]
fn an_idle_cluster_is_cheap() {
    let mut net = Net::started(11, 7, 0.0);
    net.run(ms(20_000));
    let before = net.sent;
    net.run(ms(10_000));
    let each_second = (net.sent - before) / 7 / 10;
    assert!(each_second <= 12, "{each_second} datagrams per host and second");
}
