//! Many engines on a network that is not real, in time that is not real: datagrams take 0.2 to
//! 0.8 ms, and some are lost. A signature is verified once, not once by each node.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use cluster::id::{ClusterId, NetworkId, NodeId, TaskId};
use cluster::net::MacAddr;
use cluster::object::ProofKey;
use cluster::time::Revision;
use cluster::view::{Condition, EndpointKey, EndpointOwner, EndpointRow, VtepRow};
use gossip::{Config, Engine, Input, Keyring, Output, Peer, Proof, ProofSecret};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const CLUSTER: ClusterId = ClusterId(1);

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

/// A proof, the key, and what was signed.
type Signed = (Proof, [u8; 32], Vec<u8>);

/// Verifies what was not verified before in this process.
fn verify_once(key: &ProofKey, message: &[u8], proof: &Proof) -> bool {
    thread_local! {
        static HOLD: RefCell<BTreeSet<Signed>> = RefCell::default();
    }
    let asked = (*proof, key.0, message.to_vec());
    HOLD.with_borrow_mut(|hold| {
        hold.contains(&asked) || (gossip::proof::verify(key, message, proof) && hold.insert(asked))
    })
}

pub(crate) fn key(host: u32, task: u32) -> EndpointKey {
    let owner = EndpointOwner::Task(TaskId(u128::from(host) << 64 | u128::from(task)));
    EndpointKey { network: NetworkId(1), owner }
}

pub(crate) fn rows(host: u32, count: u32) -> Input {
    let endpoint = |task: u32| {
        let address = IpAddr::V4(Ipv4Addr::from(0x0b00_0000 | host << 8 | task));
        let (node, mac) = (NodeId(host.into()), MacAddr::for_address(address));
        let (condition, revision) = (Condition::Ready, Revision(1));
        (key(host, task), EndpointRow { node, addresses: address.into(), mac, condition, revision })
    };
    Input::Own {
        endpoints: (0..count).map(endpoint).collect(),
        vtep: VtepRow { address: address(host).ip() },
    }
}

/// What went over the network, or one node sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) datagrams: u64,
    pub(crate) datagram_bytes: u64,
    /// Messages of exchanges.
    pub(crate) posted: u64,
    pub(crate) posted_bytes: u64,
}

impl Traffic {
    pub(crate) fn plus(self, more: Self) -> Self {
        Self {
            datagrams: self.datagrams + more.datagrams,
            datagram_bytes: self.datagram_bytes + more.datagram_bytes,
            posted: self.posted + more.posted,
            posted_bytes: self.posted_bytes + more.posted_bytes,
        }
    }

    fn post(&mut self, bytes: &Bytes) {
        self.posted += 1;
        self.posted_bytes += bytes.len() as u64;
    }

    fn datagram(&mut self, bytes: &Bytes) {
        self.datagrams += 1;
        self.datagram_bytes += bytes.len() as u64;
    }
}

pub(crate) struct Net {
    pub(crate) hosts: Vec<Engine>,
    pub(crate) now: Duration,
    /// By the host that sent it, and by the one that received it.
    pub(crate) sent: Vec<Traffic>,
    pub(crate) received: Vec<Traffic>,
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>, // when, number, host
    inputs: BTreeMap<u64, (usize, Input)>,              // by number: from whom; else a timer
    number: u64,
    loss: f64,
    pub(crate) rng: StdRng,
}

impl Net {
    pub(crate) fn new(loss: f64) -> Self {
        Self {
            hosts: Vec::new(),
            now: Duration::ZERO,
            sent: Vec::new(),
            received: Vec::new(),
            queue: BinaryHeap::new(),
            inputs: BTreeMap::new(),
            number: 0,
            loss,
            rng: StdRng::seed_from_u64(1),
        }
    }

    /// What all hosts have sent.
    pub(crate) fn traffic(&self) -> Traffic {
        self.sent.iter().fold(Traffic::default(), |all, sent| all.plus(*sent))
    }

    fn later(&mut self, to: usize, from: usize, input: Input) {
        let delay = Duration::from_micros(self.rng.random_range(200..800));
        self.number += 1;
        self.inputs.insert(self.number, (from, input));
        self.queue.push(Reverse((self.now + delay, self.number, to)));
    }

    pub(crate) fn step(&mut self, host: usize, from: usize, input: Input) {
        match &input {
            Input::Datagram(bytes) => self.received[host].datagram(bytes),
            Input::SyncRequest { bytes, .. } | Input::SyncAnswer { result: Ok(bytes), .. } => {
                self.received[host].post(bytes);
            }
            _ => {}
        }
        let outputs = self.hosts[host].step(input, self.now);
        if let Some(at) = self.hosts[host].next_deadline() {
            self.number += 1;
            self.queue.push(Reverse((at.max(self.now), self.number, host)));
        }
        for output in outputs {
            match output {
                Output::Send { to, bytes } => {
                    self.sent[host].datagram(&bytes);
                    let is_there = host_of(to) < self.hosts.len();
                    if is_there && !self.rng.random_bool(self.loss) {
                        self.later(host_of(to), host, Input::Datagram(bytes));
                    }
                }
                Output::Sync { to, bytes, .. } => {
                    self.sent[host].post(&bytes);
                    let request = Input::SyncRequest { token: 1, bytes };
                    self.later(host_of(to), host, request);
                }
                Output::SyncReply { bytes, .. } => {
                    self.sent[host].post(&bytes);
                    let peer = NodeId(host as u128);
                    self.later(from, host, Input::SyncAnswer { peer, result: Ok(bytes) });
                }
                Output::ViewChanged => {}
            }
        }
    }

    /// Goes on until that time, or until `stepped` says of the host that was just served that it is
    /// enough.
    pub(crate) fn run(
        &mut self,
        until: Duration,
        mut stepped: impl FnMut(&mut Self, usize) -> bool,
    ) {
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

    /// All nodes of a cluster of so many, as the managers tell them.
    pub(crate) fn peers(nodes: u32) -> BTreeMap<NodeId, Peer> {
        let peer = |host| Peer { address: address(host), key: Some(secret(host).key()) };
        (0..nodes).map(|host| (NodeId(host.into()), peer(host))).collect()
    }

    /// Starts the next host.
    pub(crate) fn start(&mut self, peers: &BTreeMap<NodeId, Peer>) {
        let host = self.hosts.len() as u32;
        let keys = Keyring::new(1, &[(1, [7; 32])].into()).expect("it has its primary");
        let node = NodeId(host.into());
        let mut config = Config::lan(node, CLUSTER, address(host), 1, 1, secret(host));
        config.verify = verify_once;
        self.hosts.push(Engine::new(config, keys, self.now));
        self.sent.push(Traffic::default());
        self.received.push(Traffic::default());
        let host = host as usize;
        self.step(host, host, rows(host as u32, 0));
        self.step(host, host, Input::Peers(peers.clone()));
    }
}
