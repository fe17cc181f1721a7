//! A kernel with a host namespace of its own, and shorthands.

use std::process::Command;

use cluster::id::{NetworkId, TaskId};
use netprog::kernel::Kernel;
use netprog::op::{LinkChange, LinkOp, Op, SpaceOp};
use netprog::plane::ipnet_text::Cidr;
use netprog::plane::{Link, LinkKind, Place, Plane, Space};
use netprog_linux::namespace::Namespace;
use netprog_linux::spaces::new_namespace;
use netprog_linux::{HeldSpaces, LinuxKernel, Spaces};

/// The network of most tests.
pub(crate) const NETWORK: NetworkId = NetworkId(0xabc);
/// Its fabric.
pub(crate) const FABRIC: Place = Place::Fabric(NETWORK);
/// A sandbox.
pub(crate) const TASK: TaskId = TaskId(7);
/// Its place.
pub(crate) const SANDBOX: Place = Place::Sandbox(TASK);

pub(crate) struct World {
    pub(crate) kernel: LinuxKernel<HeldSpaces>,
}

impl World {
    /// An empty host.
    pub(crate) fn new() -> Self {
        Self { kernel: LinuxKernel::new(HeldSpaces::new(new_namespace().unwrap())) }
    }

    /// With a fabric and a sandbox.
    pub(crate) fn furnished() -> Self {
        let mut world = Self::new();
        world.kernel.spaces().create_sandbox(TASK).unwrap();
        world.done(&[Op::new(FABRIC, SpaceOp::Create), up(SANDBOX, "lo"), up(Place::Host, "lo")]);
        world
    }

    /// Forgets what it knows of the fabric, as a daemon that starts again.
    pub(crate) fn restart(&mut self) {
        self.kernel.release(FABRIC);
    }

    /// Applies operations that must all succeed.
    #[track_caller]
    pub(crate) fn done(&mut self, ops: &[Op]) {
        assert_eq!(self.kernel.apply(ops), [], "{ops:#?}");
    }

    /// Applies one operation that must fail, and returns the error's text.
    #[track_caller]
    pub(crate) fn refused(&mut self, op: Op) -> String {
        let failed = self.kernel.apply(std::slice::from_ref(&op));
        let [(0, error)] = failed.as_slice() else { panic!("{op:?}: {failed:?}") };
        error.to_string()
    }

    /// What the namespace holds; `desired` names what must be asked for by name.
    pub(crate) fn see(&mut self, place: Place, desired: &Plane) -> Space {
        self.kernel.observe(desired).unwrap().spaces.remove(&place).unwrap()
    }

    /// What the namespace holds that is listed without being named.
    pub(crate) fn seen(&mut self, place: Place) -> Space {
        self.see(place, &Plane::default())
    }

    /// Runs a command line as somebody else would, and returns what it prints.
    pub(crate) fn run(&mut self, place: Place, line: &str) -> String {
        let namespace = Namespace::enter("elsewhere", self.open(place)).unwrap();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let run = move || Command::new(&words[0]).args(&words[1..]).output();
        let output = namespace.run(run).unwrap().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The namespace for a test's own sockets.
    pub(crate) fn open(&mut self, place: Place) -> std::os::fd::OwnedFd {
        self.kernel.spaces().open(place).unwrap().unwrap()
    }
}

pub(crate) fn up(place: Place, link: &str) -> Op {
    Op::new(place, LinkOp::Set(link.to_owned(), LinkChange::Up(true)))
}

pub(crate) fn cidr(text: &str) -> Cidr {
    let (address, prefix_len) = text.split_once('/').unwrap();
    Cidr { address: address.parse().unwrap(), prefix_len: prefix_len.parse().unwrap() }
}

pub(crate) fn bridge(alias: &str) -> Link {
    Link {
        kind: LinkKind::Bridge,
        up: false,
        mtu: 1450,
        mac: Some("02:42:0a:00:00:01".parse().unwrap()),
        master: None,
        alias: alias.to_owned(),
        port: None,
    }
}

pub(crate) fn vxlan(local: &str, vni: u32) -> Link {
    Link {
        kind: LinkKind::Vxlan {
            vni: vni.try_into().unwrap(),
            local: local.parse().unwrap(),
            port: 4789,
        },
        up: false,
        mtu: 1450,
        mac: Some("02:42:0a:00:00:f0".parse().unwrap()),
        master: None,
        alias: "skein:net".to_owned(),
        port: None,
    }
}
