//! Others change what is ours: the bell rings. Our own operations do not ring it.

use std::collections::BTreeMap;
use std::time::Duration;

use netprog::op::{EntryOp, LinkChange, LinkOp, NewLink, NftChange, Op, RouteOp};
use netprog::plane::{FdbKey, FdbTable, Place, Table, TableKey, VethPair};
use netprog_linux::drift::{Disturbance, Doorbell};

use super::world::{FABRIC, SANDBOX, World, bridge, cidr, up, vxlan};

const RING_WAIT_MAX: Duration = Duration::from_secs(10);

/// A node with something of everything, observed once, and nothing heard of it so far.
fn settled() -> (World, Doorbell) {
    let mut world = World::furnished();
    let text = |name: &str| name.to_owned();
    let mac = "02:42:0a:00:00:05".parse().unwrap();
    let key = FdbKey { device: text("vx0"), mac, table: FdbTable::Device };
    let table = TableKey { family: netprog::plane::Family::Bridge, name: "skein-lb".to_owned() };
    world.done(&[
        Op::new(FABRIC, NewLink::Device(text("br0"), bridge("skein:net"))),
        Op::new(FABRIC, NewLink::Device(text("vx0"), vxlan("127.0.0.1", 4098))),
        Op::veth(VethPair { outer: (FABRIC, text("v0")), inner: (SANDBOX, text("eth0")) }),
        Op::new(FABRIC, LinkOp::Set(text("vx0"), LinkChange::Master(Some(text("br0"))))),
        Op::new(FABRIC, EntryOp::SetFdb(key, "192.0.2.2".parse().ok())),
        Op::new(FABRIC, EntryOp::SetNeighbour(text("br0"), "10.0.0.5".parse().unwrap(), mac)),
        Op::nft(FABRIC, table, NftChange::Load(Table::default())),
        Op::new(Place::Host, NewLink::Device(text("skein0"), bridge("skein:gwbridge"))),
        Op::new(Place::Host, NewLink::Device(text("foreign0"), bridge("of others"))),
    ]);
    world.seen(FABRIC);
    let bell = world.kernel.doorbell();
    (world, bell)
}

/// All that is heard until it is this namespace.
fn heard_until(bell: &Doorbell, place: Place, what: &str) -> BTreeMap<Place, Disturbance> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let listen = async {
        let mut heard = BTreeMap::new();
        while !heard.contains_key(&place) {
            heard.extend(bell.answer().await);
        }
        heard
    };
    runtime
        .block_on(async { tokio::time::timeout(RING_WAIT_MAX, listen).await })
        .unwrap_or_else(|_| panic!("silence after {what}"))
}

#[test]
fn each_kind_of_change_rings_for_its_namespace() {
    let lines = [
        (FABRIC, "bridge fdb del 02:42:0a:00:00:05 dev vx0 dst 192.0.2.2 self"),
        (FABRIC, "ip neigh del 10.0.0.5 dev br0"),
        (FABRIC, "nft delete table bridge skein-lb"),
        (FABRIC, "ip link del v0"),
        (SANDBOX, "ip link set lo down"),
        (SANDBOX, "ip rule add pref 9 fwmark 9 lookup 9"),
        (FABRIC, "ip route add 10.9.0.0/24 dev lo"),
        (Place::Host, "ip addr add 172.18.0.9/16 dev skein0"),
        (Place::Host, "ip link set skein0 mtu 1400"),
    ];
    for (place, line) in lines {
        let (mut world, bell) = settled();
        world.run(place, line);
        let heard = heard_until(&bell, place, line);
        assert!(heard[&place].events > 0, "{line}: {heard:?}");
    }
}

/// Method: changes that must not ring, then one that must; only that one is heard.
#[test]
fn what_is_not_ours_and_what_we_do_ourselves_does_not_ring() {
    let (mut world, bell) = settled();
    world.run(Place::Host, "ip addr add 172.19.0.9/16 dev foreign0");
    world.run(Place::Host, "ip link set foreign0 mtu 1400");
    world.run(Place::Host, "nft add table inet filter");
    world.done(&[
        Op::new(FABRIC, RouteOp::AddAddress("br0".to_owned(), cidr("10.0.0.1/24"))),
        Op::new(
            FABRIC,
            EntryOp::SetNeighbour(
                "br0".to_owned(),
                "10.0.0.6".parse().unwrap(),
                "02:42:0a:00:00:06".parse().unwrap(),
            ),
        ),
    ]);
    world.run(SANDBOX, "ip link set lo down");
    let heard = heard_until(&bell, SANDBOX, "all");
    assert_eq!(heard.keys().collect::<Vec<_>>(), [&SANDBOX], "{heard:?}");
    world.done(&[up(SANDBOX, "lo")]);
}
