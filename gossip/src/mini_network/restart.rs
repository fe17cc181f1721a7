//! Daemons that stop and come back, as the same node and another run.

use super::*;

#[test]
fn a_clean_restart_hides_nothing() {
    for (seed, loss) in (0..10).flat_map(|seed| [(seed, 0.0), (seed, 0.05)]) {
        let mut net = Net::started(seed, 5, loss);
        net.run(ms(1_000));
        net.worst.clear();
        net.input(2, Input::Restarting);
        assert_eq!(net.engine(2).next_deadline(), None);
        net.crash(2);
        let end = net.now + ms(8_000);
        net.run(ms(2));
        while net.advance(end) {
            let alive = [1, 3, 4, 5].map(|h| net.liveness(h, 2));
            assert_eq!(alive, [Some(Liveness::Alive); 4], "seed {seed} loss {loss}");
        }
        assert!(net.engine(1).members().iter().any(|m| m.restarting));
        net.start(2);
        net.input(2, own(2, 0..10));
        net.until("all is as before", ms(5_000), |net| {
            (1..=5).all(|h| net.shows_all(h, 50) && net.engine(h).members()[1].generation == 2)
        });
        // A lost probe makes a suspect for a moment, as at any time.
        let worst = if loss == 0.0 { Liveness::Alive } else { Liveness::Suspect };
        assert!(net.worst[&2] <= worst, "seed {seed} loss {loss}");
        assert!(net.engine(1).members().iter().all(|m| !m.restarting));
    }
}

#[test]
fn a_restart_that_does_not_end_is_a_crash_after_the_grace() {
    let mut net = Net::started(1, 3, 0.0);
    net.input(2, Input::Restarting);
    net.crash(2);
    net.run(ms(29_000));
    assert_eq!(net.liveness(1, 2), Some(Liveness::Alive));
    net.run(ms(2_000));
    assert_eq!(net.liveness(1, 2), Some(Liveness::Down));
    assert_eq!(net.liveness(3, 2), Some(Liveness::Down));
}

#[test]
fn who_starts_while_another_restarts_is_told() {
    let mut net = Net::started(2, 3, 0.0);
    net.input(2, Input::Restarting);
    net.crash(2);
    net.run(ms(3_000));
    net.crash(3);
    net.start(3);
    net.input(3, own(3, 0..10));
    net.until("host 3 holds host 2 alive", ms(2_000), |net| {
        net.liveness(3, 2) == Some(Liveness::Alive) && net.engine(3).view().complete
    });
    assert_eq!(net.engine(3).view().endpoints.len(), 30);
}

#[test]
fn after_a_crash_the_next_run_is_alive_at_once() {
    for (seed, downtime) in [(1, 50), (2, 700), (3, 5_000)] {
        let mut net = Net::started(seed, 5, 0.0);
        net.crash(4);
        net.run(ms(downtime));
        net.start(4);
        let took = net.until("host 4 is alive", ms(1_000), |net| {
            [1, 2, 3, 5].iter().all(|h| {
                let members = net.engine(*h).members();
                members[3].generation == 2 && members[3].liveness == Liveness::Alive
            })
        });
        assert!(took < ms(20), "{took:?}");
        net.run(ms(3_000));
        assert_eq!(net.liveness(1, 4), Some(Liveness::Alive));
    }
}

#[test]
fn rows_that_a_new_run_lacks_vanish_and_the_others_never_blink() {
    for seed in 0..10 {
        let mut net = Net::started(seed, 5, 0.05);
        net.crash(2);
        net.run(ms(100));
        net.start(2);
        let kept = |net: &Net| {
            net.hosts.iter().filter(|(h, _)| **h != 2).all(|(_, host)| {
                let view = host.engine.view();
                (3..10).all(|task| view.endpoints.contains_key(&key(2, task)))
            })
        };
        // Until it has adopted its tasks, it says nothing, and its rows stay.
        net.run(ms(2_000));
        assert!(kept(&net));
        assert_eq!(net.engine(1).view().endpoints.len(), 50);
        net.input(2, own(2, 3..11));
        let end = net.now + ms(5_000);
        while net.advance(end) {
            assert!(kept(&net), "seed {seed} at {:?}\n{}", net.now, net.picture());
        }
        assert!((1..=5).all(|h| net.shows_all(h, 48)), "seed {seed}\n{}", net.picture());
        assert!(!net.engine(1).view().endpoints.contains_key(&key(2, 0)));
    }
}

#[test]
fn a_run_whose_generation_went_back_outruns_its_past() {
    let mut net = Net::started(4, 3, 0.0);
    net.crash(2);
    net.generations.insert(1, 1);
    // As after the loss of the file that counts the starts.
    net.generations.insert(2, 7);
    net.start(2);
    net.input(2, own(2, 0..10));
    net.run(ms(2_000));
    net.crash(2);
    net.generations.insert(2, 2);
    net.start(2);
    net.input(2, own(2, 20..25));
    net.until("the new rows and only these", ms(10_000), |net| {
        (1..=3).all(|h| net.shows_all(h, 25))
    });
}

#[test]
fn a_whole_cluster_that_starts_at_once_is_complete_when_all_are_heard() {
    for seed in 0..10 {
        let mut net = Net::new(seed, 5, 0.05);
        for host in 1..=5 {
            net.start(host);
            net.input(host, own(host, 0..10));
        }
        let end = net.now + ms(5_000);
        while net.advance(end) {
            for host in net.hosts.values() {
                let view = host.engine.view();
                assert!(!view.complete || view.endpoints.len() == 50, "seed {seed}");
            }
        }
        assert!((1..=5).all(|h| net.shows_all(h, 50)));
    }
}

#[test]
fn completeness_does_not_wait_for_the_dead_for_ever_nor_for_nobody() {
    let mut net = Net::new(5, 3, 0.0);
    for host in 1..=2 {
        net.start(host);
        net.input(host, own(host, []));
    }
    net.run(ms(3_000));
    assert!(!net.engine(1).view().complete);
    net.run(ms(5_000));
    assert!(net.engine(1).view().complete);

    let mut net = Net::new(6, 1, 0.0);
    net.start(1);
    net.input(1, own(1, []));
    assert!(net.engine(1).view().complete);

    // Nobody answers at all: the deadline runs from the start.
    let mut net = Net::new(7, 2, 0.0);
    net.start(1);
    net.input(1, own(1, []));
    net.run(ms(14_000));
    assert!(!net.engine(1).view().complete);
    net.run(ms(2_000));
    assert!(net.engine(1).view().complete);
}

/// Goal: a peer that comes late, as when all daemons are upgraded at once, is known again when it
/// is there. Method: it starts after the other one went on without it.
#[test]
fn who_comes_after_the_deadline_is_heard() {
    let mut net = Net::new(9, 2, 0.0);
    net.start(1);
    net.input(1, own(1, 0..10));
    net.run(ms(20_000));
    net.start(2);
    net.input(2, own(2, 0..10));
    net.until("all rows everywhere", ms(2_000), |net| (1..=2).all(|h| net.shows_all(h, 20)));
}

/// Goal: a restart takes no backend of its own node out of the balancer. Method: peers have told
/// all, the own tasks are not adopted yet: the view must not pass for the whole truth.
#[test]
fn a_view_without_the_own_rows_is_not_complete() {
    let mut net = Net::started(8, 3, 0.0);
    net.crash(2);
    net.start(2);
    net.run(ms(20_000));
    let view = net.engine(2).view();
    assert!(view.endpoints.len() >= 20 && !view.complete, "{}", net.picture());
    net.input(2, own(2, 0..10));
    assert!(net.shows_all(2, 30), "{}", net.picture());
}
