//! How long a change takes to the last of many nodes where datagrams are lost. Prints figures for
//! docs/benchmarks.md.
//!
//! `cargo run --release -p gossip --example spread [NODES CHANGES PERCENT]`: 1,000 nodes, 50
//! changes and 1 % of datagrams lost unless told otherwise. Nodes join one after the other.

use std::io::Write as _;
use std::time::Duration;

use rand::RngExt as _;

use crate::net::{Net, key, rows};

#[path = "net/net.rs"]
mod net;

const JOIN_PERIOD: Duration = Duration::from_millis(16);
/// After the last node has joined, and between changes.
const REST: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);
/// Virtual time until a change must be everywhere.
const LIMIT: Duration = Duration::from_secs(60);

fn join(net: &mut Net, nodes: u32) {
    let peers = Net::peers(nodes);
    for _host in 0..nodes {
        net.start(&peers);
        net.run(net.now + JOIN_PERIOD, |_, _| false);
    }
    net.run(net.now + REST, |_, _| false);
}

/// A task starts on some node; how long it takes until all know.
fn change(net: &mut Net, tasks: &mut [u32]) -> Duration {
    let owner = net.rng.random_range(0..net.hosts.len());
    let key = key(owner as u32, tasks[owner]);
    tasks[owner] += 1;
    let begin = net.now;
    net.step(owner, owner, rows(owner as u32, tasks[owner]));
    let mut known = vec![false; net.hosts.len()];
    known[owner] = true;
    let mut left = known.len() - 1;
    net.run(begin + LIMIT, |net, host| {
        if !known[host] && net.hosts[host].view().endpoints.contains_key(&key) {
            known[host] = true;
            left -= 1;
        }
        left == 0
    });
    assert!(left == 0, "{left} nodes do not know after {LIMIT:?}");
    let took = net.now - begin;
    net.run(net.now + PAUSE, |_, _| false);
    took
}

fn main() {
    let given: Vec<u32> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let given = |at: usize, or| given.get(at).copied().unwrap_or(or);
    let (nodes, changes, percent) = (given(0, 1_000), given(1, 50), given(2, 1));
    let mut net = Net::new(f64::from(percent) / 100.0);
    join(&mut net, nodes);
    let joined = net.traffic();
    let mut tasks = vec![0; net.hosts.len()];
    let mut times: Vec<Duration> = (0..changes).map(|_| change(&mut net, &mut tasks)).collect();
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
    let each = |all: u64| all / u64::from(nodes);
    let text = format!(
        "| {nodes} nodes, {percent} % lost | |\n|---|---|\n\
         | a change at the last node, median of {changes} | {:.1} ms |\n\
         | 90 of 100 | {:.1} ms |\n| the slowest | {:.1} ms |\n\
         | datagrams of a node until all have joined | {} of {} kB in all |\n\
         | messages of exchanges of a node until then | {} of {} kB in all |\n",
        at(50),
        at(90),
        at(100),
        each(joined.datagrams),
        each(joined.datagram_bytes) / 1000,
        each(joined.posted),
        each(joined.posted_bytes) / 1000,
    );
    // Where nobody reads it there is nothing to be done.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
