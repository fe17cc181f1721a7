//! How long the nft balancer remembers: entries and when they expire, as the kernel lists them.

use std::io::Read;
use std::net::{Shutdown, UdpSocket};
use std::process::Command;
use std::time::Duration;

use netprog::plane::Place;

use crate::flows::reset;
use crate::lab::{Lab, VIP, WEB, sandbox};
use crate::paths::furnished;
use crate::talk::{ask, open, udp};

/// When the elements of a map of the fabric expire.
fn expiries(lab: &mut Lab, map: &'static str) -> Vec<Duration> {
    let (kernel, place) = lab.at(1, Place::Fabric(WEB));
    let words = ["-j", "list", "map", "bridge", "skein", map];
    let list = move || Command::new("nft").args(words).output();
    let output = kernel.run(place, list).unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let elements = list.pointer("/nftables/1/map/elem").and_then(|e| e.as_array().cloned());
    let seconds = |e: serde_json::Value| e.pointer("/0/elem/expires").unwrap().as_u64().unwrap();
    elements.unwrap_or_default().into_iter().map(|e| Duration::from_secs(seconds(e))).collect()
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[track_caller]
fn one_between(found: &[Duration], low: Duration, high: Duration) {
    assert!(matches!(found, [one] if low <= *one && *one <= high), "{found:?}");
}

/// Goal: an open connection is remembered for longer than a keepalive of two hours (RFC 5382,
/// REQ-5), and what is over or was never answered is not.
#[test]
fn what_is_open_is_remembered_for_hours_and_what_is_over_is_not() {
    let mut lab = furnished();
    let vip = format!("{VIP}:80");
    let mut stream = open(lab.at(1, sandbox(5)), &vip, 0).unwrap();
    ask(&mut stream, 1).unwrap();
    one_between(&expiries(&mut lab, "flows"), 12 * HOUR, 24 * HOUR);
    stream.shutdown(Shutdown::Write).unwrap();
    // The server closes too, and the acknowledgement of that follows the caller's FIN.
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    let left = expiries(&mut lab, "flows");
    assert!(left.is_empty(), "{left:?}");
    one_between(&expiries(&mut lab, "closing"), MINUTE, 2 * MINUTE);

    let mut lab = furnished();
    let mut stream = open(lab.at(1, sandbox(5)), &vip, 0).unwrap();
    ask(&mut stream, 1).unwrap();
    reset(stream);
    for map in ["flows", "closing"] {
        let left = expiries(&mut lab, map);
        assert!(left.is_empty(), "{map}: {left:?}");
    }
}

/// Goal: a handshake that nobody answers is forgotten soon, as a flood of them leaves room; a flow
/// of datagrams after the five minutes of RFC 4787, REQ-5. Method: servers that drop what comes.
#[test]
fn what_nobody_answered_is_forgotten_soon() {
    let mut lab = furnished();
    for n in [1, 2] {
        let rules = "table ip deaf { chain in { type filter hook input priority 0; drop; }; }";
        let (kernel, place) = lab.at(n, sandbox(n));
        let deaf = kernel.run(place, move || Command::new("nft").arg(rules).status());
        assert!(deaf.unwrap().unwrap().success());
    }
    open(lab.at(1, sandbox(5)), &format!("{VIP}:80"), 0).unwrap_err();
    one_between(&expiries(&mut lab, "flows"), MINUTE / 2, MINUTE);
    let mut lab = furnished();
    udp(lab.at(1, sandbox(5)), &format!("{VIP}:80"), 1).unwrap();
    one_between(&expiries(&mut lab, "flows"), 4 * MINUTE, 5 * MINUTE);
}

/// Goal: a TCP and a UDP flow between the same ports have entries of their own.
#[test]
fn protocols_do_not_share_an_entry() {
    let mut lab = furnished();
    let mut stream = open(lab.at(1, sandbox(5)), &format!("{VIP}:80"), 41_000).unwrap();
    ask(&mut stream, 1).unwrap();
    let (kernel, place) = lab.at(1, sandbox(5));
    let socket = kernel.run(place, || UdpSocket::bind("0.0.0.0:41000")).unwrap().unwrap();
    socket.send_to(b"x", format!("{VIP}:80")).unwrap();
    let found = expiries(&mut lab, "flows");
    assert_eq!(found.len(), 2, "{found:?}");
}
