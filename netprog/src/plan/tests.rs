use std::collections::BTreeSet;

use cluster::view::Liveness;
use proptest::prelude::*;

use super::*;
use crate::fake::FakeKernel;
use crate::fixture::{REDIS, VOTE, WEB, World, node, task};
use crate::kernel::Kernel;
use crate::local::Balancer;
use crate::op::{EntryOp, IpvsOp, Kind, LinkOp, NftChange, Op, RouteOp, SpaceOp};
use crate::plane::element::{Element, Part};
use crate::render::render;

const TASKS_MAX: u8 = 6;

#[derive(Debug, Clone)]
struct TaskState {
    node: u8,
    /// Not up, unhealthy, healthy.
    row: Option<bool>,
    draining: bool,
}

fn task_state() -> impl Strategy<Value = Option<TaskState>> {
    let row = prop_oneof![Just(None), Just(Some(false)), Just(Some(true))];
    let some = (1_u8..=3, row, any::<bool>()).prop_map(|(node, row, draining)| TaskState {
        node,
        row,
        draining,
    });
    proptest::option::of(some)
}

prop_compose! {
    fn world()(
        tasks in proptest::collection::vec(task_state(), usize::from(TASKS_MAX)),
        suspects in proptest::collection::btree_set(2_u8..=3, 0..=2),
        mtu in prop_oneof![Just(1500_u32), Just(9000)],
        vtep in 1_u8..=2,
        without_web in proptest::bool::weighted(0.2),
        balancer in prop_oneof![Just(Balancer::Nft), Just(Balancer::Ipvs)],
    ) -> World {
        let mut world = build(&tasks, &suspects, (mtu, vtep), without_web);
        world.local.balancer = balancer;
        world
    }
}

fn build(
    tasks: &[Option<TaskState>],
    suspects: &BTreeSet<u8>,
    (mtu, vtep): (u32, u8),
    without_web: bool,
) -> World {
    let mut world = World::new();
    for (n, state) in (1..).zip(tasks) {
        let Some(state) = state else { continue };
        // A task's service and attachments never change.
        world.add(n, if n % 2 == 0 { VOTE } else { REDIS }, state.node);
        world.assignment.tasks.get_mut(&task(n)).unwrap().draining = state.draining;
        if let Some(healthy) = state.row {
            world.up(n, healthy);
        }
    }
    for n in suspects {
        world.view.liveness.insert(node(*n), Liveness::Suspect);
    }
    world.local.underlay_mtu = mtu;
    world.local.vtep = crate::fixture::ip(&format!("192.168.51.{vtep}"));
    if without_web {
        world.assignment.networks.remove(&WEB);
    }
    world
}

fn desired(world: &World) -> Plane {
    render(&world.assignment, &world.view, &world.local)
}

/// Supervisors make the sandboxes before the plane is rendered.
fn prepare(kernel: &mut FakeKernel) {
    for n in 1..=TASKS_MAX {
        kernel.create_sandbox(task(n));
    }
}

/// One pass; what it did.
fn pass(kernel: &mut FakeKernel, desired: &Plane, knowledge: Knowledge) -> Vec<Op> {
    let observed = kernel.observe(desired).unwrap();
    let ops = plan(desired, &observed, knowledge);
    let failed = kernel.apply(&ops);
    assert!(failed.is_empty(), "{failed:?}");
    ops
}

fn text(ops: &[Op]) -> String {
    ops.iter().map(|op| format!("{op}\n")).collect()
}

fn removes(op: &Op) -> bool {
    match &op.kind {
        Kind::Space(op) => *op == SpaceOp::Delete,
        Kind::NewLink(_) | Kind::Sysctl(_) => false,
        Kind::Link(op) => match op {
            LinkOp::Delete(_) => true,
            LinkOp::Set(..) => false,
        },
        Kind::Route(op) => match op {
            RouteOp::DeleteAddress(..) | RouteOp::DeleteRoute(_) | RouteOp::DeleteRule(_) => true,
            RouteOp::AddAddress(..) | RouteOp::AddRoute(_) | RouteOp::AddRule(_) => false,
        },
        Kind::Entry(op) => op.deletes(),
        Kind::Ipvs(op) => match op {
            IpvsOp::DeleteService(_) | IpvsOp::DeleteReal(..) => true,
            IpvsOp::SetService(..) | IpvsOp::SetReal(..) | IpvsOp::SetTimeouts(_) => false,
        },
        Kind::Nft(op) => match &op.change {
            NftChange::Delete | NftChange::DeleteElement(..) => true,
            NftChange::Load(_) | NftChange::AddElement(..) => false,
            NftChange::SetMapElement { old, .. } => old.is_some(),
        },
    }
}

/// The change of a table that an operation is.
fn nft(op: &Op) -> Option<&NftChange> {
    match &op.kind {
        Kind::Nft(op) => Some(&op.change),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn after_a_pass_nothing_is_left_to_do(first in world(), second in world(), bare: bool) {
        let mut kernel = if bare { FakeKernel::bare() } else { FakeKernel::new() };
        prepare(&mut kernel);
        for world in [&first, &second, &first] {
            let desired = desired(world);
            pass(&mut kernel, &desired, Knowledge::Complete);
            let again = pass(&mut kernel, &desired, Knowledge::Complete);
            prop_assert!(again.is_empty(), "{}", text(&again));
        }
    }

    /// Goal: the end does not depend on the way there. Method: from the same start, once in one
    /// pass, once stopped after a prefix and planned again.
    #[test]
    fn a_crash_anywhere_leads_to_the_same_end(
        first in world(),
        second in world(),
        cut in 0.0_f64..1.0,
    ) {
        let mut straight = FakeKernel::new();
        prepare(&mut straight);
        pass(&mut straight, &desired(&first), Knowledge::Complete);
        let mut crashed = straight.clone();
        let desired = desired(&second);
        pass(&mut straight, &desired, Knowledge::Complete);

        let ops = plan(&desired, &crashed.observe(&desired).unwrap(), Knowledge::Complete);
        let prefix = (ops.len() as f64 * cut) as usize;
        crashed.apply(&ops[..prefix]);
        pass(&mut crashed, &desired, Knowledge::Complete);
        let different = difference(&mut straight, &mut crashed, &desired);
        prop_assert!(different.is_empty(), "{}", different);
    }

    #[test]
    fn failures_are_made_good_by_the_next_pass(
        world in world(),
        faults in proptest::collection::btree_set(0_u64..400, 1..4),
    ) {
        let desired = desired(&world);
        let mut straight = FakeKernel::new();
        prepare(&mut straight);
        pass(&mut straight, &desired, Knowledge::Complete);
        let mut faulty = FakeKernel::new();
        prepare(&mut faulty);
        for n in faults {
            faulty.fail(n);
        }
        for _ in 0..2 {
            let observed = faulty.observe(&desired).unwrap();
            faulty.apply(&plan(&desired, &observed, Knowledge::Complete));
        }
        pass(&mut faulty, &desired, Knowledge::Complete);
        let different = difference(&mut straight, &mut faulty, &desired);
        prop_assert!(different.is_empty(), "{}", different);
    }

    #[test]
    fn partial_knowledge_removes_nothing(first in world(), second in world()) {
        let mut kernel = FakeKernel::new();
        prepare(&mut kernel);
        pass(&mut kernel, &desired(&first), Knowledge::Complete);
        let desired = desired(&second);
        let observed = kernel.observe(&desired).unwrap();
        let ops = plan(&desired, &observed, Knowledge::Partial);
        prop_assert!(!ops.iter().any(removes), "{}", text(&ops));
    }

    /// A backend is live before a slot leads to it, and has lost its slots before it is not live;
    /// a virtual service is there before a mark leads to it, and until after none does.
    #[test]
    fn nothing_ever_leads_to_what_is_not_there(first in world(), second in world()) {
        let mut kernel = FakeKernel::new();
        prepare(&mut kernel);
        pass(&mut kernel, &desired(&first), Knowledge::Complete);
        let desired = desired(&second);
        let ops = plan(&desired, &kernel.observe(&desired).unwrap(), Knowledge::Complete);
        for op in &ops {
            kernel.apply(std::slice::from_ref(op));
            prop_assert!(slots_are_live(kernel.contents()), "after {}", op);
            prop_assert!(marks_are_served(kernel.contents()), "after {}", op);
        }
    }
}

/// What a reader of both kernels sees differ.
fn difference(a: &mut FakeKernel, b: &mut FakeKernel, desired: &Plane) -> String {
    let (a, b) = (a.observe(desired).unwrap(), b.observe(desired).unwrap());
    if a == b {
        return String::new();
    }
    let (a, b) = (a.to_string(), b.to_string());
    let only = |x: &str, y: &str| -> String {
        x.lines().filter(|line| !y.contains(line)).map(|line| format!("{line}\n")).collect()
    };
    format!("only in the first:\n{}only in the second:\n{}", only(&a, &b), only(&b, &a))
}

fn slots_are_live(plane: &Plane) -> bool {
    plane.spaces.values().flat_map(|space| space.nft.values()).all(|table| {
        let Some(live) = table.sets.get("live") else { return true };
        table.maps["slots"].iter().all(|(key, mac)| {
            live.contains(&Element::of([key.parts()[0].clone(), mac.parts()[0].clone()]))
        })
    })
}

fn marks_are_served(plane: &Plane) -> bool {
    plane.spaces.values().all(|space| {
        let marks = space.nft.values().filter_map(|table| table.maps.get("marks")).flatten();
        marks.map(|(_, mark)| mark.parts()).all(|mark| {
            let [Part::Mark(fwmark)] = *mark else { return false };
            space.ipvs.contains_key(&crate::plane::ipvs::VirtualKey { ipv6: false, fwmark })
        })
    })
}

fn redis(tasks: &[(u8, u8)]) -> World {
    let mut world = World::new();
    for (n, on) in tasks {
        world.add(*n, REDIS, *on).up(*n, true);
    }
    world
}

#[test]
fn a_remote_backend_comes_and_goes() {
    let mut kernel = FakeKernel::new();
    prepare(&mut kernel);
    pass(&mut kernel, &desired(&redis(&[(1, 1)])), Knowledge::Complete);
    let shown = |ops: &[Op]| {
        let is_slot = |op: &&Op| matches!(nft(op), Some(NftChange::SetMapElement { .. }));
        let slots = ops.iter().filter(is_slot).count();
        let others = ops.iter().filter(|op| !is_slot(op));
        format!("{}{slots} slots\n", text(&others.cloned().collect::<Vec<_>>()))
    };
    let both = desired(&redis(&[(1, 1), (2, 2)]));
    let came = shown(&pass(&mut kernel, &both, Knowledge::Complete));
    let gone = shown(&pass(&mut kernel, &desired(&redis(&[(1, 1)])), Knowledge::Complete));
    expect_test::expect_file!["../../testdata/plan/backend.txt"]
        .assert_eq(&format!("{came}--\n{gone}"));
}

#[test]
fn a_remote_backend_of_ipvs_comes_drains_and_goes() {
    let mut kernel = FakeKernel::new();
    prepare(&mut kernel);
    let planned = |kernel: &mut FakeKernel, mut world: World| {
        world.local.balancer = Balancer::Ipvs;
        text(&pass(kernel, &desired(&world), Knowledge::Complete))
    };
    planned(&mut kernel, redis(&[(1, 1)]));
    let came = planned(&mut kernel, redis(&[(1, 1), (2, 2)]));
    let mut draining = redis(&[(1, 1), (2, 2)]);
    draining.assignment.tasks.get_mut(&task(2)).unwrap().draining = true;
    let drained = planned(&mut kernel, draining);
    let gone = planned(&mut kernel, redis(&[(1, 1)]));
    expect_test::expect_file!["../../testdata/plan/backend_ipvs.txt"]
        .assert_eq(&format!("{came}--\n{drained}--\n{gone}"));
}

#[test]
fn a_node_starts_from_nothing() {
    let mut kernel = FakeKernel::bare();
    kernel.create_sandbox(task(1));
    let mut world = World::new();
    world.add(1, VOTE, 1).up(1, true);
    let ops = pass(&mut kernel, &desired(&world), Knowledge::Partial);
    expect_test::expect_file!["../../testdata/plan/start.txt"].assert_eq(&text(&ops));
}

#[test]
fn a_sandbox_that_does_not_exist_is_waited_for() {
    let mut kernel = FakeKernel::new();
    let world = redis(&[(1, 1)]);
    let ops = pass(&mut kernel, &desired(&world), Knowledge::Complete);
    assert!(!text(&ops).contains("sandbox"), "{}", text(&ops));
    kernel.create_sandbox(task(1));
    assert!(!pass(&mut kernel, &desired(&world), Knowledge::Complete).is_empty());
    kernel.delete_sandbox(task(1));
    let observed = kernel.observe(&desired(&world)).unwrap();
    assert!(plan(&desired(&world), &observed, Knowledge::Complete).is_empty());
}

#[test]
fn what_others_made_stays() {
    let mut kernel = FakeKernel::new();
    kernel.create_sandbox(task(1));
    let foreign = Link {
        kind: crate::plane::LinkKind::Other("tun".to_owned()),
        up: true,
        mtu: 1500,
        mac: None,
        master: None,
        alias: String::new(),
        port: None,
    };
    kernel.add_link(Place::Host, "eth0", foreign.clone());
    kernel.add_link(Place::Sandbox(task(1)), "tun0", foreign);
    pass(&mut kernel, &desired(&redis(&[(1, 1)])), Knowledge::Complete);
    pass(&mut kernel, &Plane::default(), Knowledge::Complete);
    assert!(kernel.contents().spaces[&Place::Host].links.contains_key("eth0"));
    assert!(kernel.contents().spaces[&Place::Sandbox(task(1))].links.contains_key("tun0"));
}

#[test]
fn interference_is_put_right_with_few_operations() {
    let mut kernel = FakeKernel::new();
    prepare(&mut kernel);
    let desired = desired(&redis(&[(1, 1), (2, 2)]));
    pass(&mut kernel, &desired, Knowledge::Complete);
    let (key, _) = desired.spaces[&Place::Fabric(WEB)].fdb.iter().next().unwrap();
    kernel.interfere(&Op::new(Place::Fabric(WEB), EntryOp::DeleteFdb(key.clone()))).unwrap();
    let ops = pass(&mut kernel, &desired, Knowledge::Complete);
    assert_eq!(ops.len(), 1, "{}", text(&ops));
}

/// Goal: a node that joins loses no frame, and one that is not heard of yet after a restart stays
/// accepted. Method: the plan when the node becomes known, and the plans when it no longer is.
#[test]
fn a_vtep_is_let_in_first_and_shut_out_with_full_knowledge_only() {
    let mut before = World::new();
    before.add(2, REDIS, 2).up(2, true);
    let after = before.clone();
    before.assignment.nodes.remove(&node(2));
    let mut kernel = FakeKernel::new();
    let settle =
        plan(&desired(&before), &kernel.observe(&Plane::default()).unwrap(), Knowledge::Complete);
    assert_eq!(kernel.apply(&settle), []);
    let observed = kernel.observe(&desired(&after)).unwrap();
    let ops = plan(&desired(&after), &observed, Knowledge::Complete);
    let lets_in = |op: &Op| {
        op.place == Place::Host
            && matches!(nft(op), Some(NftChange::AddElement(set, _)) if set == "vteps")
    };
    let let_in = ops.iter().position(lets_in).unwrap();
    let is_remote = |op: &Op| matches!(op.kind, Kind::Entry(EntryOp::SetFdb(_, Some(_))));
    let sent = ops.iter().position(is_remote).unwrap();
    assert!(let_in < sent, "{ops:?}");
    assert_eq!(kernel.apply(&ops), []);
    let observed = kernel.observe(&desired(&before)).unwrap();
    assert_eq!(plan(&desired(&before), &observed, Knowledge::Partial), []);
    let ops = plan(&desired(&before), &observed, Knowledge::Complete);
    let shut_out = |op: &Op| {
        op.place == Place::Host
            && matches!(nft(op), Some(NftChange::DeleteElement(set, _)) if set == "vteps")
    };
    assert!(ops.iter().any(shut_out), "{ops:?}");
}
