//! Changes of many entries.

use std::time::Duration;

use netprog::plan::Knowledge;
use netprog::plane::{Place, Plane};
use netprog::programmer::{Look, PassReport, Programmer};
use netprog_linux::drift::Doorbell;
use netprog_linux::{HeldSpaces, LinuxKernel};

use super::world::World;

#[path = "../../../tests/growth/world.rs"]
#[expect(dead_code, reason = "shared with the tests of netprog")]
mod world;

/// Three entries each: 40,000 in all.
const ENDPOINTS: u32 = 13_334;
const RING_WAIT_MAX: Duration = Duration::from_secs(10);

fn pass(
    programmer: &mut Programmer<LinuxKernel<HeldSpaces>>,
    desired: &Plane,
    look: &Look,
) -> PassReport {
    let report = programmer.pass(desired, Knowledge::Complete, look);
    assert_eq!(report.failures, []);
    report
}

/// Goal: our own change calls for no reading, however large it is. Method: many entries come and
/// go; then another program changes one thing on the host, and that is all that is heard.
#[test]
fn a_large_change_of_ours_does_not_ring() {
    let mut programmer = Programmer::new(World::new().kernel);
    let bell = programmer.kernel().doorbell();
    let few = world::desired(10);
    pass(&mut programmer, &few, &Look::Remember);
    let many = world::desired(ENDPOINTS);
    for desired in [&many, &few, &many] {
        let change = pass(&mut programmer, desired, &Look::Remember);
        assert!(change.operations > 40_000 && !change.dumped, "{}", change.operations);
    }
    assert_eq!(heard_with_one_on_the_host(&mut programmer, &bell), [Place::Host]);
    let repair = pass(&mut programmer, &many, &Look::At([Place::Host].into()));
    assert_eq!((repair.operations, repair.drift), (1, 1));
    let check = pass(&mut programmer, &many, &Look::Whole);
    assert_eq!((check.operations, check.drift), (0, 0));
}

fn heard_with_one_on_the_host(
    programmer: &mut Programmer<LinuxKernel<HeldSpaces>>,
    bell: &Doorbell,
) -> Vec<Place> {
    let interfere = || {
        let mut ip = std::process::Command::new("ip");
        ip.args(["addr", "add", "172.18.0.9/16", "dev", "skein_gwbridge"]).status()
    };
    let status = programmer.kernel().run(Place::Host, interfere).unwrap().unwrap();
    assert!(status.success());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let listen = async { tokio::time::timeout(RING_WAIT_MAX, bell.answer()).await };
    runtime.block_on(listen).unwrap().into_keys().collect()
}
