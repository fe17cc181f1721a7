//! A network of engines in virtual time: delay, loss, partitions, pauses, crashes; one seed.

mod growth;
mod liveness;
mod restart;
mod rows;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use cluster::id::{ClusterId, NetworkId, NodeId, TaskId};
use cluster::net::{Addresses, MacAddr};
use cluster::time::Revision;
use cluster::view::{Condition, EndpointKey, EndpointOwner, EndpointRow, Liveness, VtepRow};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::{Config, Engine, Input, Keyring, Now, Output, Peer, ProofSecret, SyncFailed};

const CLUSTER: ClusterId = ClusterId(0xC1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

enum Event {
    Datagram { from: u8, to: u8, bytes: Bytes },
    Request { from: u8, to: u8, bytes: Bytes },
    Answer { from: u8, to: u8, result: Result<Bytes, SyncFailed> },
}

struct Host {
    engine: Engine,
    deadline: Option<Now>, // of the engine, after its last step
    paused: bool,
}

struct Net {
    seed: u64,
    now: Now,
    rng: StdRng,
    loss: f64,
    hosts: BTreeMap<u8, Host>,
    generations: BTreeMap<u8, u64>,
    cut: BTreeSet<(u8, u8)>, // pairs that cannot talk, both orders
    events: BTreeMap<(Now, u64), Event>,
    held: Vec<Event>, // for paused hosts
    number: u64,
    members: Vec<u8>,
    sent: u64,
    posted: u64, // bytes of exchanges
    trace: u64,  // hash of all datagrams sent
    drop_next: u64,
    deaf: BTreeSet<u8>, // hosts that accept no streams
    /// Worst opinion that any other host's view has held of a node.
    worst: BTreeMap<u8, Liveness>,
}

fn node(host: u8) -> NodeId {
    NodeId(host.into())
}

fn address(host: u8) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, host), 7946).into()
}

fn host_of(address: SocketAddr) -> u8 {
    match address.ip() {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(_) => 0,
    }
}

fn secret(host: u8) -> ProofSecret {
    ProofSecret::from_seed(&[host; 32]).unwrap()
}

fn peer(host: u8) -> Peer {
    Peer { address: address(host), key: Some(secret(host).key()) }
}

fn keyring() -> Keyring {
    Keyring::new(1, &[(1, [7; 32])].into()).unwrap()
}

fn key(host: u8, task: u16) -> EndpointKey {
    let owner = EndpointOwner::Task(TaskId(u128::from(host) << 16 | u128::from(task)));
    EndpointKey { network: NetworkId(9), owner }
}

fn endpoint(host: u8, task: u16, healthy: bool) -> EndpointRow {
    let [high, low] = task.to_be_bytes();
    let addresses = Addresses::V4(Ipv4Addr::new(10, host, high, low));
    let mac = MacAddr::for_address(addresses.first());
    let condition = if healthy { Condition::Ready } else { Condition::Unhealthy };
    EndpointRow { node: node(host), addresses, mac, condition, revision: Revision(5) }
}

fn own(host: u8, tasks: impl IntoIterator<Item = u16>) -> Input {
    let endpoints = tasks.into_iter().map(|t| (key(host, t), endpoint(host, t, true))).collect();
    Input::Own { endpoints, vtep: VtepRow { address: address(host).ip() } }
}

impl Net {
    fn new(seed: u64, members: u8, loss: f64) -> Self {
        Self {
            seed,
            now: Duration::ZERO,
            rng: StdRng::seed_from_u64(seed),
            loss,
            hosts: BTreeMap::new(),
            generations: BTreeMap::new(),
            cut: BTreeSet::new(),
            events: BTreeMap::new(),
            held: Vec::new(),
            number: 0,
            members: (1..=members).collect(),
            sent: 0,
            posted: 0,
            trace: 0,
            drop_next: 0,
            deaf: BTreeSet::new(),
            worst: BTreeMap::new(),
        }
    }

    /// All hosts up, with ten rows each.
    fn started(seed: u64, members: u8, loss: f64) -> Self {
        let mut net = Self::new(seed, members, loss);
        for host in 1..=members {
            net.start(host);
            net.input(host, own(host, 0..10));
        }
        net.until("all rows everywhere", ms(10_000), |net| {
            net.hosts.keys().all(|h| net.shows_all(*h, 10 * usize::from(members)))
        });
        net
    }

    /// Starts a host as a new run, and tells it its peers.
    fn start(&mut self, host: u8) {
        let generation = self.generations.entry(host).or_default();
        *generation += 1;
        let (node, secret) = (node(host), secret(host));
        let config = Config::lan(node, CLUSTER, address(host), *generation, self.seed, secret);
        let engine = Engine::new(config, keyring(), self.now);
        self.hosts.insert(host, Host { engine, deadline: None, paused: false });
        self.tell_peers(host);
    }

    fn tell_peers(&mut self, host: u8) {
        let peers = self.members.iter().map(|h| (node(*h), peer(*h))).collect();
        self.input(host, Input::Peers(peers));
    }

    fn crash(&mut self, host: u8) {
        self.hosts.remove(&host);
    }

    fn engine(&self, host: u8) -> &Engine {
        &self.hosts[&host].engine
    }

    fn liveness(&self, at: u8, of: u8) -> Option<Liveness> {
        self.engine(at).view().liveness.get(&node(of)).copied()
    }

    /// Whether a host's view is complete, has this many endpoints, and all live hosts alive.
    fn shows_all(&self, at: u8, endpoints: usize) -> bool {
        let view = self.engine(at).view();
        view.complete
            && view.endpoints.len() == endpoints
            && self
                .hosts
                .keys()
                .all(|h| view.is_alive(node(*h)) && view.vteps.contains_key(&node(*h)))
    }

    fn input(&mut self, host: u8, input: Input) {
        assert_eq!(self.step(host, input), None, "a reply to no request");
    }

    /// Steps an engine and routes what it wants done; returns the reply to a request.
    fn step(&mut self, host: u8, input: Input) -> Option<Bytes> {
        let at = self.hosts.get_mut(&host)?;
        let outputs = at.engine.step(input, self.now);
        at.deadline = at.engine.next_deadline();
        let mut reply = None;
        for output in outputs {
            match output {
                Output::Send { to, bytes } => {
                    self.sent += 1;
                    for byte in &bytes {
                        self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
                    }
                    assert!(bytes.len() <= crate::codec::DATAGRAM_BYTES_MAX);
                    let lost = self.rng.random_bool(self.loss) || self.drop_next > 0;
                    self.drop_next = self.drop_next.saturating_sub(1);
                    if !lost {
                        self.later(Event::Datagram { from: host, to: host_of(to), bytes });
                    }
                }
                Output::Sync { peer, to, bytes } => {
                    assert_eq!(peer, node(host_of(to)));
                    self.posted += bytes.len() as u64;
                    self.later(Event::Request { from: host, to: host_of(to), bytes });
                }
                Output::SyncReply { token: 1, bytes } if reply.is_none() => {
                    self.posted += bytes.len() as u64;
                    reply = Some(bytes);
                }
                Output::SyncReply { .. } => panic!("a reply to no request"),
                Output::ViewChanged => self.note(host),
            }
        }
        reply
    }

    fn note(&mut self, at: u8) {
        let view = self.engine(at).view();
        for (of, liveness) in &view.liveness {
            let worst = self.worst.entry(of.0 as u8).or_insert(Liveness::Alive);
            *worst = (*worst).max(*liveness);
        }
    }

    fn later(&mut self, event: Event) {
        let delay = Duration::from_micros(self.rng.random_range(200..800));
        self.number += 1;
        self.events.insert((self.now + delay, self.number), event);
    }

    fn deliver(&mut self, event: Event) {
        let (from, to) = match &event {
            Event::Datagram { from, to, .. }
            | Event::Request { from, to, .. }
            | Event::Answer { from, to, .. } => (*from, *to),
        };
        if self.hosts.get(&to).is_some_and(|host| host.paused) {
            self.held.push(event);
            return;
        }
        let reachable = self.hosts.contains_key(&to) && !self.cut.contains(&(from, to));
        match event {
            Event::Datagram { bytes, .. } if reachable => self.input(to, Input::Datagram(bytes)),
            Event::Datagram { .. } => {}
            Event::Request { bytes, .. } => {
                let input = Input::SyncRequest { token: 1, bytes };
                // A host that is about to restart answers nobody.
                let reachable = reachable && !self.deaf.contains(&to);
                let reply = if reachable { self.step(to, input) } else { None };
                let result = reply.ok_or(SyncFailed("no answer".to_owned()));
                self.later(Event::Answer { from: to, to: from, result });
            }
            Event::Answer { result, .. } => {
                self.input(to, Input::SyncAnswer { peer: node(from), result });
            }
        }
    }

    fn pause(&mut self, host: u8, paused: bool) {
        if let Some(at) = self.hosts.get_mut(&host) {
            at.paused = paused;
        }
        if !paused {
            // The kernel kept what arrived; like a shell, the host serves its timers first.
            self.input(host, Input::Timer);
            let mine = self.held.extract_if(.., |event| match event {
                Event::Datagram { to, .. }
                | Event::Request { to, .. }
                | Event::Answer { to, .. } => *to == host,
            });
            let mine: Vec<Event> = mine.collect();
            mine.into_iter().for_each(|event| self.deliver(event));
        }
    }

    /// Serves the earliest thing there is, up to `end`; false if there is none.
    fn advance(&mut self, end: Now) -> bool {
        let timer = (self.hosts.iter())
            .filter(|(_, host)| !host.paused)
            .filter_map(|(h, host)| Some((host.deadline?, *h)))
            .min();
        let event = self.events.first_key_value().map(|(key, _)| *key);
        match (event, timer) {
            (Some((at, number)), timer) if timer.is_none_or(|(t, _)| at <= t) && at <= end => {
                self.now = self.now.max(at);
                if let Some(event) = self.events.remove(&(at, number)) {
                    self.deliver(event);
                }
                true
            }
            (_, Some((at, host))) if at <= end => {
                self.now = self.now.max(at);
                self.input(host, Input::Timer);
                true
            }
            _ => {
                self.now = end;
                false
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.advance(end) {}
    }

    /// Runs until the condition holds; returns how long it took.
    fn until(&mut self, what: &str, limit: Duration, holds: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        while !holds(self) {
            if !self.advance(start + limit) {
                panic!("seed {}: not within {limit:?}: {what}\n{}", self.seed, self.picture());
            }
        }
        self.now - start
    }

    fn picture(&self) -> String {
        let mut text = String::new();
        for (host, at) in &self.hosts {
            let view = at.engine.view();
            text += &format!(
                "host {host}: complete {} endpoints {} vteps {} liveness {:?}\n  {:?}\n",
                view.complete,
                view.endpoints.len(),
                view.vteps.len(),
                view.liveness.iter().map(|(n, l)| (n.0, *l)).collect::<Vec<_>>(),
                at.engine.stats()
            );
        }
        text
    }
}
