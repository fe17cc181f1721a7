//! What each step from rows to a programmed kernel costs, by the number of endpoints, with the
//! fake kernel: rendering, planning, a cold start, one change, removal and repair of everything.
//!
//! `cargo bench -p netprog --bench large`; sizes are arguments: `-- 10000 100000`.
#![allow(clippy::unwrap_used, reason = "a benchmark ends at the first surprise")]

use std::io::Write as _;
use std::time::Instant;

use netprog::fake::FakeKernel;
use netprog::plan::{Knowledge, plan};
use netprog::plane::Plane;
use netprog::programmer::{Look, Programmer};

#[path = "../tests/growth/world.rs"]
mod world;

const SIZES: [u32; 2] = [10_000, 100_000];

fn main() {
    let given: Vec<u32> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let sizes = if given.is_empty() { SIZES.to_vec() } else { given };
    sizes.into_iter().for_each(round);
}

fn round(endpoints: u32) {
    let desired = timed(endpoints, "render", || world::desired(endpoints));
    let nothing = Plane::default();
    timed(endpoints, "plan from nothing", || plan(&desired, &nothing, Knowledge::Complete));
    timed(endpoints, "plan to the same", || plan(&desired, &desired, Knowledge::Complete));
    let mut programmer = Programmer::new(FakeKernel::new());
    let pass = |programmer: &mut Programmer<FakeKernel>, what, desired: &Plane, look| {
        let report =
            timed(endpoints, what, || programmer.pass(desired, Knowledge::Complete, &look));
        assert_eq!(report.failures, []);
        report
    };
    pass(&mut programmer, "cold start", &desired, Look::Remember);
    let more = world::desired(endpoints + 1);
    assert_eq!(pass(&mut programmer, "one endpoint more", &more, Look::Remember).operations, 3);
    for op in world::wreck(&more) {
        programmer.kernel().interfere(&op).unwrap();
    }
    let repaired = pass(&mut programmer, "repair of all entries", &more, Look::Whole);
    assert_eq!(repaired.drift, repaired.operations);
    pass(&mut programmer, "check", &more, Look::Whole);
    pass(&mut programmer, "removal of all endpoints", &world::desired(0), Look::Remember);
}

#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn timed<T>(endpoints: u32, what: &str, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = work();
    let took = begin.elapsed().as_secs_f64() * 1_000.0;
    let mut out = std::io::stdout();
    writeln!(out, "{endpoints:>7} endpoints  {what:<26} {took:>10.1} ms").unwrap();
    result
}
