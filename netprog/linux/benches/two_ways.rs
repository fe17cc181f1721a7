//! Calls to one backend by its VIP and by its own address, in turn, as a busy client makes them
//! that leaves its port to the kernel and whose server closes first. A backend that remembers a
//! pair of ports (TIME_WAIT) refuses one whose timestamps go back, and those of two ways are apart
//! by chance, unless `tcp_timestamps` is 2. Both are measured, the kernel's default first.
//!
//! `cargo bench -p netprog-linux --bench two_ways`; needs root.
#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "a benchmark ends at the first surprise"
)]

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use netprog::local::Balancer;

use crate::lab::{CALLER, ECHO, Lab, VIP, sandbox};
use crate::talk::{ask, open, serve};

#[expect(dead_code, reason = "shared with the tests")]
#[path = "../tests/datapath/lab.rs"]
mod lab;
#[expect(dead_code, reason = "shared with the tests")]
#[path = "../tests/datapath/talk.rs"]
mod talk;

const BALANCER: Balancer = Balancer::Nft;
/// Half of the ports that a client has.
const CALLS: usize = 14_000;
/// A SYN without an answer is sent again after a second (RFC 6298).
const TRIED_AGAIN: Duration = Duration::from_millis(900);
const SYSCTL: &str = "/proc/sys/net/ipv4/tcp_timestamps";

fn main() {
    for timestamps in ["1", "2"] {
        let mut lab = Lab::new();
        lab.add(2, ECHO, 2);
        lab.add(5, CALLER, 1);
        lab.settle();
        serve(lab.at(2, sandbox(2)), "t2");
        let (kernel, place) = lab.at(1, sandbox(5));
        kernel.run(place, move || std::fs::write(SYSCTL, timestamps)).unwrap().unwrap();
        for (way, to) in [("VIP", VIP), ("address", "10.0.1.12")].into_iter().cycle().take(4) {
            let told = round(&mut lab, &format!("{to}:80"));
            let mut out = std::io::stdout();
            writeln!(out, "tcp_timestamps={timestamps}, {CALLS} calls by {way}: {told}").unwrap();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn round(lab: &mut Lab, to: &str) -> String {
    let begin = Instant::now();
    let (mut again, mut failed) = (0, 0);
    for _ in 0..CALLS {
        let one = Instant::now();
        let called = open(lab.at(1, sandbox(5)), to, 0).and_then(|mut stream| {
            ask(&mut stream, 1)?;
            stream.write_all(&[0; 4])?;
            stream.read_to_end(&mut Vec::new())
        });
        failed += u32::from(called.is_err());
        again += u32::from(called.is_ok() && one.elapsed() > TRIED_AGAIN);
    }
    format!("{:.1} s, {again} tried again, {failed} failed", begin.elapsed().as_secs_f64())
}
