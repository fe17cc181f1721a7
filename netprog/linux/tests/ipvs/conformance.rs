//! The fake kernel is held equal to the real one: the same operations on virtual services fail, and
//! the same services are observed. Method: random operations over few names, so that they meet.

use std::net::IpAddr;

use cluster::id::NetworkId;
use netprog::fake::FakeKernel;
use netprog::kernel::Kernel;
use netprog::op::{IpvsOp, Op, SpaceOp};
use netprog::plane::ipvs::{FLAG_FALLBACK, FLAG_PORT, Scheduler, Timeouts, VirtualKey};
use netprog::plane::{Place, Plane};
use netprog_linux::spaces::new_namespace;
use netprog_linux::{HeldSpaces, LinuxKernel};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;

const CASES: u32 = 64;
const OPS_MAX: usize = 24;
const FABRIC: Place = Place::Fabric(NetworkId(0xabc));
const KEYS: [VirtualKey; 3] = [
    VirtualKey { ipv6: false, fwmark: 1 },
    VirtualKey { ipv6: false, fwmark: u32::MAX },
    VirtualKey { ipv6: true, fwmark: 1 },
];
const ADDRESSES: [&str; 4] = ["10.0.0.5", "10.0.0.6", "fd00:a::5", "fd00:a::6"];

fn scheduler() -> impl Strategy<Value = Scheduler> {
    let flags = select(&[0, FLAG_PORT, FLAG_FALLBACK | FLAG_PORT][..]);
    (select(&["mh", "rr", "no-such"][..]), flags)
        .prop_map(|(name, flags)| Scheduler { name: name.to_owned(), flags })
}

fn op() -> impl Strategy<Value = Op> {
    let key = select(&KEYS[..]);
    let address = select(&ADDRESSES[..]).prop_map(|text| text.parse::<IpAddr>().unwrap());
    prop_oneof![
        1 => Just(Op::new(FABRIC, SpaceOp::Create)),
        1 => Just(Op::new(FABRIC, SpaceOp::Delete)),
        6 => (key.clone(), scheduler())
            .prop_map(|(key, scheduler)| Op::new(FABRIC, IpvsOp::SetService(key, scheduler))),
        2 => key.clone().prop_map(|key| Op::new(FABRIC, IpvsOp::DeleteService(key))),
        8 => (key.clone(), address.clone(), 0..3_u32)
            .prop_map(|(key, to, weight)| Op::new(FABRIC, IpvsOp::SetReal(key, to, weight))),
        1 => select(&[Timeouts::KERNEL, Timeouts { tcp: 86_400, tcp_fin: 90, udp: 60 }][..])
            .prop_map(|timeouts| Op::new(FABRIC, IpvsOp::SetTimeouts(timeouts))),
        3 => (key, address).prop_map(|(key, to)| Op::new(FABRIC, IpvsOp::DeleteReal(key, to))),
    ]
}

/// What failed, and what is there at the end.
fn run(kernel: &mut impl Kernel, ops: &[Op]) -> (Vec<String>, String) {
    assert_eq!(kernel.apply(&[Op::new(FABRIC, SpaceOp::Create)]), []);
    let failed = kernel.apply(ops).into_iter().map(|(at, _)| format!("{at}: {}", ops[at]));
    (failed.collect(), kernel.observe(&Plane::default()).unwrap().to_string())
}

proptest! {
    #![proptest_config(Config { cases: CASES, failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_fake_kernel_does_what_the_real_one_does(
        ops in prop::collection::vec(op(), 0..OPS_MAX)
    ) {
        let real = run(&mut LinuxKernel::new(HeldSpaces::new(new_namespace().unwrap())), &ops);
        let fake = run(&mut FakeKernel::new(), &ops);
        let ops: Vec<String> = ops.iter().map(ToString::to_string).collect();
        prop_assert!(real == fake, "{}\nreal: {:#?}\nfake: {:#?}", ops.join("\n"), real, fake);
    }
}
