//! Two nodes on one underlay, one network, built by operations alone: a datagram crosses.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use cluster::id::TaskId;
use cluster::net::MacAddr;
use netprog::op::{EntryOp, LinkChange, LinkOp, NewLink, Op, RouteOp};
use netprog::plane::{FdbKey, FdbTable, Place, PortFlags, VethPair};
use netprog_linux::namespace::Namespace;
use netprog_linux::{HeldSpaces, LinuxKernel};

use super::world::{FABRIC, SANDBOX, World, bridge, cidr, up, vxlan};

/// A datagram sent before the last port forwards is lost, so it is sent again after this.
const RECEIVE_WAIT: Duration = Duration::from_millis(200);
const SENDS_MAX: u32 = 50;

fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0x42, 10, 0, 0, n])
}

/// Joins two hosts by a veth pair with 192.0.2.1 and 192.0.2.2.
fn underlay(a: &mut World, b: &mut World) {
    let mut spaces = HeldSpaces::new(a.open(Place::Host));
    let other = Place::Sandbox(TaskId(1));
    spaces.adopt_sandbox(TaskId(1), b.open(Place::Host));
    let mut world = World { kernel: LinuxKernel::new(spaces) };
    world.done(&[
        Op::veth(VethPair {
            outer: (Place::Host, "u0".to_owned()),
            inner: (other, "u0".to_owned()),
        }),
        Op::new(Place::Host, RouteOp::AddAddress("u0".to_owned(), cidr("192.0.2.1/24"))),
        Op::new(other, RouteOp::AddAddress("u0".to_owned(), cidr("192.0.2.2/24"))),
        up(Place::Host, "u0"),
        up(other, "u0"),
    ]);
}

/// The fabric of one node, its sandbox 10.0.0.`own`, and the peer's 10.0.0.`peer`.
fn node(world: &mut World, own: u8, peer: u8, vteps: (&str, &str)) {
    let text = |name: &str| name.to_owned();
    let flags =
        |flood| PortFlags { learning: false, flood, hairpin: true, isolated: false, proxied: true };
    let peer_fdb = |table| FdbKey { device: text("vx0"), mac: mac(peer), table };
    world.done(&[
        Op::new(FABRIC, NewLink::Device(text("br0"), bridge("skein:net"))),
        Op::new(FABRIC, NewLink::Device(text("vx0"), vxlan(vteps.0, 4096))),
        Op::veth(VethPair { outer: (FABRIC, text("v0")), inner: (SANDBOX, text("eth0")) }),
        Op::new(FABRIC, LinkOp::Set(text("vx0"), LinkChange::Master(Some(text("br0"))))),
        Op::new(FABRIC, LinkOp::Set(text("v0"), LinkChange::Master(Some(text("br0"))))),
        Op::new(FABRIC, LinkOp::Set(text("vx0"), LinkChange::Port(flags(false)))),
        Op::new(FABRIC, LinkOp::Set(text("v0"), LinkChange::Port(flags(true)))),
        Op::new(SANDBOX, LinkOp::Set(text("eth0"), LinkChange::Mac(mac(own)))),
        Op::new(SANDBOX, LinkOp::Set(text("eth0"), LinkChange::Mtu(1450))),
        Op::new(FABRIC, RouteOp::AddAddress(text("br0"), cidr("10.0.0.1/24"))),
        Op::new(SANDBOX, RouteOp::AddAddress(text("eth0"), cidr(&format!("10.0.0.{own}/24")))),
        up(FABRIC, "br0"),
        up(FABRIC, "vx0"),
        up(FABRIC, "v0"),
        up(SANDBOX, "eth0"),
        Op::new(
            FABRIC,
            EntryOp::SetFdb(
                FdbKey { device: text("v0"), mac: mac(own), table: FdbTable::Bridge },
                None,
            ),
        ),
        Op::new(FABRIC, EntryOp::SetFdb(peer_fdb(FdbTable::Device), vteps.1.parse().ok())),
        Op::new(FABRIC, EntryOp::SetFdb(peer_fdb(FdbTable::Bridge), None)),
        Op::new(
            FABRIC,
            EntryOp::SetNeighbour(
                text("vx0"),
                format!("10.0.0.{peer}").parse().unwrap(),
                mac(peer),
            ),
        ),
        Op::new(
            FABRIC,
            EntryOp::SetNeighbour(
                text("br0"),
                format!("10.0.0.{peer}").parse().unwrap(),
                mac(peer),
            ),
        ),
    ]);
}

fn socket(world: &mut World, address: &str) -> UdpSocket {
    let address: SocketAddr = address.parse().unwrap();
    let namespace = Namespace::enter("test", world.open(SANDBOX)).unwrap();
    let socket = namespace.run(move || UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(RECEIVE_WAIT)).unwrap();
    socket
}

#[test]
fn a_datagram_crosses_between_two_nodes() {
    let (mut a, mut b) = (World::furnished(), World::furnished());
    underlay(&mut a, &mut b);
    node(&mut a, 2, 3, ("192.0.2.1", "192.0.2.2"));
    node(&mut b, 3, 2, ("192.0.2.2", "192.0.2.1"));
    let (from, to) = (socket(&mut a, "10.0.0.2:7000"), socket(&mut b, "10.0.0.3:7000"));
    let mut buffer = [0; 16];

    let sender = from.local_addr().unwrap();
    let answer = to.local_addr().unwrap();
    let mut carried = |text: &[u8], from: &UdpSocket, to: &UdpSocket| {
        let arrives = |_| {
            from.send_to(text, to.local_addr().unwrap()).unwrap();
            to.recv_from(&mut buffer).ok()
        };
        let (length, source) = (0..SENDS_MAX).find_map(arrives).unwrap();
        assert_eq!(&buffer[..length], text);
        source
    };
    assert_eq!(carried(b"there", &from, &to), sender);
    assert_eq!(carried(b"and back", &to, &from), answer);
}
