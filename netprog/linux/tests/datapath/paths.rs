use std::collections::BTreeSet;
use std::io::{Error, ErrorKind};
use std::net::UdpSocket;
use std::time::Duration;

use cluster::spec::Protocol;
use netprog::plane::Place;

use crate::lab::{CALLER, CLIENT, ECHO, Lab, VIP, VIP_SIX, sandbox, task};
use crate::talk::{ask, open, serve, tcp, udp};

/// Task 1 of `echo` on node 1, task 2 on node 2, a caller (task 5) on node 1.
pub(crate) fn furnished() -> Lab {
    let mut lab = Lab::new();
    lab.add(1, ECHO, 1);
    lab.add(2, ECHO, 2);
    lab.add(5, CALLER, 1);
    lab.settle();
    serve(lab.at(1, sandbox(1)), "t1");
    serve(lab.at(2, sandbox(2)), "t2");
    lab
}

/// Calls until both tasks have answered; what else was answered fails the test.
#[track_caller]
fn both(mut call: impl FnMut() -> Result<String, Error>, seen_as: &str) {
    let expected: BTreeSet<String> = ["t1", "t2"].map(|n| format!("{n} saw {seen_as}")).into();
    let mut answers = BTreeSet::new();
    for _ in 0..24 {
        answers.insert(call().unwrap());
    }
    assert_eq!(answers, expected);
}

#[test]
fn a_vip_leads_to_every_backend_and_they_see_the_caller() {
    let mut lab = furnished();
    let vip = format!("{VIP}:80");
    for size in [1, 8000, 60_000] {
        both(|| tcp(lab.at(1, sandbox(5)), &vip, size), "10.0.1.15");
        both(|| udp(lab.at(1, sandbox(5)), &vip, size), "10.0.1.15");
    }
}

#[test]
fn a_backend_reaches_itself_and_its_sibling() {
    let mut lab = furnished();
    let vip = format!("{VIP}:80");
    both(|| tcp(lab.at(1, sandbox(1)), &vip, 8000), "10.0.1.11");
    both(|| udp(lab.at(2, sandbox(2)), &vip, 8000), "10.0.1.12");
}

#[test]
fn a_vip_of_ipv6_does_the_same() {
    let mut lab = furnished();
    let vip = format!("[{VIP_SIX}]:80");
    both(|| tcp(lab.at(1, sandbox(5)), &vip, 60_000), "fd00:a::15");
    both(|| udp(lab.at(1, sandbox(5)), &vip, 1), "fd00:a::15");
    both(|| tcp(lab.at(1, sandbox(1)), &vip, 1), "fd00:a::11");
    let answer = tcp(lab.at(2, sandbox(2)), "[fd00:a::11]:80", 8000).unwrap();
    assert_eq!(answer, "t1 saw fd00:a::12");
}

#[test]
fn tasks_reach_each_other_directly() {
    let mut lab = furnished();
    let answer = tcp(lab.at(1, sandbox(5)), "10.0.1.12:80", 8000).unwrap();
    assert_eq!(answer, "t2 saw 10.0.1.15");
    let answer = udp(lab.at(2, sandbox(2)), "10.0.1.11:80", 8000).unwrap();
    assert_eq!(answer, "t1 saw 10.0.1.12");
}

#[test]
fn a_published_port_answers_on_every_node_and_tasks_see_the_client() {
    let mut lab = furnished();
    for target in ["192.168.50.1:3000", "192.168.50.2:3000"] {
        for size in [1, 8000, 60_000] {
            both(|| tcp((&mut lab.client, Place::Host), target, size), CLIENT);
            both(|| udp((&mut lab.client, Place::Host), target, size), CLIENT);
        }
    }
}

#[test]
fn one_client_port_can_call_both_nodes() {
    let mut lab = furnished();
    let mut streams = Vec::new();
    for port in 40_000..40_008 {
        for target in ["192.168.50.1:3000", "192.168.50.2:3000"] {
            streams.push(open((&mut lab.client, Place::Host), target, port).unwrap());
        }
    }
    for stream in &mut streams {
        assert!(ask(stream, 1).unwrap().ends_with(&format!(" saw {CLIENT}")));
    }
}

#[test]
fn a_published_port_answers_the_node_itself() {
    let mut lab = furnished();
    for on in [1, 2] {
        let own = format!("192.168.50.{on}");
        for target in ["127.0.0.1", &own, "172.18.0.1"] {
            let target = format!("{target}:3000");
            both(|| tcp(lab.at(on, Place::Host), &target, 8000), &own);
            both(|| udp(lab.at(on, Place::Host), &target, 8000), &own);
        }
    }
    // A task that calls a node's port is seen as its own node.
    both(|| tcp(lab.at(1, sandbox(5)), "192.168.50.1:3000", 1), "192.168.50.1");
    both(|| udp(lab.at(1, sandbox(5)), "192.168.50.2:3000", 1), "192.168.50.1");
}

#[test]
fn a_port_in_mode_host_answers_on_the_tasks_node_alone() {
    let mut lab = furnished();
    lab.publish_on_host(5, Protocol::Tcp, 8080);
    lab.settle();
    serve(lab.at(1, sandbox(5)), "t5");
    let answer = tcp((&mut lab.client, Place::Host), "192.168.50.1:8080", 60_000).unwrap();
    assert_eq!(answer, format!("t5 saw {CLIENT}"));
    let elsewhere = tcp((&mut lab.client, Place::Host), "192.168.50.2:8080", 1).unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::ConnectionRefused);
    let answer = tcp(lab.at(1, Place::Host), "127.0.0.1:8080", 1).unwrap();
    assert_eq!(answer, "t5 saw 172.18.0.1");
    // Where bridged frames meet iptables, the bridge itself would readdress the call, and its
    // ports are isolated from each other.
    let (kernel, place) = lab.at(1, Place::Host);
    let sysctl = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    let _absent = kernel.run(place, move || std::fs::write(sysctl, "0")).unwrap();
    let answer = tcp(lab.at(1, sandbox(1)), "192.168.50.1:8080", 1).unwrap();
    assert_eq!(answer, "t5 saw 172.18.0.1");
}

#[test]
fn without_a_backend_a_call_is_refused_at_once() {
    let mut lab = Lab::new();
    lab.add(5, CALLER, 1);
    lab.settle();
    let refused = |result: Result<String, Error>| result.unwrap_err().kind();
    let vip = format!("{VIP}:80");
    assert_eq!(refused(tcp(lab.at(1, sandbox(5)), &vip, 1)), ErrorKind::ConnectionRefused);
    assert_eq!(refused(udp(lab.at(1, sandbox(5)), &vip, 1)), ErrorKind::ConnectionRefused);
    let client = (&mut lab.client, Place::Host);
    assert_eq!(refused(tcp(client, "192.168.50.1:3000", 1)), ErrorKind::ConnectionRefused);
}

#[test]
fn open_connections_stay_while_backends_come_and_drain() {
    let mut lab = furnished();
    let vip = format!("{VIP}:80");
    let mut streams: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = open(lab.at(1, sandbox(5)), &vip, 0).unwrap();
            let first = ask(&mut stream, 1).unwrap();
            (stream, first)
        })
        .collect();
    lab.add(3, ECHO, 2);
    lab.settle();
    serve(lab.at(2, sandbox(3)), "t3");
    lab.assignment.tasks.get_mut(&task(1)).unwrap().draining = true;
    lab.settle();
    for (stream, first) in &mut streams {
        assert_eq!(ask(stream, 1).unwrap(), *first);
    }
    let answers: BTreeSet<String> =
        (0..40).map(|_| tcp(lab.at(1, sandbox(5)), &vip, 1).unwrap()).collect();
    assert_eq!(answers, ["t2 saw 10.0.1.15", "t3 saw 10.0.1.15"].map(str::to_owned).into());
    // Removed: its flows meet another backend, which resets them.
    lab.assignment.tasks.remove(&task(1));
    lab.settle();
    for (stream, first) in &mut streams {
        assert_eq!(ask(stream, 1).is_ok(), !first.starts_with("t1"), "{first}");
    }
}

#[test]
fn the_way_out_leads_out_only() {
    let mut lab = furnished();
    serve((&mut lab.client, Place::Host), "client");
    let target = format!("{CLIENT}:80");
    let answer = tcp(lab.at(1, sandbox(5)), &target, 60_000).unwrap();
    assert_eq!(answer, "client saw 192.168.50.1");
    let answer = udp(lab.at(2, sandbox(2)), &target, 8000).unwrap();
    assert_eq!(answer, "client saw 192.168.50.2");
    // Task 1 is on the same egress bridge and serves every address, yet is not reached there.
    assert!(tcp(lab.at(1, sandbox(5)), "172.18.0.11:80", 1).is_err());
}

#[test]
fn an_error_message_finds_the_backend_that_it_quotes() {
    // Goal: a backend hears that its caller is gone. Method: the caller asks from a socket that it
    // then closes; the backend's late answer is refused, and the refusal must find it by the VIP,
    // although it drains.
    let mut lab = furnished();
    lab.assignment.tasks.get_mut(&task(1)).unwrap().draining = true;
    lab.settle();
    let (kernel, place) = lab.at(2, sandbox(2));
    let server = kernel.run(place, || UdpSocket::bind("0.0.0.0:81")).unwrap().unwrap();
    let wait = Some(Duration::from_secs(3));
    server.set_read_timeout(wait).unwrap();
    let (kernel, place) = lab.at(1, sandbox(5));
    let caller = kernel.run(place, || UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    caller.send_to(b"x", format!("{VIP}:81")).unwrap();
    let mut buffer = [0; 16];
    let (_, peer) = server.recv_from(&mut buffer).unwrap();
    lab.assignment.tasks.get_mut(&task(1)).unwrap().draining = false;
    lab.assignment.tasks.get_mut(&task(2)).unwrap().draining = true;
    lab.settle();
    drop(caller);
    server.connect(peer).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    // A program that another test is starting may hold the caller's socket for a moment more.
    let refused = (0..30).any(|_| {
        let heard = server.send(b"late").and_then(|_| server.recv(&mut buffer));
        heard.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    assert!(refused);
}

#[test]
fn queries_to_port_53_reach_the_sockets_of_the_dns_server() {
    let mut lab = furnished();
    let (kernel, place) = lab.at(1, sandbox(5));
    let (dns, own) = kernel
        .run(place, || {
            (UdpSocket::bind("127.0.0.11:40005").unwrap(), UdpSocket::bind("0.0.0.0:53").unwrap())
        })
        .unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, peer)) = dns.recv_from(&mut buffer) {
            let _gone = dns.send_to(b"dns saw you", peer);
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, peer)) = own.recv_from(&mut buffer) {
            let _gone = own.send_to(b"own saw you", peer);
        }
    });
    assert_eq!(udp(lab.at(1, sandbox(5)), "127.0.0.11:53", 1).unwrap(), "dns saw you");
    assert_eq!(udp(lab.at(1, sandbox(5)), "127.0.0.1:53", 1).unwrap(), "own saw you");
    assert_eq!(udp(lab.at(1, sandbox(1)), "10.0.1.15:53", 1).unwrap(), "own saw you");
}
