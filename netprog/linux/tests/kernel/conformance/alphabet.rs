//! Operations over few names, so that random sequences meet the same things again.

use std::net::IpAddr;

use cluster::net::MacAddr;
use netprog::op::{EntryOp, LinkChange, LinkOp, NewLink, NftChange, Op, RouteOp, SpaceOp};
use netprog::plane::element::{Element, Part};
use netprog::plane::{
    Family, FdbKey, FdbTable, Place, Plane, PortFlags, Route, Rule, Space, Table, TableKey,
    VethPair,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::kernel::world::{FABRIC, SANDBOX, bridge, cidr, up, vxlan};

/// MAC addresses of endpoints.
const MACS: [MacAddr; 2] = [MacAddr([2, 0x42, 10, 0, 0, 5]), MacAddr([2, 0x42, 10, 0, 0, 6])];
/// MAC addresses that links are given. Not those of endpoints: a bridge keeps the addresses of its
/// ports as its own, and an entry that names one goes.
pub(super) const LINK_MACS: [MacAddr; 3] = [
    MacAddr([2, 0x42, 10, 0, 0, 1]),
    MacAddr([2, 0x42, 10, 0, 0, 0xf0]),
    MacAddr([2, 0, 0, 0, 0, 7]),
];
const FABRIC_LINKS: [&str; 5] = ["br0", "br1", "vx0", "v0", "v1"];
const SANDBOX_LINKS: [&str; 2] = ["eth0", "eth1"];
const SETS: [&str; 2] = ["live", "missing"];

fn text(name: &str) -> String {
    name.to_owned()
}

/// A bridge with a VXLAN device and one end of a veth pair as ports, all up.
pub(super) fn furniture() -> Vec<Op> {
    vec![
        Op::new(FABRIC, SpaceOp::Create),
        Op::new(FABRIC, NewLink::Device(text("br0"), bridge("skein:net"))),
        Op::new(FABRIC, NewLink::Device(text("vx0"), vxlan("127.0.0.1", 4096))),
        Op::veth(pair("v0", "eth0")),
        Op::new(FABRIC, LinkOp::Set(text("vx0"), LinkChange::Master(Some(text("br0"))))),
        Op::new(FABRIC, LinkOp::Set(text("v0"), LinkChange::Master(Some(text("br0"))))),
        up(FABRIC, "br0"),
        up(FABRIC, "vx0"),
        up(FABRIC, "v0"),
        up(SANDBOX, "eth0"),
        Op::new(SANDBOX, RouteOp::AddAddress(text("eth0"), cidr("10.0.0.2/24"))),
        Op::nft(FABRIC, table_key(), NftChange::Load(table())),
    ]
}

/// Names what must be asked for by name.
pub(super) fn desired() -> Plane {
    let mut plane = Plane::default();
    for (place, links) in [(FABRIC, &FABRIC_LINKS[..]), (SANDBOX, &SANDBOX_LINKS[..])] {
        let mut space = Space::default();
        space.sysctls.extend(links.iter().map(|link| (sysctl(link), text("1"))));
        space.nft.insert(table_key(), table());
        plane.spaces.insert(place, space);
    }
    plane
}

fn sysctl(link: &str) -> String {
    format!("net/ipv4/conf/{link}/accept_local")
}

fn pair(outer: &str, inner: &str) -> VethPair {
    VethPair { outer: (FABRIC, text(outer)), inner: (SANDBOX, text(inner)) }
}

fn table_key() -> TableKey {
    TableKey { family: Family::Bridge, name: text("skein") }
}

fn live(mac: MacAddr) -> Element {
    Element::of([Part::V4([10, 0, 0, 15].into()), Part::Mac(mac)])
}

fn mark(mark: u32) -> Element {
    Element::of([Part::Mark(mark)])
}

fn value(mac: MacAddr) -> Element {
    Element::of([Part::Mac(mac)])
}

fn table() -> Table {
    Table {
        digest: text("d"),
        structure: text(
            "set live { type ipv4_addr . ether_addr; }\nmap slots { type mark : ether_addr; }",
        ),
        sets: [(text("live"), [live(MACS[0])].into())].into(),
        maps: [(text("slots"), [(mark(0), value(MACS[0]))].into())].into(),
    }
}

/// A place and a link there, which may not exist.
fn link() -> impl Strategy<Value = (Place, String)> {
    prop_oneof![
        3 => select(&FABRIC_LINKS[..]).prop_map(|name| (FABRIC, text(name))),
        2 => select(&SANDBOX_LINKS[..]).prop_map(|name| (SANDBOX, text(name))),
    ]
}

fn mac() -> impl Strategy<Value = MacAddr> + Clone {
    select(&MACS[..])
}

fn change() -> impl Strategy<Value = LinkChange> {
    let master = prop_oneof![Just(None), select(&["br0", "br1"][..]).prop_map(Some)];
    prop_oneof![
        any::<bool>().prop_map(LinkChange::Up),
        select(&[1400_u32, 1450][..]).prop_map(LinkChange::Mtu),
        select(&LINK_MACS[..]).prop_map(LinkChange::Mac),
        master.prop_map(|master| LinkChange::Master(master.map(text))),
        select(&["skein:a", "skein:b"][..]).prop_map(|alias| LinkChange::Alias(text(alias))),
        any::<[bool; 5]>().prop_map(|[learning, flood, hairpin, isolated, proxied]| {
            LinkChange::Port(PortFlags { learning, flood, hairpin, isolated, proxied })
        }),
    ]
}

fn links() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => Just(Op::new(FABRIC, SpaceOp::Create)),
        1 => Just(Op::new(FABRIC, SpaceOp::Delete)),
        3 => (select(&["v0", "v1"][..]), select(&SANDBOX_LINKS[..]))
            .prop_map(|(outer, inner)| Op::veth(pair(outer, inner))),
        2 => select(&["br0", "br1"][..])
            .prop_map(|name| Op::new(FABRIC, NewLink::Device(text(name), bridge("skein:net")))),
        1 => Just(Op::new(FABRIC, NewLink::Device(text("vx0"), vxlan("127.0.0.1", 4096)))),
        2 => link().prop_map(|(place, name)| Op::new(place, LinkOp::Delete(name))),
        12 => (link(), change())
            .prop_map(|((place, name), change)| Op::new(place, LinkOp::Set(name, change))),
    ]
}

fn addresses() -> impl Strategy<Value = Op> {
    let address = select(&["10.0.0.2/24", "10.1.0.2/24"][..]);
    let route = (
        // A default route without a gateway would make every gateway reachable.
        select(
            &[
                ("0.0.0.0/0", Some("10.0.0.1")),
                ("0.0.0.0/0", Some("10.1.0.1")),
                ("10.7.0.0/16", Some("10.1.0.1")),
                ("10.7.0.0/16", None),
            ][..],
        ),
        select(&[254_u32, 101][..]),
        select(&SANDBOX_LINKS[..]),
    )
        .prop_map(|((destination, via), table, device)| Route {
            table,
            destination: cidr(destination),
            local: false,
            via: via.map(|via| via.parse().unwrap()),
            device: text(device),
        });
    let rule = (select(&[20_u32, 21][..]), select(&[1_u32, 2][..]))
        .prop_map(|(priority, fwmark)| Rule { priority, fwmark, table: 101, ipv6: false });
    let sandbox_link = select(&SANDBOX_LINKS[..]);
    let addressed = (sandbox_link, address).prop_map(|(link, a)| (text(link), cidr(a)));
    prop_oneof![
        addressed
            .clone()
            .prop_map(|(link, cidr)| Op::new(SANDBOX, RouteOp::AddAddress(link, cidr))),
        addressed.prop_map(|(link, cidr)| Op::new(SANDBOX, RouteOp::DeleteAddress(link, cidr))),
        route.clone().prop_map(|route| Op::new(SANDBOX, RouteOp::AddRoute(route))),
        route.prop_map(|route| Op::new(SANDBOX, RouteOp::DeleteRoute(route))),
        rule.clone().prop_map(|rule| Op::new(SANDBOX, RouteOp::AddRule(rule))),
        rule.prop_map(|rule| Op::new(SANDBOX, RouteOp::DeleteRule(rule))),
        (link(), select(&["0", "1"][..])).prop_map(|((place, link), value)| Op::sysctl(
            place,
            sysctl(&link),
            text(value)
        )),
    ]
}

fn entries() -> impl Strategy<Value = Op> {
    // Planes only speak of the own table of VXLAN devices.
    let key = (select(&FABRIC_LINKS[..]), mac(), any::<bool>()).prop_map(|(device, mac, own)| {
        let own = own && device == "vx0";
        let table = if own { FdbTable::Device } else { FdbTable::Bridge };
        FdbKey { device: text(device), mac, table }
    });
    let vtep =
        select(&["192.0.2.2", "192.0.2.3"][..]).prop_map(|vtep| vtep.parse::<IpAddr>().unwrap());
    let set = (key.clone(), vtep).prop_map(|(key, vtep)| {
        let vtep = (key.table == FdbTable::Device).then_some(vtep);
        Op::new(FABRIC, EntryOp::SetFdb(key, vtep))
    });
    let neighbour = (select(&FABRIC_LINKS[..]), select(&["10.0.0.5", "10.0.0.6"][..]))
        .prop_map(|(device, address)| (text(device), address.parse::<IpAddr>().unwrap()));
    prop_oneof![
        2 => set,
        1 => key.prop_map(|key| Op::new(FABRIC, EntryOp::DeleteFdb(key))),
        2 => (neighbour.clone(), mac())
            .prop_map(|((device, a), mac)| Op::new(FABRIC, EntryOp::SetNeighbour(device, a, mac))),
        1 => neighbour.prop_map(|(device, a)| Op::new(FABRIC, EntryOp::DeleteNeighbour(device, a))),
    ]
}

fn nft() -> impl Strategy<Value = Op> {
    let place = prop_oneof![3 => Just(FABRIC), 1 => Just(SANDBOX)];
    let element = (place.clone(), select(&SETS[..]), mac().prop_map(live));
    let values = prop_oneof![
        2 => mac().prop_map(|new| (None, Some(new))),
        2 => (mac(), mac()).prop_map(|(old, new)| (Some(old), Some(new))),
        1 => mac().prop_map(|old| (Some(old), None)),
    ];
    let slot = (place.clone(), select(&[0, 1][..]), values);
    prop_oneof![
        1 => place.clone().prop_map(|place| Op::nft(place, table_key(), NftChange::Load(table()))),
        1 => place.prop_map(|place| Op::nft(place, table_key(), NftChange::Delete)),
        3 => element.clone().prop_map(|(place, set, element)| {
            Op::nft(place, table_key(), NftChange::AddElement(text(set), element))
        }),
        3 => element.prop_map(|(place, set, element)| {
            Op::nft(place, table_key(), NftChange::DeleteElement(text(set), element))
        }),
        4 => slot.prop_map(|(place, key, (old, new))| {
            let (old, new) = (old.map(value), new.map(value));
            let change = NftChange::SetMapElement { map: text("slots"), key: mark(key), old, new };
            Op::nft(place, table_key(), change)
        }),
    ]
}

/// Any operation.
pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![5 => links(), 3 => addresses(), 3 => entries(), 2 => nft()]
}
