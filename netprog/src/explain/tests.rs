use expect_test::{ExpectFile, expect_file};

use super::*;
use crate::fake::FakeKernel;
use crate::fixture::{REDIS, VOTE, WEB, World, task};
use crate::kernel::Kernel;
use crate::op::{EntryOp, Op};
use crate::plan::Knowledge;
use crate::plane::Place;
use crate::programmer::{Look, Programmer};
use crate::render::render;

/// `vote` (task 3) calls redis, one replica here and one on node 2.
fn small() -> World {
    let mut world = World::new();
    world.add(1, REDIS, 1).add(2, REDIS, 2).add(3, VOTE, 1);
    world.up(1, true).up(2, true).up(3, true);
    world
}

/// The hops as the client prints them, after somebody has interfered with the kernel.
fn check(world: &World, to: &str, interference: &[Op], expected: ExpectFile) {
    let mut kernel = FakeKernel::new();
    kernel.create_sandbox(task(1));
    kernel.create_sandbox(task(3));
    let mut programmer = Programmer::new(kernel);
    let desired = render(&world.assignment, &world.view, &world.local);
    assert_eq!(programmer.pass(&desired, Knowledge::Complete, &Look::Remember).failures, []);
    for op in interference {
        programmer.kernel().interfere(op).unwrap();
    }
    let observed = programmer.kernel().observe(&desired).unwrap();
    let hops = explain(&Call {
        assignment: &world.assignment,
        view: &world.view,
        observed: &observed,
        balancer: world.local.balancer,
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
    check(&small(), "redis", &[], expect_file!["../../testdata/explain/vip.txt"]);
}

#[test]
fn a_call_to_a_vip_of_ipvs() {
    let mut world = small();
    world.local.balancer = crate::local::Balancer::Ipvs;
    check(&world, "redis", &[], expect_file!["../../testdata/explain/vip_ipvs.txt"]);
}

#[test]
fn what_is_missing_is_named() {
    let fabric = Place::Fabric(WEB);
    let world = small();
    let desired = render(&world.assignment, &world.view, &world.local);
    let fdb = desired.spaces[&fabric].fdb.iter().find(|(_, vtep)| vtep.is_some()).unwrap();
    let interference = [Op::new(fabric, EntryOp::DeleteFdb(fdb.0.clone()))];
    check(&world, "10.0.1.12", &interference, expect_file!["../../testdata/explain/missing.txt"]);
}

#[test]
fn calls_that_lead_nowhere() {
    check(&small(), "example.org", &[], expect_file!["../../testdata/explain/forwarded.txt"]);
    check(&small(), "10.0.1.77", &[], expect_file!["../../testdata/explain/nobody.txt"]);
    check(&small(), "192.0.2.1", &[], expect_file!["../../testdata/explain/outside.txt"]);
    let mut world = small();
    world.up(1, false);
    world.view.endpoints.retain(|_, row| row.node == crate::fixture::node(1));
    check(&world, "redis", &[], expect_file!["../../testdata/explain/no_backend.txt"]);
    check(&world, "tasks.redis", &[], expect_file!["../../testdata/explain/no_task.txt"]);
}
