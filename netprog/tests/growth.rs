//! What work grows with. Eight times the endpoints may cost about eight times the time: where every
//! entry is held against every other one it is up to 64 times.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use netprog::fake::FakeKernel;
use netprog::kernel::{Kernel, KernelError};
use netprog::op::{EntryOp, Kind, NftChange, Op, RouteOp};
use netprog::plan::{Knowledge, plan};
use netprog::plane::{FdbKey, FdbTable, Place, Plane, Route};
use netprog::programmer::{Look, PassReport, Programmer};

#[path = "growth/world.rs"]
mod world;

const FEW: u32 = 2_500;
const MANY: u32 = 8 * FEW;
/// By far from both: caches and allocation cost something, too.
const RATIO_MAX: u32 = 22;
/// The shortest of some runs is the one that other programs disturbed least.
const RUNS: usize = 3;

fn pass(programmer: &mut Programmer<FakeKernel>, desired: &Plane, look: &Look) -> PassReport {
    let report = programmer.pass(desired, Knowledge::Complete, look);
    assert_eq!(report.failures, []);
    report
}

fn programmed(desired: &Plane) -> Programmer<FakeKernel> {
    let mut programmer = Programmer::new(FakeKernel::new());
    pass(&mut programmer, desired, &Look::Remember);
    programmer
}

/// Holds the time of `work` on [`MANY`] against that on [`FEW`]; what `prepare` does is not
/// measured.
#[track_caller]
fn grows_evenly<T>(what: &str, prepare: impl Fn(u32) -> T, work: impl Fn(T)) {
    let shortest = |endpoints| {
        let times = (0..RUNS).map(|_| {
            let prepared = prepare(endpoints);
            timed(|| work(prepared))
        });
        times.min().unwrap()
    };
    let (few, many) = (shortest(FEW), shortest(MANY));
    assert!(many < few * RATIO_MAX, "{what}: {few:?} for {FEW} endpoints, {many:?} for {MANY}");
}

#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

/// Goal: the copy of what is observed is changed entry by entry, whatever it holds already.
#[test]
fn a_cold_start_grows_with_the_endpoints() {
    grows_evenly("a cold start", world::desired, |desired| drop(programmed(&desired)));
}

/// Goal: what drifted is found without holding every operation against every other one. Method:
/// another program takes all entries away.
#[test]
fn repair_grows_with_what_drifted() {
    let wrecked = |endpoints| {
        let desired = world::desired(endpoints);
        let mut programmer = programmed(&desired);
        for op in world::wreck(&desired) {
            programmer.kernel().interfere(&op).unwrap();
        }
        (programmer, desired)
    };
    grows_evenly("repair", wrecked, |(mut programmer, desired)| {
        let report = pass(&mut programmer, &desired, &Look::Whole);
        assert_eq!(report.drift, world::wreck(&desired).len());
    });
}

/// Goal: whether an entry was replaced is not looked for among all of them. Method: the plan that
/// removes all entries but those of as many other endpoints, moves each MAC address in the
/// bridge's table to another port, and replaces each route.
#[test]
fn removal_grows_with_what_is_removed() {
    let moved = |endpoints| {
        let there = world::desired(2 * endpoints);
        let mut wanted = world::desired(endpoints);
        let space = wanted.spaces.get_mut(&Place::Fabric(world::NETWORK)).unwrap();
        let in_bridge = |key: &FdbKey| key.table == FdbTable::Bridge;
        let ports: Vec<FdbKey> = space.fdb.keys().filter(|key| in_bridge(key)).cloned().collect();
        for key in ports {
            space.fdb.remove(&key);
            space.fdb.insert(FdbKey { device: "elsewhere".to_owned(), ..key }, None);
        }
        let through = |route: &Route| Route { device: "elsewhere".to_owned(), ..route.clone() };
        space.routes = space.routes.iter().map(through).collect();
        (wanted, there)
    };
    grows_evenly("removal", moved, |(wanted, there)| {
        let ops = plan(&wanted, &there, Knowledge::Complete);
        let removed = |op: &&Op| {
            matches!(
                op.kind,
                Kind::Entry(EntryOp::DeleteFdb(_)) | Kind::Route(RouteOp::DeleteRoute(_))
            )
        };
        let endpoints = there.spaces[&Place::Fabric(world::NETWORK)].neighbours.len() / 2;
        assert_eq!(ops.iter().filter(removed).count(), 2 * endpoints + endpoints / 10);
    });
}

/// Tells how often each namespace was read.
struct Watched {
    kernel: FakeKernel,
    read: Vec<Place>,
}

impl Kernel for Watched {
    fn read(
        &mut self,
        desired: &Plane,
        only: Option<&BTreeSet<Place>>,
    ) -> Result<Plane, KernelError> {
        let plane = self.kernel.read(desired, only)?;
        self.read.extend(plane.spaces.keys());
        Ok(plane)
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<(usize, KernelError)> {
        self.kernel.apply(ops)
    }
}

/// Goal: what was disturbed is read once in a pass, and nothing else; what drifted elsewhere stays
/// until that is read.
#[test]
fn only_what_was_disturbed_is_read() {
    let desired = world::desired(10);
    let fabric = Place::Fabric(world::NETWORK);
    let watched = Watched { kernel: FakeKernel::new(), read: Vec::new() };
    let mut programmer = Programmer::new(watched);
    let mut look = |look: &Look, disturb: &[Op]| {
        let kernel = programmer.kernel();
        kernel.read.clear();
        disturb.iter().for_each(|op| kernel.kernel.interfere(op).unwrap());
        let report = programmer.pass(&desired, Knowledge::Complete, look);
        assert_eq!(report.failures, []);
        (report.drift, programmer.kernel().read.clone())
    };
    look(&Look::Remember, &[]);
    let wreck = world::wreck(&desired);
    let table = world::fabric(&desired).nft.keys().next().unwrap().clone();
    let on_host = desired.spaces[&Place::Host].nft.keys().next().unwrap().clone();
    let both = [
        wreck[0].clone(),
        Op::nft(fabric, table, NftChange::Delete),
        Op::nft(Place::Host, on_host, NftChange::Delete),
    ];
    let of = |place| Look::At(BTreeSet::from([place]));
    assert_eq!(look(&of(fabric), &both), (2, vec![fabric]));
    assert_eq!(look(&of(fabric), &[]), (0, vec![fabric]));
    assert_eq!(look(&of(Place::Host), &[]), (1, vec![Place::Host]));
    assert_eq!(look(&Look::Remember, &[]), (0, vec![]));
    assert_eq!(look(&Look::Whole, &[]), (0, vec![Place::Host, fabric]));
}
