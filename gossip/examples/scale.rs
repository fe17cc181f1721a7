//! What a large cluster costs: all nodes start at once, one more joins, and time goes by. Prints
//! figures for docs/benchmarks.md.
//!
//! `cargo run --release -p gossip --example scale [NODES PERCENT WHOLE]`: 1,000 nodes and 1 % of
//! datagrams lost unless told otherwise. With WHOLE, only so many nodes know all others, and
//! the others of these only: what all pairs of 10,000 nodes know of each other is too much for the
//! memory of one machine.

use std::io::Write as _;
use std::time::Duration;

use crate::net::{Net, Traffic, key, rows};

#[path = "net/net.rs"]
mod net;

/// Virtual time until all must know all.
const LIMIT: Duration = Duration::from_secs(120);
const REST: Duration = Duration::from_secs(60);

/// Processor time of this program, which has one thread.
fn clock() -> Duration {
    let times = std::fs::read_to_string("/proc/self/schedstat").expect("Linux tells it");
    let times = times.split_whitespace().next().and_then(|time| time.parse().ok());
    Duration::from_nanos(times.expect("the first is the time on a processor"))
}

fn knows_all(net: &Net, host: usize, nodes: usize) -> bool {
    let view = net.hosts[host].view();
    view.complete && view.vteps.len() == nodes && view.liveness.len() == nodes
}

/// Goes on until each of the first hosts knows all nodes; says how long that took.
fn settle(net: &mut Net, nodes: usize, whole: usize) -> Duration {
    let begin = net.now;
    let mut known = vec![false; whole];
    let mut left = known.len();
    net.run(begin + LIMIT, |net, host| {
        if host < whole && !known[host] && knows_all(net, host, nodes) {
            known[host] = true;
            left -= 1;
        }
        left == 0
    });
    assert!(left == 0, "{left} nodes do not know all after {LIMIT:?}");
    net.now - begin
}

fn line(what: &str, took: Duration, wall: Duration, sent: Traffic, nodes: u64) -> String {
    format!(
        "| {what} | {:.1} s | {:.1} s | {} | {} kB | {} | {} kB |\n",
        took.as_secs_f64(),
        wall.as_secs_f64(),
        sent.datagrams / nodes,
        sent.datagram_bytes / nodes / 1000,
        sent.posted / nodes,
        sent.posted_bytes / nodes / 1000,
    )
}

fn since(now: Traffic, before: Traffic) -> Traffic {
    Traffic {
        datagrams: now.datagrams - before.datagrams,
        datagram_bytes: now.datagram_bytes - before.datagram_bytes,
        posted: now.posted - before.posted,
        posted_bytes: now.posted_bytes - before.posted_bytes,
    }
}

fn main() {
    let given: Vec<u32> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let given = |at: usize, or| given.get(at).copied().unwrap_or(or);
    let (nodes, percent) = (given(0, 1_000), given(1, 1));
    let whole = given(2, nodes).min(nodes);
    let all = u64::from(nodes);
    let mut net = Net::new(f64::from(percent) / 100.0);
    let (peers, few) = (Net::peers(nodes), Net::peers(whole));
    let begun = clock();
    for host in 0..nodes {
        net.start(if host < whole { &peers } else { &few });
    }
    let took = settle(&mut net, nodes as usize, whole as usize);
    let mut text = format!(
        "| {nodes} nodes, {whole} know all, {percent} % lost | simulated | processor \
         | datagrams of a node | | messages of exchanges | |\n|---|---|---|---|---|---|---|\n"
    );
    let (wall, sent) = (clock() - begun, net.traffic());
    text += &line("all start at once, until all know all", took, wall, sent, all);
    net.run(net.now + Duration::from_secs(30), |_, _| false);
    let (before, begun) = (net.traffic(), clock());
    let took = REST;
    net.run(net.now + REST, |_, _| false);
    text += &line("60 s at rest", took, clock() - begun, since(net.traffic(), before), all);
    let (before, begun) = (net.traffic(), clock());
    let peers = Net::peers(nodes + 1);
    for host in 0..whole as usize {
        net.step(host, host, gossip::Input::Peers(peers.clone()));
    }
    net.start(&peers);
    let joiner = nodes as usize;
    let begin = net.now;
    net.step(joiner, joiner, rows(nodes, 1));
    net.run(begin + LIMIT, |net, host| host == joiner && knows_all(net, host, joiner + 1));
    let (both, wall) = (net.sent[joiner].plus(net.received[joiner]), clock() - begun);
    let what = "one more joins: sent and received by it until it knows all";
    text += &line(what, net.now - begin, wall, both, 1);
    let key = key(nodes, 0);
    let mut known = vec![false; whole as usize];
    let mut left = known.len();
    let limit = net.now + LIMIT;
    net.run(limit, |net, host| {
        let view = net.hosts[host].view();
        let shown = view.endpoints.contains_key(&key) && view.liveness.len() == joiner + 1;
        if host < known.len() && !known[host] && shown {
            known[host] = true;
            left -= 1;
        }
        left == 0
    });
    assert!(left == 0, "{left} nodes do not know the new one");
    let took = net.now - begin;
    let sent = since(net.traffic(), before);
    text += &line("the others until all know it", took, clock() - begun, sent, all);
    // Where nobody reads it there is nothing to be done.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
