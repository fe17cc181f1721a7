use cluster::net::Addresses;
use cluster::object::Slot;
use cluster::view::Liveness;
use expect_test::{Expect, expect};

use super::*;
use crate::fixture::{REDIS, VOTE, WEB, World, node, task};

/// Redis in two replicas (tasks 1 and 2), `vote` in one (task 3), all up and healthy.
fn small() -> World {
    let mut world = World::new();
    world.add(1, REDIS, 1).add(2, REDIS, 2).add(3, VOTE, 1);
    world.up(1, true).up(2, true).up(3, true);
    world
}

fn ask(world: &World, asker: TaskId, kind: Kind, name: &str) -> String {
    let zone = Zone::build(&world.assignment, &world.view);
    let question = Question { name: name.to_owned(), kind };
    match answer(&zone, asker, &question) {
        Answer::Unknown => "forward".to_owned(),
        Answer::Confined => "confined".to_owned(),
        Answer::Known(found) if found.is_empty() => "empty".to_owned(),
        Answer::Known(found) => {
            let text = |data: &Data| match data {
                Data::Address(address) => address.to_string(),
                Data::Name(name) => name.clone(),
                Data::Service { port, target } => format!("{target}:{port}"),
            };
            found.iter().map(text).collect::<Vec<_>>().join("\n  ")
        }
    }
}

fn check(world: &World, questions: &[(Kind, &str)], expected: Expect) {
    let lines: Vec<String> = questions
        .iter()
        .map(|(kind, name)| format!("{kind:?} {name}: {}", ask(world, task(3), *kind, name)))
        .collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn every_form_of_a_name() {
    let id = task(2).to_string();
    check(
        &small(),
        &[
            (Kind::A, "redis"),
            (Kind::A, "ReDiS."),
            (Kind::A, "redis.web"),
            (Kind::A, "tasks.redis"),
            (Kind::A, "tasks.redis.web"),
            (Kind::A, &format!("redis.2.{id}")),
            (Kind::A, "task2.redis"),
            (Kind::A, &id[..12]),
            (Kind::A, "vote"),
            (Kind::Aaaa, "redis"),
            (Kind::Other, "redis"),
            (Kind::A, "redis.ingress"),
            (Kind::A, "ingress"),
            (Kind::A, "example.org"),
            (Kind::A, "task9.redis"),
        ],
        expect![[r#"
            A redis: 10.0.1.2
            A ReDiS.: 10.0.1.2
            A redis.web: 10.0.1.2
            A tasks.redis: 10.0.1.11
              10.0.1.12
            A tasks.redis.web: 10.0.1.11
              10.0.1.12
            A redis.2.049ganx6qrhcacd4fbf1onabm: 10.0.1.12
            A task2.redis: 10.0.1.12
            A 049ganx6qrhc: 10.0.1.12
            A vote: 10.0.1.3
            Aaaa redis: empty
            Other redis: empty
            A redis.ingress: forward
            A ingress: forward
            A example.org: forward
            A task9.redis: forward"#]],
    );
}

#[test]
fn addresses_and_ports_have_names() {
    let mut world = small();
    let mut port = world.assignment.services[&VOTE].ports[0].clone();
    port.name = "http".to_owned();
    world.assignment.services.get_mut(&VOTE).unwrap().ports[0] = port;
    world.assignment.services.get_mut(&REDIS).unwrap().vips.clear();
    check(
        &world,
        &[
            (Kind::Ptr, "3.1.0.10.in-addr.arpa"),
            (Kind::Ptr, "12.1.0.10.in-addr.arpa"),
            (Kind::Ptr, "99.1.0.10.in-addr.arpa"),
            (Kind::Ptr, "5.0.0.10.in-addr.arpa"),
            (Kind::Ptr, "1.10.in-addr.arpa"),
            (Kind::Srv, "_http._tcp.vote"),
            (Kind::Srv, "_http._udp.vote"),
            (Kind::Srv, "_6379._tcp.redis.web"),
            (Kind::Srv, "_http._tcp.example.org"),
            (Kind::Srv, "vote"),
        ],
        expect![[r#"
            Ptr 3.1.0.10.in-addr.arpa: vote.web
            Ptr 12.1.0.10.in-addr.arpa: redis.2.049ganx6qrhcacd4fbf1onabm.web
            Ptr 99.1.0.10.in-addr.arpa: empty
            Ptr 5.0.0.10.in-addr.arpa: forward
            Ptr 1.10.in-addr.arpa: forward
            Srv _http._tcp.vote: vote.web:80
            Srv _http._udp.vote: empty
            Srv _6379._tcp.redis.web: redis.1.024q5bylddqo566k7npiubn5t.web:6379
              redis.2.049ganx6qrhcacd4fbf1onabm.web:6379
            Srv _http._tcp.example.org: forward
            Srv vote: empty"#]],
    );
}

#[test]
fn without_a_vip_the_name_stands_for_all_tasks() {
    let mut world = small();
    world.assignment.services.get_mut(&REDIS).unwrap().vips.clear();
    assert_eq!(ask(&world, task(3), Kind::A, "redis"), "10.0.1.11\n  10.0.1.12");
}

#[test]
fn aliases_are_names_of_the_service() {
    let mut world = small();
    let redis = world.assignment.services.get_mut(&REDIS).unwrap();
    redis.aliases.insert(WEB, vec!["Cache".to_owned()]);
    assert_eq!(ask(&world, task(3), Kind::A, "cache"), "10.0.1.2");
    assert_eq!(ask(&world, task(3), Kind::A, "tasks.cache.web"), "empty");
}

/// Goal: in an update that gives another alias, each alias leads to the tasks that have it.
#[test]
fn an_alias_is_that_of_the_spec_that_a_task_was_made_from() {
    let mut world = small();
    let redis = world.assignment.services.get_mut(&REDIS).unwrap();
    redis.aliases.insert(WEB, vec!["store".to_owned()]);
    for (n, alias) in [(1, "cache"), (2, "store")] {
        let tasks = &mut world.assignment.tasks;
        tasks.get_mut(&task(n)).unwrap().attachments[0].aliases = vec![alias.to_owned()];
    }
    for (alias, address) in [("cache", "10.0.1.11"), ("store", "10.0.1.12")] {
        assert_eq!(ask(&world, task(3), Kind::A, alias), "10.0.1.2");
        assert_eq!(ask(&world, task(3), Kind::A, &format!("tasks.{alias}")), address);
    }
    world.assignment.services.get_mut(&REDIS).unwrap().vips.clear();
    for (alias, address) in [("cache", "10.0.1.11"), ("store", "10.0.1.12")] {
        assert_eq!(ask(&world, task(3), Kind::A, alias), address, "{alias} without a VIP");
    }
}

#[test]
fn only_tasks_that_take_new_flows_are_answered() {
    type Change = fn(&mut World);
    let table: &[(&str, Change, &str, &str)] = &[
        (
            "unhealthy",
            |w| {
                w.up(2, false);
            },
            "10.0.1.11",
            "empty",
        ),
        ("not up", |w| w.view.endpoints.retain(|_, row| row.node != node(2)), "10.0.1.11", "empty"),
        (
            "draining",
            |w| w.assignment.tasks.get_mut(&task(2)).unwrap().draining = true,
            "10.0.1.11",
            "empty",
        ),
        (
            "suspect",
            |w| {
                w.view.liveness.insert(node(2), Liveness::Suspect);
            },
            "10.0.1.11",
            "empty",
        ),
        (
            "suspect, and no other",
            |w| {
                w.up(1, false);
                w.view.liveness.insert(node(2), Liveness::Down);
            },
            "10.0.1.12",
            "10.0.1.12",
        ),
        ("none up", |w| w.view.endpoints.clear(), "empty", "empty"),
    ];
    for (name, change, all, second) in table {
        let mut world = small();
        change(&mut world);
        assert_eq!(ask(&world, task(3), Kind::A, "tasks.redis"), *all, "{name}");
        assert_eq!(ask(&world, task(3), Kind::A, "task2.redis"), *second, "{name}");
        assert_eq!(ask(&world, task(3), Kind::A, "redis"), "10.0.1.2", "{name}");
    }
}

#[test]
fn a_name_is_seen_only_from_its_networks() {
    let mut world = small();
    let asker = world.assignment.tasks.get_mut(&task(3)).unwrap();
    asker.attachments.retain(|attachment| attachment.network != WEB);
    assert_eq!(ask(&world, task(3), Kind::A, "redis"), "forward");
    assert_eq!(ask(&world, task(3), Kind::Ptr, "2.1.0.10.in-addr.arpa"), "forward");
    assert_eq!(ask(&world, task(77), Kind::A, "redis"), "confined");
}

#[test]
fn a_task_of_internal_networks_asks_nobody_else() {
    type Change = fn(&mut World);
    let internal: Change = |w| w.assignment.networks.get_mut(&WEB).unwrap().internal = true;
    let table: &[(&str, &[Change], u8, &str)] = &[
        ("on an open network", &[], 1, "forward"),
        ("on an internal one", &[internal], 1, "confined"),
        // It has a way out by the ingress network's leg, by names too.
        ("on ingress as well", &[internal], 3, "forward"),
        (
            "on none",
            &[|w| w.assignment.tasks.get_mut(&task(1)).unwrap().attachments.clear()],
            1,
            "forward",
        ),
    ];
    for (name, changes, asker, outside) in table {
        let mut world = small();
        for change in *changes {
            change(&mut world);
        }
        for kind in [Kind::A, Kind::Ptr, Kind::Srv, Kind::Other] {
            assert_eq!(ask(&world, task(*asker), kind, "example.org"), *outside, "{name}");
        }
        if *outside == "confined" {
            assert_eq!(ask(&world, task(*asker), Kind::A, "redis"), "10.0.1.2", "{name}");
        }
    }
}

#[test]
fn a_removed_service_gives_its_name_up() {
    let mut world = small();
    world.assignment.services.get_mut(&REDIS).unwrap().name.clear();
    assert_eq!(ask(&world, task(3), Kind::A, "redis"), "forward");
    assert_eq!(ask(&world, task(3), Kind::A, ""), "forward");
}

#[test]
fn global_tasks_have_no_numbered_name() {
    let mut world = small();
    world.assignment.tasks.get_mut(&task(2)).unwrap().slot = Slot::Node(node(2));
    assert_eq!(ask(&world, task(3), Kind::A, "task2.redis"), "forward");
}

/// Goal: a name has the addresses of both families, each in answers of its type. Method: a service
/// with a VIP of each, and a task of it with one of each.
#[test]
fn addresses_of_both_families_are_answered_by_type() {
    let mut world = World::new();
    world.add(1, REDIS, 1).add(3, VOTE, 1);
    let both = |four: [u8; 4], six: &str| Addresses::Both(four.into(), six.parse().unwrap());
    let vips = &mut world.assignment.services.get_mut(&REDIS).unwrap().vips;
    vips.insert(WEB, both([10, 0, 1, 2], "fd00::2"));
    let redis = world.assignment.tasks.get_mut(&task(1)).unwrap();
    redis.attachments[0].addresses = both([10, 0, 1, 11], "fd00::11");
    world.up(1, true).up(3, true);
    check(
        &world,
        &[
            (Kind::A, "redis"),
            (Kind::Aaaa, "redis"),
            (Kind::A, "tasks.redis"),
            (Kind::Aaaa, "tasks.redis"),
            (Kind::A, "task1.redis"),
            (Kind::Aaaa, "task1.redis"),
            (Kind::Aaaa, "vote"),
            (Kind::Ptr, "2.1.0.10.in-addr.arpa"),
        ],
        expect![[r#"
            A redis: 10.0.1.2
            Aaaa redis: fd00::2
            A tasks.redis: 10.0.1.11
            Aaaa tasks.redis: fd00::11
            A task1.redis: 10.0.1.11
            Aaaa task1.redis: fd00::11
            Aaaa vote: empty
            Ptr 2.1.0.10.in-addr.arpa: redis.web"#]],
    );
}

#[test]
fn reverse_names_are_read_as_they_are_written() {
    let cases = [
        ("4.3.2.1.in-addr.arpa", Some("1.2.3.4")),
        ("4.3.2.in-addr.arpa", None),
        ("5.4.3.2.1.in-addr.arpa", None),
        ("x.3.2.1.in-addr.arpa", None),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
            Some("fd00::1"),
        ),
        ("1.0.d.f.ip6.arpa", None),
    ];
    for (name, address) in cases {
        assert_eq!(reversed(name), address.map(crate::fixture::ip), "{name}");
    }
}
