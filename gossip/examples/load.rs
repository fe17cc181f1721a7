//! What proofs cost a large cluster: a node that has nothing loads the rows of all others from one
//! peer, each row signed by its owner. Prints figures for docs/benchmarks.md.
//!
//! `cargo run --release -p gossip --example load [NODES ROWS]`: 1,000 nodes of 100 rows unless told
//! otherwise. The engines are real, the network between them is a queue.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use cluster::id::{ClusterId, NetworkId, NodeId, TaskId};
use cluster::net::MacAddr;
use cluster::time::Revision;
use cluster::view::{Condition, EndpointKey, EndpointOwner, EndpointRow, VtepRow};
use gossip::{Config, Engine, Input, Keyring, Output, Peer, ProofSecret};

const CLUSTER: ClusterId = ClusterId(1);
/// It has heard every owner; the joiner asks it.
const HUB: u32 = 1;
/// Virtual time until all must have been loaded.
const LIMIT: Duration = Duration::from_secs(600);

/// A host and what its engine's steps took of the clock.
struct Host {
    engine: Engine,
    steps: u32,
    took: Duration,
    longest: Duration,
}

#[expect(clippy::disallowed_methods, reason = "it measures, so its clock is a real one")]
fn clock() -> Instant {
    Instant::now()
}

fn node(host: u32) -> NodeId {
    NodeId(host.into())
}

fn address(host: u32) -> SocketAddr {
    (Ipv4Addr::from(0x0a00_0000 | host), 7946).into()
}

fn host_of(address: SocketAddr) -> u32 {
    match address.ip() {
        IpAddr::V4(v4) => u32::from(v4) & 0x00ff_ffff,
        IpAddr::V6(_) => 0,
    }
}

fn secret(host: u32) -> ProofSecret {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&host.to_be_bytes());
    ProofSecret::from_seed(&seed).expect("any 32 bytes are a seed")
}

fn peers(hosts: impl Iterator<Item = u32>) -> Input {
    let peer = |host| Peer { address: address(host), key: Some(secret(host).key()) };
    Input::Peers(hosts.map(|host| (node(host), peer(host))).collect())
}

fn rows(host: u32, count: u32) -> Input {
    let endpoint = |task: u32| {
        let owner = EndpointOwner::Task(TaskId(u128::from(host) << 64 | u128::from(task)));
        let address = IpAddr::V4(Ipv4Addr::from(0x0b00_0000 | host << 8 | task));
        let row = EndpointRow {
            node: node(host),
            addresses: address.into(),
            mac: MacAddr::for_address(address),
            condition: Condition::Ready,
            revision: Revision(1_000),
        };
        (EndpointKey { network: NetworkId(u128::MAX), owner }, row)
    };
    let endpoints: BTreeMap<_, _> = (0..count).map(endpoint).collect();
    Input::Own { endpoints, vtep: VtepRow { address: address(host).ip() } }
}

impl Host {
    fn new(host: u32) -> Self {
        let keys = Keyring::new(1, &[(1, [7; 32])].into()).expect("it has its primary");
        let config = Config::lan(node(host), CLUSTER, address(host), 1, 1, secret(host));
        let engine = Engine::new(config, keys, Duration::ZERO);
        Self { engine, steps: 0, took: Duration::ZERO, longest: Duration::ZERO }
    }

    fn step(&mut self, input: Input, now: Duration) -> Vec<Output> {
        let begun = clock();
        let outputs = self.engine.step(input, now);
        let took = begun.elapsed();
        self.steps += 1;
        self.took += took;
        self.longest = self.longest.max(took);
        outputs
    }
}

/// Carries what the hosts want done to hosts that are there, until `holds`.
fn run(
    hosts: &mut BTreeMap<u32, Host>,
    begin: Vec<(u32, Output)>,
    holds: impl Fn(&BTreeMap<u32, Host>) -> bool,
) {
    let (mut now, mut queue) = (Duration::ZERO, VecDeque::from(begin));
    while !holds(hosts) {
        assert!(now < LIMIT, "not loaded in {LIMIT:?} of virtual time");
        let Some((from, output)) = queue.pop_front() else {
            let deadline = |host: &Host| host.engine.next_deadline();
            let next = hosts.iter().filter_map(|(id, host)| Some((deadline(host)?, *id))).min();
            let (at, id) = next.expect("an engine has a deadline");
            now = now.max(at);
            let outputs = hosts.get_mut(&id).expect("it is there").step(Input::Timer, now);
            queue.extend(outputs.into_iter().map(|output| (id, output)));
            continue;
        };
        match output {
            Output::Send { to, bytes } => {
                let to = host_of(to);
                let Some(host) = hosts.get_mut(&to) else { continue };
                let outputs = host.step(Input::Datagram(bytes), now);
                queue.extend(outputs.into_iter().map(|output| (to, output)));
            }
            Output::Sync { peer, to, bytes } => {
                let to = host_of(to);
                let Some(host) = hosts.get_mut(&to) else { continue };
                for output in host.step(Input::SyncRequest { token: 1, bytes }, now) {
                    let Output::SyncReply { bytes, .. } = output else {
                        queue.push_back((to, output));
                        continue;
                    };
                    let answer = Input::SyncAnswer { peer, result: Ok(bytes) };
                    let outputs = hosts.get_mut(&from).expect("it is there").step(answer, now);
                    queue.extend(outputs.into_iter().map(|output| (from, output)));
                }
            }
            Output::SyncReply { .. } | Output::ViewChanged => {}
        }
    }
}

fn main() {
    let given: Vec<u32> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let (nodes, each) = (given.first().copied().unwrap_or(1_000), given.get(1).copied());
    let each = each.unwrap_or(100);
    let owners = HUB + 1..HUB + 1 + nodes;
    let joiner = owners.end;
    let all = || HUB..=joiner;
    let mut hub = BTreeMap::from([(HUB, Host::new(HUB))]);
    let count = |hosts: &BTreeMap<u32, Host>, of: u32| hosts[&of].engine.stats().rows;
    let (mut signing, mut loaded) = (Duration::ZERO, 0);
    hub.get_mut(&HUB).expect("it is there").step(peers(all()), Duration::ZERO);
    for owner in owners {
        let mut host = Host::new(owner);
        host.step(rows(owner, each), Duration::ZERO);
        signing += host.took;
        let begin = host.step(peers([HUB].into_iter()), Duration::ZERO);
        hub.insert(owner, host);
        loaded += each as usize + 1;
        let begin = begin.into_iter().map(|output| (owner, output)).collect();
        run(&mut hub, begin, |hosts| count(hosts, HUB) >= loaded);
        // Only what it wrote is of interest.
        hub.remove(&owner);
    }
    let mut new = Host::new(joiner);
    new.step(rows(joiner, 0), Duration::ZERO);
    new.took = Duration::ZERO;
    let begin = new.step(peers(all()), Duration::ZERO);
    hub.insert(joiner, new);
    let begin = begin.into_iter().map(|output| (joiner, output)).collect();
    run(&mut hub, begin, |hosts| count(hosts, joiner) > loaded);
    let new = &hub[&joiner];
    let written = f64::from(nodes) * f64::from(each + 1);
    let (write, step) = (us(signing) / written, us(new.longest) / 1e3);
    let (load, row) = (us(new.took) / 1e6, us(new.took) / written);
    let text = format!(
        "| rows of {nodes} nodes, {each} each | |\n|---|---|\n\
         | writing one row, its proof included | {write:.1} us |\n\
         | loading all rows from one peer | {load:.2} s in {} steps |\n\
         | one row of these | {row:.1} us |\n\
         | the longest step | {step:.1} ms |\n",
        new.steps
    );
    // Where nobody reads it there is nothing to be done.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn us(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
