//! A steady stream of datagrams to a published port, from one port, while the port's target
//! changes: it is delivered to the new target.

use std::net::UdpSocket;
use std::time::Duration;

use cluster::spec::{Protocol, PublishMode};
use netprog::plane::Place;

use crate::lab::{CALLER, CLIENT, ECHO, Lab, run, sandbox};
use crate::paths::furnished;
use crate::talk::{serve, serve_on};

/// The node's address and published port.
const TARGET: &str = "192.168.50.1:3000";
/// The pace of the stream: an entry of conntrack lives longer.
const PACE: Duration = Duration::from_millis(20);
/// A stream that is not delivered by then never is.
const BEATS_MAX: u32 = 150;
/// What comes at all comes within this.
const DELIVERY_WAIT: Duration = Duration::from_secs(3);

/// A stream that says who answers.
struct Stream(UdpSocket);

impl Stream {
    fn new(lab: &mut Lab) -> Self {
        let socket = lab.client.run(Place::Host, || UdpSocket::bind("0.0.0.0:5140")).unwrap();
        let socket = socket.unwrap();
        socket.connect(TARGET).unwrap();
        socket.set_read_timeout(Some(PACE)).unwrap();
        Self(socket)
    }

    /// One datagram, and who answers within the pace.
    fn beat(&self) -> Option<String> {
        let mut buffer = [0; 64];
        let _refused = self.0.send(b"x");
        let length = self.0.recv(&mut buffer).ok()?;
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        text.split(' ').next().map(str::to_owned)
    }

    /// Goes on until one of these answers; late answers of others are read away.
    #[track_caller]
    fn reaches(&self, names: &[&str]) {
        let reached =
            (0..BEATS_MAX).any(|_| self.beat().is_some_and(|name| names.contains(&name.as_str())));
        assert!(reached, "the stream does not reach {names:?}");
    }
}

/// Publishes nothing of `echo`.
fn unpublish(lab: &mut Lab) {
    lab.assignment.services.get_mut(&ECHO).unwrap().ports.clear();
    lab.settle();
}

#[test]
fn a_stream_follows_its_port_through_every_change() {
    let mut lab = furnished();
    let ports = lab.assignment.services[&ECHO].ports.clone();
    unpublish(&mut lab);
    let stream = Stream::new(&mut lab);
    assert_eq!(stream.beat(), None, "nothing is published");
    // A program of the node has the port meanwhile, and the stream leads to it, untranslated.
    let (kernel, place) = lab.at(1, Place::Host);
    let host = kernel.run(place, || UdpSocket::bind("192.168.50.1:3000")).unwrap().unwrap();
    stream.beat();
    host.set_read_timeout(Some(DELIVERY_WAIT)).unwrap();
    host.recv_from(&mut [0; 8]).unwrap();

    lab.assignment.services.get_mut(&ECHO).unwrap().ports.clone_from(&ports);
    lab.settle();
    stream.reaches(&["t1", "t2"]);

    // The same port, in mode host, of another service's task.
    lab.assignment.services.get_mut(&ECHO).unwrap().ports.clear();
    lab.publish_on_host(5, Protocol::Udp, 3000);
    lab.settle();
    serve(lab.at(1, sandbox(5)), "t5");
    stream.reaches(&["t5"]);

    // A task in its place.
    lab.remove(5);
    lab.add(6, CALLER, 1);
    lab.publish_on_host(6, Protocol::Udp, 3000);
    lab.settle();
    serve(lab.at(1, sandbox(6)), "t6");
    stream.reaches(&["t6"]);

    // Back to mode ingress.
    for own in lab.assignment.own.values_mut() {
        own.ports.retain(|port| port.mode == PublishMode::Ingress);
    }
    lab.assignment.services.get_mut(&ECHO).unwrap().ports.clone_from(&ports);
    lab.settle();
    stream.reaches(&["t1", "t2"]);

    // Another target within the task, which in a cluster is a new one.
    for on in [1, 2] {
        serve_on(lab.at(on, sandbox(on)), "other", 81);
    }
    for port in lab.assignment.own.values_mut().flat_map(|own| &mut own.ports) {
        port.target = 81;
    }
    lab.settle();
    stream.reaches(&["other"]);

    unpublish(&mut lab);
    host.set_nonblocking(true).unwrap();
    while host.recv_from(&mut [0; 8]).is_ok() {}
    host.set_nonblocking(false).unwrap();
    stream.beat();
    let (_, from) = host.recv_from(&mut [0; 8]).expect("the node's own program is heard of again");
    assert_eq!(from.to_string(), format!("{CLIENT}:5140"));
}

/// Goal: a daemon that was killed between the change of the map and the deletion leaves nothing
/// that its successor does not find. Method: the map is changed behind the agent's back, as by
/// one that died then; a new agent's first pass has nothing to change.
#[test]
fn an_agent_that_starts_finds_what_the_one_before_left() {
    let mut lab = furnished();
    let stream = Stream::new(&mut lab);
    stream.reaches(&["t1", "t2"]);
    lab.assignment.services.get_mut(&ECHO).unwrap().ports.clear();
    lab.publish_on_host(5, Protocol::Udp, 3000);
    serve(lab.at(1, sandbox(5)), "t5");
    let (kernel, _) = lab.at(1, Place::Host);
    run(kernel, "nft delete element ip skein published { udp . 3000 }");
    run(kernel, "nft add element ip skein published { udp . 3000 : 172.18.0.15 . 80 }");
    assert_ne!(stream.beat().as_deref(), Some("t5"));
    lab.restart(1);
    lab.settle();
    stream.reaches(&["t5"]);
}
