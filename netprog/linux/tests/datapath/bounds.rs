use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use netprog::plane::Place;

use crate::lab::{Lab, sandbox};
use crate::paths::furnished;
use crate::talk::{open, serve, tcp, udp};

/// What comes at all comes within this.
const QUIET: Duration = Duration::from_millis(500);

#[test]
fn a_node_does_not_answer_its_tasks_on_the_clusters_ports() {
    let mut lab = furnished();
    serve(lab.at(1, Place::Host), "host");
    let (kernel, place) = lab.at(1, Place::Host);
    let listen = |port| TcpListener::bind(("::", port)).unwrap();
    let _listeners = kernel.run(place, move || [listen(2377), listen(7946)]).unwrap();
    for address in ["172.18.0.1", "192.168.50.1"] {
        assert_eq!(
            tcp(lab.at(1, sandbox(5)), &format!("{address}:80"), 1).unwrap(),
            "host saw 172.18.0.15"
        );
        for port in [2377, 7946] {
            let target = format!("{address}:{port}");
            assert!(open((&mut lab.client, Place::Host), "192.168.50.1:7946", 0).is_ok());
            assert!(open(lab.at(1, sandbox(5)), &target, 0).is_err(), "{target}");
        }
    }
}

/// A socket of task 1 on port 81.
fn listen(lab: &mut Lab) -> UdpSocket {
    let (kernel, place) = lab.at(1, sandbox(1));
    let socket = kernel.run(place, || UdpSocket::bind("[::]:81")).unwrap().unwrap();
    socket.set_read_timeout(Some(QUIET)).unwrap();
    socket
}

#[test]
fn a_task_is_not_heard_by_an_address_of_its_own_making() {
    let mut lab = furnished();
    // Of a sibling, of nobody, and of the network's VIP that is another service's.
    let made = [
        ("10.0.1.11", "10.0.1.12"),
        ("10.0.1.11", "10.0.1.77"),
        ("10.0.1.11", "10.0.1.2"),
        ("fd00:a::11", "fd00:a::12"),
        ("fd00:a::11", "fd00:a::77"),
        ("fd00:a::11", "fd00:a::2"),
    ];
    let socket = listen(&mut lab);
    let (kernel, place) = lab.at(1, sandbox(5));
    let say = move |from: &str, to: &str, words: &[u8]| {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.send_to(words, (to, 81)).unwrap();
    };
    kernel
        .run(place, move || {
            for (to, from) in made {
                let words = format!("addr add {from} dev lo");
                let words: Vec<&str> =
                    words.split(' ').chain(from.contains(':').then_some("nodad")).collect();
                assert!(Command::new("ip").args(words).status().unwrap().success());
                say(from, to, b"may not");
            }
            say("10.0.1.15", "10.0.1.11", b"may");
            say("fd00:a::15", "fd00:a::11", b"may");
        })
        .unwrap();
    let mut buffer = [0; 16];
    let mut heard = Vec::new();
    while let Ok(length) = socket.recv(&mut buffer) {
        heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    assert_eq!(heard, ["may", "may"]);
}

#[test]
fn a_task_answers_on_the_ingress_link_by_what_it_publishes() {
    let mut lab = furnished();
    let peer = sandbox(2);
    for call in [tcp, udp] {
        assert_eq!(call(lab.at(2, peer), "10.0.0.11:80", 1).unwrap(), "t1 saw 10.0.0.12");
    }
    let (kernel, place) = lab.at(1, sandbox(1));
    let _listener = kernel.run(place, || TcpListener::bind("[::]:82").unwrap()).unwrap();
    assert!(open(lab.at(2, peer), "10.0.1.11:82", 0).is_ok());
    assert!(open(lab.at(2, peer), "10.0.0.11:82", 0).is_err());
}
