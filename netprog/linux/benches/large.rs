//! What a pass over many new endpoints costs on a real kernel, and what the same entries cost when
//! `bridge -batch` and `ip -batch` write them: the kernel's own time, more or less.
//!
//! `cargo bench -p netprog-linux --bench large`; needs root; sizes are arguments: `-- 10000`.
#![allow(clippy::unwrap_used, reason = "a benchmark ends at the first surprise")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use netprog::plan::Knowledge;
use netprog::plane::{FdbTable, Place, Space};
use netprog::programmer::{Look, Programmer};
use netprog_linux::spaces::new_namespace;
use netprog_linux::{HeldSpaces, LinuxKernel};

#[expect(dead_code, reason = "shared with the tests of netprog")]
#[path = "../../tests/growth/world.rs"]
mod world;

const SIZES: [u32; 2] = [10_000, 100_000];
/// The local routing table.
const TABLE_LOCAL: u32 = 255;

fn main() {
    let given: Vec<u32> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let sizes = if given.is_empty() { SIZES.to_vec() } else { given };
    for endpoints in sizes {
        let by_pass = pass(endpoints);
        let by_tools = batches(endpoints);
        let ratio = by_pass / by_tools;
        let mut out = std::io::stdout();
        writeln!(
            out,
            "{endpoints:>7} endpoints: a pass {by_pass:.0} ms, batches {by_tools:.0} ms, {ratio:.2}"
        )
        .unwrap();
    }
}

fn programmer() -> Programmer<LinuxKernel<HeldSpaces>> {
    let mut programmer =
        Programmer::new(LinuxKernel::new(HeldSpaces::new(new_namespace().unwrap())));
    let report = programmer.pass(&world::desired(0), Knowledge::Complete, &Look::Remember);
    assert_eq!(report.failures, []);
    programmer
}

fn pass(endpoints: u32) -> f64 {
    let (mut programmer, desired) = (programmer(), world::desired(endpoints));
    timed(|| {
        let report = programmer.pass(&desired, Knowledge::Complete, &Look::Remember);
        assert_eq!(report.failures, []);
    })
}

/// The FDB, neighbour and route entries alone: no VIP is put into the balancer, so the tools have
/// less to do than a pass.
fn batches(endpoints: u32) -> f64 {
    let mut programmer = programmer();
    let desired = world::desired(endpoints);
    let (bridge, ip) = lines(world::fabric(&desired));
    timed(|| {
        for (tool, lines) in [("bridge", bridge), ("ip", ip)] {
            let run = move || {
                let command =
                    Command::new(tool).args(["-batch", "-"]).stdin(Stdio::piped()).spawn();
                let mut child = command.unwrap();
                child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
                child.wait().unwrap().success()
            };
            let place = Place::Fabric(world::NETWORK);
            assert!(programmer.kernel().run(place, run).unwrap(), "{tool}");
        }
    })
}

fn lines(space: &Space) -> (String, String) {
    let (mut bridge, mut ip) = (String::new(), String::new());
    for (key, vtep) in &space.fdb {
        let (mac, device) = (key.mac, &key.device);
        match (key.table, vtep) {
            (FdbTable::Device, Some(vtep)) => {
                writeln!(bridge, "fdb replace {mac} dev {device} dst {vtep} self permanent")
            }
            (FdbTable::Device, None) => Ok(()),
            (FdbTable::Bridge, _) => {
                writeln!(bridge, "fdb replace {mac} dev {device} master static")
            }
        }
        .unwrap();
    }
    for ((device, address), mac) in &space.neighbours {
        writeln!(ip, "neigh replace {address} lladdr {mac} dev {device} nud permanent").unwrap();
    }
    for route in space.routes.iter().filter(|route| route.table == TABLE_LOCAL) {
        let (destination, device) = (&route.destination, &route.device);
        writeln!(ip, "route replace local {destination} dev {device} table local").unwrap();
    }
    (bridge, ip)
}

#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn timed(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64() * 1_000.0
}
