use expect_test::{Expect, expect};

use super::*;
use crate::fake::FakeKernel;
use crate::fixture::{REDIS, VOTE, WEB, World, task};
use crate::kernel::Kernel;
use crate::op::Op;
use crate::plan::Knowledge;
use crate::plane::Place;
use crate::programmer::Programmer;
use crate::render::render;

/// `vote` (task 3) calls redis, one replica here and one on node 2.
fn small() -> World {
    let mut world = World::new();
    world.add(1, REDIS, 1).add(2, REDIS, 2).add(3, VOTE, 1);
    world.up(1, true).up(2, true).up(3, true);
    world
}

/// The hops as the client prints them, after somebody has interfered with the kernel.
fn check(world: &World, to: &str, interference: &[Op], expected: Expect) {
    let mut kernel = FakeKernel::new();
    kernel.create_sandbox(task(1));
    kernel.create_sandbox(task(3));
    let mut programmer = Programmer::new(kernel);
    let desired = render(&world.assignment, &world.view, &world.local).unwrap();
    assert_eq!(programmer.pass(&desired, Knowledge::Complete, false).failures, []);
    for op in interference {
        programmer.kernel().interfere(op).unwrap();
    }
    let observed = programmer.kernel().observe(&desired).unwrap();
    let hops = explain(&Call {
        assignment: &world.assignment,
        view: &world.view,
        observed: &observed,
        from: task(3),
        to,
        port: Some(6379),
    });
    let mut text = String::new();
    for hop in hops {
        let mark = if hop.ok { "ok " } else { "BAD" };
        text += &format!("{mark} {}: {}\n", hop.stage, hop.summary);
        for entry in hop.entries {
            let mark = if entry.present { "  +" } else { "  -" };
            text += &format!("{mark} {}: {}\n", entry.place, entry.entry);
        }
    }
    expected.assert_eq(&text);
}

#[test]
fn a_call_to_a_vip() {
    check(
        &small(),
        "redis",
        &[],
        expect![[r#"
        ok  dns: redis is 10.0.1.2
          + sandbox-06e6fzvs4580fijomz4kiyxhf: table ip skein: dns redirect
        ok  vip: 10.0.1.2:6379 is the VIP of redis on web: ov-001001-51vbb of this node answers for it
          + fabric-51vbb0nzpwjw9bjwtj5zvlkd1: route local 10.0.1.2/32 dev lo table 255
          + fabric-51vbb0nzpwjw9bjwtj5zvlkd1: vips { 10.0.1.2 }
        ok  backend: by the caller's port, one of redis.1 on node1 (126 slots), redis.2 on node2 (125 slots)
          + fabric-51vbb0nzpwjw9bjwtj5zvlkd1: live { 10.0.1.2 . 02:42:0a:00:01:0b }
          + fabric-51vbb0nzpwjw9bjwtj5zvlkd1: slots { 10.0.1.2 . * : 02:42:0a:00:01:0b }: 126 of 126
          + fabric-51vbb0nzpwjw9bjwtj5zvlkd1: live { 10.0.1.2 . 02:42:0a:00:01:0c }
          + fabric-51vbb0nzpwjw9bjwtj5zvlkd1: slots { 10.0.1.2 . * : 02:42:0a:00:01:0c }: 125 of 125
        ok  path: redis.1 is on this node: by ve-024q5bylddqo into its sandbox
          + fabric-51vbb0nzpwjw9bjwtj5zvlkd1: fdb 02:42:0a:00:01:0b dev ve-024q5bylddqo master
        ok  arrival: redis.1 takes 10.0.1.2 for its own 10.0.1.11 and answers as the VIP
          + sandbox-024q5bylddqo566k7npiubn5t: own { 10.0.1.2 : 10.0.1.11 }
        ok  path: redis.2 at 10.0.1.12: by vx-001001-51vbb to node2's VTEP 192.168.50.2 (alive)
          + fabric-51vbb0nzpwjw9bjwtj5zvlkd1: fdb 02:42:0a:00:01:0c dev vx-001001-51vbb self dst 192.168.50.2
          + fabric-51vbb0nzpwjw9bjwtj5zvlkd1: fdb 02:42:0a:00:01:0c dev vx-001001-51vbb master
          + fabric-51vbb0nzpwjw9bjwtj5zvlkd1: neigh 10.0.1.12 lladdr 02:42:0a:00:01:0c dev vx-001001-51vbb
    "#]],
    );
}

#[test]
fn what_is_missing_is_named() {
    let fabric = Place::Fabric(WEB);
    let world = small();
    let desired = render(&world.assignment, &world.view, &world.local).unwrap();
    let fdb = desired.spaces[&fabric].fdb.iter().find(|(_, vtep)| vtep.is_some()).unwrap();
    let interference = [Op::DeleteFdb(fabric, fdb.0.clone())];
    check(
        &world,
        "10.0.1.12",
        &interference,
        expect![[r#"
        BAD path: redis.2 at 10.0.1.12: by vx-001001-51vbb to node2's VTEP 192.168.50.2 (alive)
          - fabric-51vbb0nzpwjw9bjwtj5zvlkd1: fdb 02:42:0a:00:01:0c dev vx-001001-51vbb self dst 192.168.50.2
          + fabric-51vbb0nzpwjw9bjwtj5zvlkd1: fdb 02:42:0a:00:01:0c dev vx-001001-51vbb master
          + fabric-51vbb0nzpwjw9bjwtj5zvlkd1: neigh 10.0.1.12 lladdr 02:42:0a:00:01:0c dev vx-001001-51vbb
    "#]],
    );
}

#[test]
fn calls_that_lead_nowhere() {
    check(
        &small(),
        "example.org",
        &[],
        expect![[r#"
            ok  dns: example.org is no name of this task's networks: it is asked of the host's resolvers
        "#]],
    );
    check(
        &small(),
        "10.0.1.77",
        &[],
        expect![[r#"
        BAD path: nothing has 10.0.1.77 on web
    "#]],
    );
    check(
        &small(),
        "192.0.2.1",
        &[],
        expect![[r#"
        ok  path: 192.0.2.1 is on no network of this task: it leaves by the egress bridge
    "#]],
    );
    let mut world = small();
    world.up(1, false);
    world.view.endpoints.retain(|_, row| row.node == crate::fixture::node(1));
    check(
        &world,
        "redis",
        &[],
        expect![[r#"
        ok  dns: redis is 10.0.1.2
          + sandbox-06e6fzvs4580fijomz4kiyxhf: table ip skein: dns redirect
        ok  vip: 10.0.1.2:6379 is the VIP of redis on web: ov-001001-51vbb of this node answers for it
          + fabric-51vbb0nzpwjw9bjwtj5zvlkd1: route local 10.0.1.2/32 dev lo table 255
          + fabric-51vbb0nzpwjw9bjwtj5zvlkd1: vips { 10.0.1.2 }
        BAD backend: no task of redis takes new flows: redis.1 is not healthy, redis.2 is not up
    "#]],
    );
    check(
        &world,
        "tasks.redis",
        &[],
        expect![[r#"
        BAD dns: tasks.redis is known, but nothing healthy and live answers to it
    "#]],
    );
}
