//! The fake kernel is held equal to the real one: the same operations fail, and the same planes
//! are observed.
//!
//! Method: both get a furnished node and then random operations from a small alphabet, so that
//! names meet. MAC addresses that a kernel draws are left out of the comparison.

mod alphabet;

use netprog::fake::FakeKernel;
use netprog::kernel::Kernel;
use netprog::op::Op;
use netprog::plane::{Place, Plane};
use netprog_linux::spaces::new_namespace;
use netprog_linux::{HeldSpaces, LinuxKernel};
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::world::{SANDBOX, TASK, up};

const CASES: u32 = 32;
const OPS_MAX: usize = 24;

/// What one kernel made of the operations.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    failed: Vec<String>,
    plane: String,
}

fn run(kernel: &mut impl Kernel, ops: &[Op]) -> (Outcome, Vec<String>) {
    assert_eq!(kernel.apply(&alphabet::furniture()), []);
    let failures = kernel.apply(ops);
    let failed = failures.iter().map(|(at, _)| format!("{at}: {}", ops[*at])).collect();
    let reasons = failures.iter().map(|(at, error)| format!("{at}: {error}")).collect();
    let plane = masked(kernel.observe(&alphabet::desired()).unwrap());
    (Outcome { failed, plane: plane.to_string() }, reasons)
}

/// Leaves out MAC addresses that nobody has set.
fn masked(mut plane: Plane) -> Plane {
    let links = plane.spaces.values_mut().flat_map(|space| space.links.values_mut());
    for link in links {
        link.mac = link.mac.filter(|mac| alphabet::LINK_MACS.contains(mac));
    }
    plane
}

fn real() -> LinuxKernel<HeldSpaces> {
    let mut kernel = LinuxKernel::new(HeldSpaces::new(new_namespace().unwrap()));
    kernel.spaces().create_sandbox(TASK).unwrap();
    assert_eq!(kernel.apply(&[up(SANDBOX, "lo"), up(Place::Host, "lo")]), []);
    kernel
}

fn fake() -> FakeKernel {
    let mut kernel = FakeKernel::new();
    kernel.create_sandbox(TASK);
    kernel
}

/// Lines that only one of them has.
fn difference(real: &Outcome, fake: &Outcome) -> Vec<String> {
    let lines = |outcome: &Outcome| -> Vec<String> {
        let failed = outcome.failed.iter().map(|op| format!("failed {op}"));
        failed.chain(outcome.plane.lines().map(str::to_owned)).collect()
    };
    let (real, fake) = (lines(real), lines(fake));
    let only = |these: &[String], those: &[String], who: &str| -> Vec<String> {
        let only = these.iter().filter(|line| !those.contains(line));
        only.map(|line| format!("only {who}: {line}")).collect()
    };
    [only(&real, &fake, "real"), only(&fake, &real, "fake")].concat()
}

proptest! {
    #![proptest_config(Config { cases: CASES, failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_fake_kernel_does_what_the_real_one_does(
        ops in prop::collection::vec(alphabet::op(), 0..OPS_MAX)
    ) {
        let (real, reasons) = run(&mut real(), &ops);
        let (fake, fake_reasons) = run(&mut fake(), &ops);
        let ops: Vec<String> = ops.iter().map(ToString::to_string).collect();
        prop_assert!(
            real == fake,
            "{}\n{:#?}\nreal: {:#?}\nfake: {:#?}",
            ops.join("\n"), difference(&real, &fake), reasons, fake_reasons
        );
    }
}
