//! What things cost in a large cluster and in a small one.

use std::time::Instant;

use super::*;
use crate::anti_entropy::Digest;
use crate::codec::{self, Body, Packet};
use crate::identity::Identity;
use crate::keyring::{RUN_BYTES, Sender};
use crate::proof::Author;

const HUB: u32 = 0;

#[expect(clippy::disallowed_methods, reason = "it measures, so its clock is a real one")]
fn clock() -> Instant {
    Instant::now()
}

fn many(of: u32) -> NodeId {
    NodeId(of.into())
}

fn address_of(of: u32) -> SocketAddr {
    (Ipv4Addr::from(0x0a00_0000 | of), 7946).into()
}

fn secret_of(of: u32) -> ProofSecret {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&of.to_be_bytes());
    ProofSecret::from_seed(&seed).unwrap()
}

fn run_of(of: u32) -> Identity {
    let author = Author { cluster: CLUSTER, node: many(of), secret: secret_of(of) };
    Identity::of_run(&author, 1, 0, address_of(of))
}

/// A datagram of foca's, as its sender would seal it.
fn datagram(from: Identity, to: Identity, message: foca::Message<Identity>) -> Input {
    let header = foca::Header { src: from, src_incarnation: 0, dst: to, message };
    let payload = Packet { header, members: Vec::new() }.encode().unwrap();
    let body = Body::Membership(vec![Digest::empty(from.node)], payload);
    let plain = codec::encode_datagram(&body).unwrap();
    let sender = Sender { cluster: CLUSTER, node: from.node, run: [1; RUN_BYTES] };
    Input::Datagram(keyring().seal(&sender, 1, &plain).unwrap().into())
}

/// How long a node takes to hear a probe and answer it, on average, where so many others are
/// members.
fn probe_cost(members: u32) -> Duration {
    let config = Config::lan(many(HUB), CLUSTER, address_of(HUB), 1, 1, secret_of(HUB));
    let mut hub = Engine::new(config, keyring(), ms(0));
    let peer = |of| Peer { address: address_of(of), key: Some(secret_of(of).key()) };
    let others = 1..=members;
    let peers = others.clone().map(|of| (many(of), peer(of))).collect();
    hub.step(Input::Peers(peers), ms(0));
    let runs: Vec<Identity> = others.map(run_of).collect();
    let (own, unknown) = (run_of(HUB), Identity::unknown(many(HUB), address_of(HUB)));
    for run in &runs {
        hub.step(datagram(*run, unknown, foca::Message::Announce), ms(1));
    }
    assert_eq!(hub.members().len(), members as usize + 1);
    let probes = runs.iter().cycle().take(500).map(|run| {
        let ping = foca::Message::Ping(1);
        datagram(*run, own, ping)
    });
    let probes: Vec<Input> = probes.collect();
    let begun = clock();
    for probe in probes {
        let outputs = hub.step(probe, ms(2));
        assert!(outputs.iter().any(|output| matches!(output, Output::Send { .. })));
    }
    begun.elapsed() / 500
}

#[test]
fn a_probe_costs_a_member_of_a_large_cluster_what_it_costs_one_of_a_small_one() {
    let costs = [probe_cost(50), probe_cost(2_500)];
    // It is for what copies or compares all members: one search among 2,500 is not noticed.
    assert!(costs[1] < 5 * costs[0], "{costs:?}");
}

/// What each of so many hosts that start at once sends until all know all: datagrams, exchanges
/// that it begins, bytes of exchanges.
fn start_cost(hosts: u8) -> [f64; 3] {
    let mut net = Net::new(7, hosts, 0.0);
    for host in 1..=hosts {
        net.start(host);
        net.input(host, own(host, 0..1));
    }
    net.until("all know all", ms(10_000), |net| {
        net.hosts.keys().all(|host| net.shows_all(*host, hosts.into()))
    });
    let begun: u64 = net.hosts.values().map(|host| host.engine.stats().exchanges_begun).sum();
    [net.sent, begun, net.posted].map(|all| all as f64 / f64::from(hosts))
}

#[test]
fn a_start_of_all_nodes_costs_each_of_them_what_it_has_to_learn_and_little_more() {
    let (small, large) = (start_cost(30), start_cost(120));
    let grows = |of: usize| large[of] / small[of];
    // The square would be four times as much for each node.
    assert!(grows(0) < 2.5, "datagrams: {small:?} {large:?}");
    assert!(grows(1) < 2.0, "exchanges: {small:?} {large:?}");
    // Each learns four times as many rows and runs.
    assert!(grows(2) < 6.0, "bytes: {small:?} {large:?}");
}
