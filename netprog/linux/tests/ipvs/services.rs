//! What another tool sees of our services, and what we see of its changes.

use std::process::Command;

use cluster::id::NetworkId;
use netprog::kernel::Kernel;
use netprog::op::{IpvsOp, Op, SpaceOp};
use netprog::plane::ipvs::{
    FLAG_FALLBACK, FLAG_PORT, Scheduler, Timeouts, VirtualEntry, VirtualKey,
};
use netprog::plane::{Place, Plane};
use netprog_linux::spaces::new_namespace;
use netprog_linux::{HeldSpaces, LinuxKernel};

const FABRIC: Place = Place::Fabric(NetworkId(0xabc));
const KEY: VirtualKey = VirtualKey { ipv6: false, fwmark: 0x0a00_0102 };
const KEY_SIX: VirtualKey = VirtualKey { ipv6: true, fwmark: 2 };

fn mh() -> Scheduler {
    Scheduler { name: "mh".to_owned(), flags: FLAG_FALLBACK | FLAG_PORT }
}

struct Fabric(LinuxKernel<HeldSpaces>);

impl Fabric {
    /// With two services and three real servers.
    fn new() -> Self {
        let mut kernel = LinuxKernel::new(HeldSpaces::new(new_namespace().unwrap()));
        let real = |key, address: &str, weight| {
            Op::new(FABRIC, IpvsOp::SetReal(key, address.parse().unwrap(), weight))
        };
        let ops = [
            Op::new(FABRIC, SpaceOp::Create),
            Op::new(FABRIC, IpvsOp::SetService(KEY, mh())),
            Op::new(FABRIC, IpvsOp::SetService(KEY_SIX, mh())),
            real(KEY, "10.0.1.11", 1),
            real(KEY, "10.0.1.12", 1),
            real(KEY_SIX, "fd00:a::11", 1),
            real(KEY, "10.0.1.12", 0),
        ];
        assert_eq!(kernel.apply(&ops), []);
        Self(kernel)
    }

    /// Runs `ipvsadm` there, as an administrator would.
    fn ipvsadm(&mut self, words: &str) -> String {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let job = move || Command::new("ipvsadm").args(words).output();
        let output = self.0.run(FABRIC, job).unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn seen(&mut self) -> Vec<(VirtualKey, VirtualEntry)> {
        let mut plane = self.0.observe(&Plane::default()).unwrap();
        plane.spaces.remove(&FABRIC).unwrap().ipvs.into_iter().collect()
    }
}

#[test]
fn ipvsadm_sees_what_was_meant() {
    let shown = Fabric::new().ipvsadm("-Sn");
    let mut rules: Vec<&str> = shown.lines().map(str::trim).collect();
    rules.sort_unstable();
    let expected = [
        "-A -f 167772418 -s mh -b mh-fallback,mh-port",
        "-A -f 2 -6 -s mh -b mh-fallback,mh-port",
        "-a -f 167772418 -r 10.0.1.11:0 -g -w 1",
        "-a -f 167772418 -r 10.0.1.12:0 -g -w 0",
        "-a -f 2 -6 -r [fd00:a::11]:0 -g -w 1",
    ];
    assert_eq!(rules, expected, "{shown}");
}

#[test]
fn what_was_set_is_seen_again() {
    let seen = Fabric::new().seen();
    let weights: Vec<_> = seen
        .iter()
        .flat_map(|(key, entry)| entry.real.iter().map(|(a, w)| (*key, a.to_string(), *w)))
        .collect();
    let expected = [
        (KEY, "10.0.1.11".to_owned(), 1),
        (KEY, "10.0.1.12".to_owned(), 0),
        (KEY_SIX, "fd00:a::11".to_owned(), 1),
    ];
    assert_eq!(weights, expected);
    assert!(seen.iter().all(|(_, entry)| entry.scheduler == mh()), "{seen:?}");
}

#[test]
fn timeouts_are_as_set_and_seen_again() {
    let mut fabric = Fabric::new();
    let seen = |fabric: &mut Fabric| {
        let mut plane = fabric.0.observe(&Plane::default()).unwrap();
        plane.spaces.remove(&FABRIC).unwrap().ipvs_timeouts
    };
    assert_eq!(seen(&mut fabric), None);
    let timeouts = Timeouts { tcp: 86_400, tcp_fin: 121, udp: 301 };
    assert_eq!(fabric.0.apply(&[Op::new(FABRIC, IpvsOp::SetTimeouts(timeouts))]), []);
    let shown = fabric.ipvsadm("-L --timeout");
    assert!(shown.contains("86400 121 301"), "{shown}");
    assert_eq!(seen(&mut fabric), Some(timeouts));
    fabric.ipvsadm("--set 900 120 300");
    assert_eq!(seen(&mut fabric), None);
}

#[test]
fn what_another_hand_changed_is_seen() {
    let mut fabric = Fabric::new();
    fabric.ipvsadm("-e -f 167772418 -r 10.0.1.11:0 -m -w 1");
    fabric.ipvsadm("-E -f 2 -6 -s rr");
    // One by address is not in our words, and is left alone.
    fabric.ipvsadm("-A -t 10.9.9.9:80 -s rr");
    let seen = fabric.seen();
    assert_eq!(seen.len(), 2);
    let (_, entry) = &seen[0];
    // By another method, so its weight is read as an invalid one.
    assert_eq!(entry.real[&"10.0.1.11".parse().unwrap()], u32::MAX);
    assert_eq!(seen[1].1.scheduler.name, "rr");
}
