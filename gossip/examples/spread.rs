//! How long a change takes to the last of many nodes where datagrams are lost. Prints figures for
//! docs/benchmarks.md.
//!
//! `cargo run --release -p gossip --example spread [NODES CHANGES PERCENT]`: 1,000 nodes, 50
//! changes and 1 % of datagrams lost unless told otherwise. The engines are real, network and time
//! are not: a datagram takes 0.2 to 0.8 ms. Nodes join one after the other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use cluster::id::{ClusterId, NetworkId, NodeId, TaskId};
use cluster::net::MacAddr;
use cluster::time::Revision;
use cluster::view::{Condition, EndpointKey, EndpointOwner, EndpointRow, VtepRow};
use gossip::{Config, Engine, Input, Keyring, Output, Peer, ProofSecret};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const CLUSTER: ClusterId = ClusterId(1);
const JOIN_PERIOD: Duration = Duration::from_millis(16);
/// After the last node has joined, and between changes.
const REST: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);
/// Virtual time until a change must be everywhere.
const LIMIT: Duration = Duration::from_secs(60);

fn address(host: u32) -> SocketAddr {
    (Ipv4Addr::from(0x0a00_0000 | host), 7946).into()
}

fn host_of(address: SocketAddr) -> usize {
    match address.ip() {
        IpAddr::V4(v4) => (u32::from(v4) & 0x00ff_ffff) as usize,
        IpAddr::V6(_) => 0,
    }
}

fn secret(host: u32) -> ProofSecret {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&host.to_be_bytes());
    ProofSecret::from_seed(&seed).expect("any 32 bytes are a seed")
}

fn key(host: u32, task: u32) -> EndpointKey {
    let owner = EndpointOwner::Task(TaskId(u128::from(host) << 64 | u128::from(task)));
    EndpointKey { network: NetworkId(1), owner }
}

fn rows(host: u32, count: u32) -> Input {
    let endpoint = |task: u32| {
        let address = IpAddr::V4(Ipv4Addr::from(0x0b00_0000 | host << 8 | task));
        let (node, mac) = (NodeId(host.into()), MacAddr::for_address(address));
        let (condition, revision) = (Condition::Ready, Revision(1));
        (key(host, task), EndpointRow { node, address, mac, condition, revision })
    };
    Input::Own {
        endpoints: (0..count).map(endpoint).collect(),
        vtep: VtepRow { address: address(host).ip() },
    }
}

struct Net {
    hosts: Vec<Engine>,
    tasks: Vec<u32>,
    now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>, // when, number, host
    inputs: BTreeMap<u64, (usize, Input)>,              // by number: from whom; else a timer
    number: u64,
    loss: f64,
    rng: StdRng,
    datagrams: u64,
    posted: u64,
}

impl Net {
    fn later(&mut self, to: usize, from: usize, input: Input) {
        let delay = Duration::from_micros(self.rng.random_range(200..800));
        self.number += 1;
        self.inputs.insert(self.number, (from, input));
        self.queue.push(Reverse((self.now + delay, self.number, to)));
    }

    fn step(&mut self, host: usize, from: usize, input: Input) {
        let outputs = self.hosts[host].step(input, self.now);
        if let Some(at) = self.hosts[host].next_deadline() {
            self.number += 1;
            self.queue.push(Reverse((at.max(self.now), self.number, host)));
        }
        for output in outputs {
            match output {
                Output::Send { to, bytes } => {
                    self.datagrams += 1;
                    let is_there = host_of(to) < self.hosts.len();
                    if is_there && !self.rng.random_bool(self.loss) {
                        self.later(host_of(to), host, Input::Datagram(bytes));
                    }
                }
                Output::Sync { to, bytes, .. } => {
                    self.posted += bytes.len() as u64;
                    let request = Input::SyncRequest { token: 1, bytes };
                    self.later(host_of(to), host, request);
                }
                Output::SyncReply { bytes, .. } => self.reply(host, from, bytes),
                Output::ViewChanged => {}
            }
        }
    }

    fn reply(&mut self, from: usize, to: usize, bytes: Bytes) {
        self.posted += bytes.len() as u64;
        let peer = NodeId(from as u128);
        self.later(to, from, Input::SyncAnswer { peer, result: Ok(bytes) });
    }

    fn run(&mut self, until: Duration, mut stepped: impl FnMut(&mut Self, usize) -> bool) {
        while let Some(Reverse((at, number, host))) = self.queue.pop() {
            if at > until {
                self.queue.push(Reverse((at, number, host)));
                break;
            }
            self.now = self.now.max(at);
            match self.inputs.remove(&number) {
                Some((from, input)) => self.step(host, from, input),
                // A deadline that was moved meanwhile is in the queue again.
                None if self.hosts[host].next_deadline().is_some_and(|due| due <= self.now) => {
                    self.step(host, host, Input::Timer);
                }
                None => continue,
            }
            if stepped(self, host) {
                return;
            }
        }
        self.now = until;
    }

    fn join(&mut self, nodes: u32) {
        let peer = |host| Peer { address: address(host), key: Some(secret(host).key()) };
        let peers: BTreeMap<NodeId, Peer> =
            (0..nodes).map(|host| (NodeId(host.into()), peer(host))).collect();
        for host in 0..nodes {
            let keys = Keyring::new(1, &[(1, [7; 32])].into()).expect("it has its primary");
            let node = NodeId(host.into());
            let config = Config::lan(node, CLUSTER, address(host), 1, 1, secret(host));
            self.hosts.push(Engine::new(config, keys, self.now));
            self.tasks.push(0);
            let host = host as usize;
            self.step(host, host, rows(host as u32, 0));
            self.step(host, host, Input::Peers(peers.clone()));
            self.run(self.now + JOIN_PERIOD, |_, _| false);
        }
        self.run(self.now + REST, |_, _| false);
    }

    /// A task starts on some node; how long it takes until all know.
    fn change(&mut self) -> Duration {
        let owner = self.rng.random_range(0..self.hosts.len());
        let key = key(owner as u32, self.tasks[owner]);
        self.tasks[owner] += 1;
        let begin = self.now;
        self.step(owner, owner, rows(owner as u32, self.tasks[owner]));
        let mut known = vec![false; self.hosts.len()];
        known[owner] = true;
        let mut left = known.len() - 1;
        self.run(begin + LIMIT, |net, host| {
            if !known[host] && net.hosts[host].view().endpoints.contains_key(&key) {
                known[host] = true;
                left -= 1;
            }
            left == 0
        });
        assert!(left == 0, "{left} nodes do not know after {LIMIT:?}");
        let took = self.now - begin;
        self.run(self.now + PAUSE, |_, _| false);
        took
    }
}

fn main() {
    let given: Vec<u32> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let given = |at: usize, or| given.get(at).copied().unwrap_or(or);
    let (nodes, changes, percent) = (given(0, 1_000), given(1, 50), given(2, 1));
    let mut net = Net {
        hosts: Vec::new(),
        tasks: Vec::new(),
        now: Duration::ZERO,
        queue: BinaryHeap::new(),
        inputs: BTreeMap::new(),
        number: 0,
        loss: f64::from(percent) / 100.0,
        rng: StdRng::seed_from_u64(1),
        datagrams: 0,
        posted: 0,
    };
    net.join(nodes);
    let (joined, posted) = (net.datagrams / u64::from(nodes), net.posted / u64::from(nodes));
    let mut times: Vec<Duration> = (0..changes).map(|_| net.change()).collect();
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
    let text = format!(
        "| {nodes} nodes, {percent} % lost | |\n|---|---|\n\
         | a change at the last node, median of {changes} | {:.1} ms |\n\
         | 90 of 100 | {:.1} ms |\n| the slowest | {:.1} ms |\n\
         | datagrams of a node until all have joined | {joined} |\n\
         | exchanged by a node until then | {} kB |\n",
        at(50),
        at(90),
        at(100),
        posted / 1000
    );
    // Where nobody reads it there is nothing to be done.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
