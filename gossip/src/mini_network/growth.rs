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

/// A node that so many others are members of, and their runs. Proofs are not verified: signatures
/// are not what grows.
fn hub(members: u32) -> (Engine, Vec<Identity>) {
    let mut config = Config::lan(many(HUB), CLUSTER, address_of(HUB), 1, 1, secret_of(HUB));
    config.verify = |_, _, _| true;
    let mut hub = Engine::new(config, keyring(), ms(0));
    let peer = |of| Peer { address: address_of(of), key: Some(secret_of(of).key()) };
    let others = 1..=members;
    hub.step(Input::Peers(others.clone().map(|of| (many(of), peer(of))).collect()), ms(0));
    let runs: Vec<Identity> = others.map(run_of).collect();
    let unknown = Identity::unknown(many(HUB), address_of(HUB));
    for run in &runs {
        hub.step(datagram(*run, unknown, foca::Message::Announce), ms(1));
    }
    assert_eq!(hub.members().len(), members as usize + 1);
    (hub, runs)
}

/// The least time of some batches that a node takes to hear a probe and answer it, on average,
/// where so many others are members. What else runs on the machine only adds to it.
fn probe_cost(members: u32) -> Duration {
    let (mut hub, runs) = hub(members);
    let own = run_of(HUB);
    // From members all over the table, so that one of few does not stay in the cache.
    let probes = runs.iter().step_by(runs.len() / 50).cycle();
    let mut probes = probes.map(|run| datagram(*run, own, foca::Message::Ping(1)));
    let batch = |_| {
        let probes: Vec<Input> = probes.by_ref().take(50).collect();
        let begun = clock();
        for probe in probes {
            let outputs = hub.step(probe, ms(2));
            assert!(outputs.iter().any(|output| matches!(output, Output::Send { .. })));
        }
        begun.elapsed() / 50
    };
    (0..40).map(batch).min().unwrap()
}

const FEW: u32 = 100;
const MANY: u32 = 10_000;

/// Goal: hearing a datagram does not cost more in a large cluster. Method: the time of the
/// fastest batch; one look at each of the members takes several times as long as a probe.
#[test]
fn a_probe_costs_a_member_of_a_large_cluster_what_it_costs_one_of_a_small_one() {
    let costs = [probe_cost(FEW), probe_cost(MANY)];
    // Larger tables miss the cache more often; a look at each member is six times as much.
    assert!(costs[1] < 3 * costs[0], "{costs:?}");
}

fn begun(net: &Net) -> u64 {
    net.hosts.values().map(|host| host.engine.stats().exchanges_begun).sum()
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
    [net.sent, begun(&net), net.posted].map(|all| all as f64 / f64::from(hosts))
}

#[test]
fn a_start_of_all_nodes_costs_each_of_them_what_it_has_to_learn_and_little_more() {
    let (small, large) = (start_cost(30), start_cost(120));
    let grows = |of: usize| large[of] / small[of];
    // Four times as much if each had to speak to each other one.
    assert!(grows(0) < 1.5, "datagrams: {small:?} {large:?}");
    assert!(grows(1) < 1.75, "exchanges: {small:?} {large:?}");
    // Each learns four times as many rows and runs.
    assert!(grows(2) < 5.0, "bytes: {small:?} {large:?}");
}

/// What it costs a cluster of so many hosts that one more joins, until all know it: datagrams of
/// each host, and exchanges of all together.
fn join_cost(hosts: u8) -> [f64; 2] {
    let mut net = Net::new(8, hosts, 0.0);
    for host in 1..=hosts {
        net.start(host);
        net.input(host, own(host, 0..1));
    }
    net.run(ms(3_000));
    let (sent, before, new) = (net.sent, begun(&net), hosts + 1);
    net.members.push(new);
    (1..=hosts).for_each(|host| net.tell_peers(host));
    net.start(new);
    net.input(new, own(new, 0..1));
    net.until("all know it", ms(10_000), |net| {
        net.hosts.keys().all(|host| net.shows_all(*host, usize::from(hosts) + 1))
    });
    [(net.sent - sent) as f64 / f64::from(hosts), (begun(&net) - before) as f64]
}

#[test]
fn a_join_costs_each_node_of_a_large_cluster_no_more_than_one_of_a_small_one() {
    let (small, large) = (join_cost(30), join_cost(120));
    // If all had to speak to the new one, all together would begin four times as many exchanges.
    assert!(large[0] < 1.5 * small[0], "datagrams of each: {small:?} {large:?}");
    assert!(large[1] < 2.0 * small[1], "exchanges of all: {small:?} {large:?}");
}
