//! Gossip's underlay: datagrams are late, lost or doubled, streams are late or fail, groups are
//! cut off.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cluster::id::NodeId;
use gossip::{Input, Output, ProofSecret, SyncFailed};
use rand::RngExt as _;

use super::world::{Event, World};

/// What a lost segment costs a stream: TCP's least retransmission time-out on Linux.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// The only request that an engine has open in one step.
const TOKEN: u64 = 1;

/// Gossip under way, as the input that its receiver will get.
#[derive(Debug)]
pub(super) enum Packet {
    /// With when it was sent.
    Datagram(Input, Duration),
    Request(Input),
    Answer(Input),
}

/// Who cannot reach whom.
#[derive(Debug, Default)]
pub(super) struct Network {
    /// These are apart from the others.
    apart: BTreeSet<NodeId>,
    /// For gossip.
    gossip: bool,
    /// For sessions: the managers are with the others.
    sessions: bool,
}

impl Network {
    pub(super) fn cut(apart: BTreeSet<NodeId>, gossip: bool, sessions: bool) -> Self {
        Self { apart, gossip, sessions }
    }

    fn joins(&self, from: NodeId, to: NodeId) -> bool {
        !self.gossip || self.apart.contains(&from) == self.apart.contains(&to)
    }

    /// Whether a node reaches the managers.
    pub(super) fn reaches_managers(&self, node: NodeId) -> bool {
        !self.sessions || !self.apart.contains(&node)
    }
}

/// Where a node receives gossip.
pub(super) fn address(node: NodeId) -> SocketAddr {
    (IpAddr::from([192, 0, 2, node.0 as u8]), 7946).into()
}

/// What a node proves with what it says in gossip.
pub(super) fn secret(node: NodeId) -> ProofSecret {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(&node.0.to_be_bytes());
    ProofSecret::from_seed(&seed).expect("a seed of the right length")
}

fn node_at(address: SocketAddr) -> NodeId {
    match address.ip() {
        IpAddr::V4(v4) => NodeId(v4.octets()[3].into()),
        IpAddr::V6(_) => NodeId(0),
    }
}

impl World {
    /// Steps a node's engine and carries out what it wants done.
    pub(super) fn gossip_input(&mut self, node: NodeId, input: Input) {
        self.gossip_step(node, input);
    }

    /// The same; returns the answer to a peer's request.
    fn gossip_step(&mut self, node: NodeId, input: Input) -> Option<Input> {
        let now = self.now;
        let host = self.hosts.get_mut(&node)?;
        if host.paused_until.is_some() {
            return self.hold_back(node, input);
        }
        let daemon = host.daemon.as_mut()?;
        let outputs = daemon.engine.as_mut()?.step(input, now);
        daemon.engine_deadline = daemon.engine.as_ref().and_then(gossip::Engine::next_deadline);
        let mut answer = None;
        let mut news = false;
        for output in outputs {
            match output {
                Output::Send { to, bytes } => {
                    let (from, to, sent) = (node, node_at(to), self.now);
                    self.overheard(from, || Input::Datagram(bytes.clone()));
                    for _ in 0..self.copies() {
                        let delay = self.delay();
                        let packet = Packet::Datagram(Input::Datagram(bytes.clone()), sent);
                        self.after(delay, Event::Packet { from, to, packet });
                    }
                }
                Output::Sync { peer, bytes, .. } => {
                    let packet = Packet::Request(Input::SyncRequest { token: TOKEN, bytes });
                    let delay = self.stream_delay();
                    self.after(delay, Event::Packet { from: node, to: peer, packet });
                }
                Output::SyncReply { bytes, .. } => {
                    answer = Some(Input::SyncAnswer { peer: node, result: Ok(bytes) });
                }
                Output::ViewChanged => news = true,
            }
        }
        if news {
            self.view_changed(node);
        }
        answer
    }

    /// What comes for a daemon that is paused waits in its sockets, but nobody waits for an answer.
    fn hold_back(&mut self, node: NodeId, input: Input) -> Option<Input> {
        let host = self.hosts.get(&node)?;
        let (run, until) = (host.daemon.as_ref()?.run, host.paused_until?);
        if !matches!(input, Input::SyncRequest { .. }) {
            let input = Box::new(input);
            self.after(until - self.now, Event::Gossip { node, run, input });
        }
        None
    }

    pub(super) fn gossip_of_run(&mut self, node: NodeId, run: u64, input: Input) {
        if self.daemon_of_run(node, run).is_some() {
            self.gossip_input(node, input);
        }
    }

    /// How often a datagram arrives: as many come twice as are lost.
    fn copies(&mut self) -> usize {
        let loss = self.swarm.loss;
        let arrives = !self.chance.random_bool(loss);
        usize::from(arrives) + usize::from(self.chance.random_bool(loss))
    }

    fn stream_delay(&mut self) -> Duration {
        let lost = self.chance.random_bool(self.swarm.loss);
        self.delay() + if lost { RETRANSMISSION } else { Duration::ZERO }
    }

    pub(super) fn deliver(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        let joined = self.network.joins(from, to);
        match packet {
            Packet::Datagram(input, sent) if joined => self.deliver_datagram(from, to, input, sent),
            Packet::Datagram(..) => {}
            Packet::Request(input) => {
                let answer = if joined { self.gossip_step(to, input) } else { None };
                // Who is cut off is noticed late, who has died at once.
                let delay = if joined { self.stream_delay() } else { self.ms_between(500, 10_000) };
                let failed = || Err(SyncFailed("no answer".to_owned()));
                let answer = answer.unwrap_or(Input::SyncAnswer { peer: to, result: failed() });
                let packet = Packet::Answer(answer);
                self.after(delay, Event::Packet { from: to, to: from, packet });
            }
            Packet::Answer(input) => {
                let lost = !joined && matches!(input, Input::SyncAnswer { result: Ok(_), .. });
                let result = Err(SyncFailed("connection lost".to_owned()));
                let broken = Input::SyncAnswer { peer: from, result };
                self.gossip_input(to, if lost { broken } else { input });
            }
        }
    }
}
