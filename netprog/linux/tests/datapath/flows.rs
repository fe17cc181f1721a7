//! What a balancer remembers of flows: a new connection follows the slots, an open one keeps its
//! backend.

use std::collections::BTreeSet;
use std::io::{Error, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use crate::lab::{ECHO, Lab, VIP, sandbox, task};
use crate::paths::furnished;
use crate::talk::{ask, open, serve};

/// Ports that the caller uses again and again.
const PORTS: std::ops::Range<u16> = 41_000..41_040;

/// How a caller ends a connection.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It waits for the server's FIN, and answers it with its own.
    Fin,
    /// It resets.
    Reset,
}

fn end(mut stream: TcpStream, how: End) {
    match how {
        End::Fin => {
            stream.write_all(&[0; 4]).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
        End::Reset => reset(stream),
    }
}

/// Ends a connection by a RST.
pub(crate) fn reset(stream: TcpStream) {
    reset_when_closed(&stream);
}

/// Has it end by a RST, unless both have sent their FIN before.
pub(crate) fn reset_when_closed(stream: &TcpStream) {
    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(stream, sockopt::Linger, &at_once).unwrap();
}

/// Opens a connection from every port, and who answers on it.
fn open_all(lab: &mut Lab) -> Vec<(TcpStream, String)> {
    let vip = format!("{VIP}:80");
    let open = |port| -> Result<_, Error> {
        let mut stream = open(lab.at(1, sandbox(5)), &vip, port)?;
        let answer = ask(&mut stream, 1)?;
        Ok((stream, answer))
    };
    PORTS.map(open).collect::<Result<_, _>>().unwrap()
}

fn names(streams: &[(TcpStream, String)]) -> BTreeSet<&str> {
    streams.iter().map(|(_, answer)| answer.split(' ').next().unwrap()).collect()
}

/// Goal: a caller whose ports are used again reaches new replicas and no draining one, and what it
/// has open then stays where it is when backends change again. Method: connections from the same
/// ports before and after each change.
#[track_caller]
fn a_reused_port_follows_the_slots(how: End) {
    let mut lab = furnished();
    for (stream, _) in open_all(&mut lab) {
        end(stream, how);
    }
    lab.add(3, ECHO, 2);
    lab.settle();
    serve(lab.at(2, sandbox(3)), "t3");
    let streams = open_all(&mut lab);
    assert_eq!(names(&streams), ["t1", "t2", "t3"].into(), "after a scale-up");
    for (stream, _) in streams {
        end(stream, how);
    }
    lab.assignment.tasks.get_mut(&task(1)).unwrap().draining = true;
    lab.settle();
    let mut streams = open_all(&mut lab);
    assert_eq!(names(&streams), ["t2", "t3"].into(), "while one drains");
    lab.add(4, ECHO, 1);
    lab.settle();
    serve(lab.at(1, sandbox(4)), "t4");
    for (stream, first) in &mut streams {
        assert_eq!(ask(stream, 1).unwrap(), *first, "after the next scale-up");
    }
}

#[test]
fn a_port_that_is_used_again_after_a_fin_follows_the_slots() {
    a_reused_port_follows_the_slots(End::Fin);
}

#[test]
fn a_port_that_is_used_again_after_a_reset_follows_the_slots() {
    a_reused_port_follows_the_slots(End::Reset);
}

/// What a server sends after its caller has said all: more than goes unacknowledged.
const LONG_ANSWER: usize = 4_000_000;

/// Reads to the end, waits for the word, and answers at length.
fn serve_after_end((kernel, place): crate::talk::Where<'_>, heard: Sender<()>, go: Receiver<()>) {
    let listener = kernel.run(place, || TcpListener::bind("0.0.0.0:81").unwrap()).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        heard.send(()).unwrap();
        go.recv().unwrap();
        let _reset = stream.write_all(&vec![b'x'; LONG_ANSWER]);
    });
}

/// Goal: a caller that has said all it has to say hears the answer to its end, although backends
/// change meanwhile. Method: it shuts down its half; its backend drains; the answer is longer than
/// what can be under way, so it needs the caller's acknowledgements.
#[test]
fn a_half_closed_connection_keeps_its_backend() {
    let mut lab = furnished();
    lab.assignment.tasks.get_mut(&task(2)).unwrap().draining = true;
    lab.settle();
    let ((heard, was_heard), (word, go)) = (channel(), channel());
    serve_after_end(lab.at(1, sandbox(1)), heard, go);
    let mut stream = open(lab.at(1, sandbox(5)), &format!("{VIP}:81"), 0).unwrap();
    stream.write_all(b"a question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    was_heard.recv_timeout(Duration::from_secs(3)).unwrap();
    lab.assignment.tasks.get_mut(&task(2)).unwrap().draining = false;
    lab.assignment.tasks.get_mut(&task(1)).unwrap().draining = true;
    lab.settle();
    word.send(()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), LONG_ANSWER);
}

/// Goal: a steady stream of datagrams stays with its backend while that one drains.
#[test]
fn a_stream_of_datagrams_keeps_its_backend_while_it_drains() {
    let mut lab = furnished();
    let (kernel, place) = lab.at(1, sandbox(5));
    let socket = kernel.run(place, || UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    socket.connect(format!("{VIP}:80")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let call = || {
        let mut buffer = [0; 64];
        socket.send(b"x").unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let first = call();
    let served = if first.starts_with("t1") { 1 } else { 2 };
    lab.assignment.tasks.get_mut(&task(served)).unwrap().draining = true;
    lab.settle();
    assert_eq!(call(), first);
}
