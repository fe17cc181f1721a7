//! Each operation alone: applied, seen, applied again, undone, undone again.

use netprog::op::{EntryOp, LinkChange, LinkOp, NewLink, Op, RouteOp, SpaceOp};
use netprog::plane::{FdbKey, FdbTable, Place, Plane, PortFlags, Route, Rule, Space, VethPair};

use super::world::{FABRIC, NETWORK, SANDBOX, TASK, World, bridge, cidr, up, vxlan};

fn veth() -> Op {
    Op::veth(VethPair { outer: (FABRIC, "v0".to_owned()), inner: (SANDBOX, "eth0".to_owned()) })
}

/// A bridge `br0` with the VXLAN device `vx0` and one end of a veth pair as ports.
fn furnished() -> World {
    let mut world = World::furnished();
    world.done(&[
        Op::new(FABRIC, NewLink::Device("br0".to_owned(), bridge("skein:net"))),
        Op::new(FABRIC, NewLink::Device("vx0".to_owned(), vxlan("127.0.0.1", 4097))),
        veth(),
        Op::new(FABRIC, LinkOp::Set("vx0".to_owned(), LinkChange::Master(Some("br0".to_owned())))),
        Op::new(FABRIC, LinkOp::Set("v0".to_owned(), LinkChange::Master(Some("br0".to_owned())))),
        up(FABRIC, "br0"),
        up(FABRIC, "vx0"),
        up(FABRIC, "v0"),
        up(SANDBOX, "eth0"),
    ]);
    world
}

#[test]
fn fabrics_come_and_go() {
    let mut world = World::new();
    assert_eq!(world.kernel.spaces_seen(), ["host"]);
    for _twice in 0..2 {
        world.done(&[Op::new(FABRIC, SpaceOp::Create)]);
        assert_eq!(world.kernel.spaces_seen(), ["host", &format!("fabric-{NETWORK}")]);
    }
    for _twice in 0..2 {
        world.done(&[Op::new(FABRIC, SpaceOp::Delete)]);
        assert_eq!(world.kernel.spaces_seen(), ["host"]);
    }
    assert_eq!(
        world.refused(Op::new(SANDBOX, SpaceOp::Create)),
        format!("create namespace {SANDBOX}: {SANDBOX} is not a fabric: others make it")
    );
    assert_eq!(
        world.refused(up(FABRIC, "lo")),
        format!("set link lo up in {FABRIC}: there is no namespace {FABRIC}")
    );
}

/// A task that is launched again has a new sandbox by the same name: nothing may go into the old
/// one, although nothing was observed in between.
#[test]
fn a_sandbox_created_again_is_noticed() {
    let mut world = World::furnished();
    let address = |text| Op::new(SANDBOX, RouteOp::AddAddress("lo".to_owned(), cidr(text)));
    world.done(&[address("10.0.0.1/32")]);
    world.kernel.spaces().create_sandbox(TASK).unwrap();
    world.done(&[up(SANDBOX, "lo"), address("10.0.0.2/32")]);
    let old_or_new: Vec<String> =
        world.run(SANDBOX, "ip -o -4 addr show lo").lines().map(str::to_owned).collect();
    assert_eq!(old_or_new.len(), 2, "{old_or_new:?}");
    assert!(old_or_new[1].contains("10.0.0.2/32"));
}

trait SpacesSeen {
    fn spaces_seen(&mut self) -> Vec<String>;
}

impl<K: netprog::kernel::Kernel> SpacesSeen for K {
    fn spaces_seen(&mut self) -> Vec<String> {
        let plane = self.observe(&Plane::default()).unwrap();
        plane.spaces.keys().map(ToString::to_string).collect()
    }
}

#[test]
fn links_are_made_as_described() {
    let mut world = furnished();
    let space = world.seen(FABRIC);
    let mut expected = bridge("skein:net");
    expected.up = true;
    assert_eq!(space.links["br0"], expected);
    let mut expected = vxlan("127.0.0.1", 4097);
    expected.up = true;
    expected.master = Some("br0".to_owned());
    expected.port = Some(PortFlags {
        learning: true,
        flood: true,
        hairpin: false,
        isolated: false,
        proxied: false,
    });
    assert_eq!(space.links["vx0"], expected);
    assert_eq!(space.links.len(), 3);
    assert!(world.seen(SANDBOX).links["eth0"].up);
}

#[test]
fn every_property_of_a_link_is_set_and_seen() {
    let mut world = furnished();
    let port =
        PortFlags { learning: false, flood: false, hairpin: true, isolated: true, proxied: true };
    let set = |change| Op::new(FABRIC, LinkOp::Set("v0".to_owned(), change));
    world.done(&[
        set(LinkChange::Mtu(1400)),
        set(LinkChange::Mac("02:00:00:00:00:05".parse().unwrap())),
        set(LinkChange::Alias("skein:task".to_owned())),
        set(LinkChange::Port(port)),
    ]);
    let link = world.seen(FABRIC).links["v0"].clone();
    assert_eq!(link.mtu, 1400);
    assert_eq!(link.mac, "02:00:00:00:00:05".parse().ok());
    assert_eq!(link.alias, "skein:task");
    assert_eq!(link.port, Some(port));
    assert_eq!(link.master.as_deref(), Some("br0"));

    world.done(&[set(LinkChange::Master(None)), set(LinkChange::Up(false))]);
    let link = world.seen(FABRIC).links["v0"].clone();
    assert_eq!((link.master, link.port, link.up), (None, None, false));
}

#[test]
fn refusals_name_what_was_tried() {
    let mut world = furnished();
    assert_eq!(
        world.refused(up(FABRIC, "nix0")),
        format!("set link nix0 up in {FABRIC}: no device nix0 (no such device)")
    );
    let again = Op::new(FABRIC, NewLink::Device("vx1".to_owned(), vxlan("127.0.0.1", 4097)));
    let refusal = world.refused(again);
    assert!(
        refusal.starts_with(&format!(
            "create VXLAN device with VNI 4097 at 127.0.0.1 port 4789 vx1 in {FABRIC}: "
        )) && refusal.ends_with("(file exists)"),
        "{refusal}"
    );
    let refusal = world.refused(veth());
    assert!(refusal.to_lowercase().ends_with("file exists"), "{refusal}");
}

#[test]
fn a_deleted_link_takes_its_peer_along() {
    let mut world = furnished();
    for _twice in 0..2 {
        world.done(&[Op::new(FABRIC, LinkOp::Delete("v0".to_owned()))]);
    }
    assert!(!world.seen(FABRIC).links.contains_key("v0"));
    assert_eq!(world.seen(SANDBOX).links, Space::default().links);
}

#[test]
fn addresses_routes_and_rules_round_trip() {
    let mut world = furnished();
    let route = |destination, local, via: Option<&str>, table, device: &str| Route {
        table,
        destination: cidr(destination),
        local,
        via: via.map(|via| via.parse().unwrap()),
        device: device.to_owned(),
    };
    let addresses = ["10.0.0.2/24", "fd00::2/64"];
    let routes = [
        route("0.0.0.0/0", false, Some("10.0.0.1"), 254, "eth0"),
        route("0.0.0.0/0", false, Some("10.0.0.1"), 1001, "eth0"),
        route("10.7.0.0/16", false, None, 254, "eth0"),
        route("10.0.0.15/32", true, None, 255, "lo"),
        route("fd00:1::/64", false, Some("fd00::1"), 254, "eth0"),
    ];
    let rules = [
        Rule { priority: 20, fwmark: 1, table: 1001, ipv6: false },
        Rule { priority: 21, fwmark: 2, table: 1001, ipv6: true },
    ];
    let mut ops = Vec::new();
    ops.extend(
        addresses.map(|a| Op::new(SANDBOX, RouteOp::AddAddress("eth0".to_owned(), cidr(a)))),
    );
    ops.extend(routes.clone().map(|route| Op::new(SANDBOX, RouteOp::AddRoute(route))));
    ops.extend(rules.clone().map(|rule| Op::new(SANDBOX, RouteOp::AddRule(rule))));
    for _twice in 0..2 {
        world.done(&ops);
        let space = world.seen(SANDBOX);
        let expected = addresses.map(|address| ("eth0".to_owned(), cidr(address)));
        assert_eq!(space.addresses, expected.into());
        assert_eq!(space.routes, routes.clone().into());
        assert_eq!(space.rules, rules.clone().into());
    }

    // A route to the same destination takes the place of the old one.
    let elsewhere = route("10.7.0.0/16", false, Some("10.0.0.9"), 254, "eth0");
    world.done(&[Op::new(SANDBOX, RouteOp::AddRoute(elsewhere.clone()))]);
    let routes_now = world.seen(SANDBOX).routes;
    assert!(routes_now.contains(&elsewhere) && routes_now.len() == routes.len());

    let mut undo = Vec::new();
    undo.extend(rules.map(|rule| Op::new(SANDBOX, RouteOp::DeleteRule(rule))));
    undo.extend(routes_now.into_iter().map(|route| Op::new(SANDBOX, RouteOp::DeleteRoute(route))));
    undo.extend(
        addresses.map(|a| Op::new(SANDBOX, RouteOp::DeleteAddress("eth0".to_owned(), cidr(a)))),
    );
    for _twice in 0..2 {
        world.done(&undo);
        let space = world.seen(SANDBOX);
        assert_eq!((space.addresses, space.routes, space.rules), Default::default());
    }
}

fn key(device: &str, mac: &str, table: FdbTable) -> FdbKey {
    FdbKey { device: device.to_owned(), mac: mac.parse().unwrap(), table }
}

#[test]
fn entries_are_replaced_and_deleted() {
    let mut world = furnished();
    let mac = "02:42:0a:00:00:05";
    let device = key("vx0", mac, FdbTable::Device);
    let port = key("vx0", mac, FdbTable::Bridge);
    let local = key("v0", "02:42:0a:00:00:06", FdbTable::Bridge);
    let address = "10.0.0.5".parse().unwrap();
    for vtep in ["192.0.2.2", "192.0.2.2", "192.0.2.3"] {
        let vtep = Some(vtep.parse().unwrap());
        world.done(&[
            Op::new(FABRIC, EntryOp::SetFdb(device.clone(), vtep)),
            Op::new(FABRIC, EntryOp::SetFdb(port.clone(), None)),
            Op::new(FABRIC, EntryOp::SetFdb(local.clone(), None)),
            Op::new(FABRIC, EntryOp::SetNeighbour("br0".to_owned(), address, mac.parse().unwrap())),
        ]);
        let space = world.seen(FABRIC);
        let fdb = [(device.clone(), vtep), (port.clone(), None), (local.clone(), None)];
        assert_eq!(space.fdb, fdb.into());
        let neighbours = [(("br0".to_owned(), address), mac.parse().unwrap())];
        assert_eq!(space.neighbours, neighbours.into());
    }

    // An entry that moves from one port to another exists once.
    let moved = key("v0", mac, FdbTable::Bridge);
    world.done(&[Op::new(FABRIC, EntryOp::SetFdb(moved.clone(), None))]);
    assert!(!world.seen(FABRIC).fdb.contains_key(&port));

    for _twice in 0..2 {
        world.done(&[
            Op::new(FABRIC, EntryOp::DeleteFdb(device.clone())),
            Op::new(FABRIC, EntryOp::DeleteFdb(moved.clone())),
            Op::new(FABRIC, EntryOp::DeleteFdb(local.clone())),
            Op::new(FABRIC, EntryOp::DeleteNeighbour("br0".to_owned(), address)),
            Op::new(FABRIC, EntryOp::DeleteFdb(key("nix0", mac, FdbTable::Device))),
        ]);
        let space = world.seen(FABRIC);
        assert_eq!((space.fdb, space.neighbours), Default::default());
    }
}

#[test]
fn one_bad_entry_among_a_thousand_is_named_and_the_others_are_set() {
    let mut world = furnished();
    let mut ops: Vec<Op> = (0..1000_u16)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            let mac = cluster::net::MacAddr([2, 0x42, 10, 0, high, low]);
            let device = FdbKey { device: "vx0".to_owned(), mac, table: FdbTable::Device };
            Op::new(FABRIC, EntryOp::SetFdb(device, "192.0.2.2".parse().ok()))
        })
        .collect();
    ops[300] =
        Op::new(FABRIC, EntryOp::SetFdb(key("nix0", "02:00:00:00:00:01", FdbTable::Device), None));
    // Without a destination the VXLAN device refuses.
    ops[700] =
        Op::new(FABRIC, EntryOp::SetFdb(key("vx0", "02:00:00:00:00:01", FdbTable::Device), None));
    let failed: Vec<usize> =
        netprog::kernel::Kernel::apply(&mut world.kernel, &ops).iter().map(|f| f.0).collect();
    assert_eq!(failed, [300, 700]);
    assert_eq!(world.seen(FABRIC).fdb.len(), 998);
}

const RETRANS_TIME: &str = "neigh/eth0/retrans_time_ms";

#[test]
fn sysctls_are_those_of_the_namespace() {
    let mut world = furnished();
    // The second one the kernel keeps in its own unit of time: it must read as it was written.
    for (name, values) in [("conf/eth0/accept_local", ["1", "0"]), (RETRANS_TIME, ["100", "1000"])]
    {
        let name = format!("net/ipv4/{name}");
        let mut desired = Plane::default();
        let mut wanted = Space::default();
        wanted.sysctls.insert(name.clone(), "1".to_owned());
        wanted.sysctls.insert("net/ipv4/nix".to_owned(), "1".to_owned());
        desired.spaces.insert(SANDBOX, wanted);
        for value in values {
            world.done(&[Op::sysctl(SANDBOX, name.clone(), value.to_owned())]);
            let seen = world.see(SANDBOX, &desired).sysctls;
            assert_eq!(seen, [(name.clone(), value.to_owned())].into());
        }
    }
    // Only the initial namespace has these, and need not: they are the machine's limits.
    let limit = "net/ipv4/neigh/default/gc_thresh1".to_owned();
    world.done(&[Op::sysctl(SANDBOX, limit, "8192".to_owned())]);
    for bad in ["kernel/hostname", "net/../kernel/hostname", "/etc/passwd", "net/ipv4/nix"] {
        world.refused(Op::sysctl(SANDBOX, bad.to_owned(), "x".to_owned()));
    }
}

#[test]
fn of_the_host_only_what_is_ours_is_seen() {
    let mut world = World::furnished();
    world.done(&[
        Op::new(Place::Host, NewLink::Device("skein0".to_owned(), bridge("skein:gwbridge"))),
        Op::new(Place::Host, NewLink::Device("foreign0".to_owned(), bridge("of others"))),
        Op::new(Place::Host, RouteOp::AddAddress("skein0".to_owned(), cidr("172.18.0.1/16"))),
        Op::new(Place::Host, RouteOp::AddAddress("foreign0".to_owned(), cidr("172.19.0.1/16"))),
        up(Place::Host, "skein0"),
        up(Place::Host, "foreign0"),
    ]);
    let space = world.seen(Place::Host);
    assert_eq!(space.links.keys().collect::<Vec<_>>(), ["skein0"]);
    assert_eq!(space.addresses, [("skein0".to_owned(), cidr("172.18.0.1/16"))].into());
}
