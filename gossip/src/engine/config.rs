//! What an engine is told once.

use std::net::SocketAddr;
use std::time::Duration;

use cluster::id::{ClusterId, NodeId};

use crate::proof::{self, ProofSecret, Verify};

/// Settings of an engine. [`Config::lan`] is what the daemon runs with; tests and the simulator
/// change fields of it.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Its cluster: datagrams of other clusters do not open.
    pub cluster: ClusterId,
    /// Where this node receives gossip, as peers reach it.
    pub address: SocketAddr,
    /// Greater than at every earlier start of this node.
    pub generation: u64,
    /// A member is probed this often; members take turns.
    pub probe_period: Duration,
    /// How long a probe waits for its direct answer before others are asked to probe; the rest of
    /// the period is theirs. Less than `probe_period`.
    pub probe_rtt: Duration,
    /// A suspect member that does not refute in this time is down.
    pub suspicion: Duration,
    /// Peers that a change is pushed to.
    pub fanout: usize,
    /// Some peer's whole table is compared with ours this often.
    pub sync_interval: Duration,
    /// Peers that are not members yet are announced to this often.
    pub join_period: Duration,
    /// Tombstones are kept this long; several times `sync_interval`.
    pub tombstone_horizon: Duration,
    /// A node that announced a clean restart counts as alive this long.
    pub restart_grace: Duration,
    /// All random choices, and the stamp of the run that seals datagrams, derive from seed, node
    /// and generation: draw it from the system's entropy, except in simulation.
    pub seed: u64,
    /// What this node proves its rows with.
    pub secret: ProofSecret,
    /// How proofs of others are verified.
    pub verify: Verify,
}

impl Config {
    /// For nodes of one site. Measured for 1,000 simulated nodes at 1 % loss: a probe period of
    /// 200 ms and a suspicion of 1 s detect a crash in 1.6-2.3 s without a false positive.
    #[must_use]
    pub fn lan(
        node: NodeId,
        cluster: ClusterId,
        address: SocketAddr,
        generation: u64,
        seed: u64,
        secret: ProofSecret,
    ) -> Self {
        Self {
            node,
            cluster,
            address,
            generation,
            probe_period: Duration::from_millis(200),
            probe_rtt: Duration::from_millis(80),
            suspicion: Duration::from_secs(1),
            // A push-only epidemic needs ln N + c: 8 reaches a thousand nodes.
            fanout: 8,
            sync_interval: Duration::from_secs(10),
            join_period: Duration::from_secs(1),
            tombstone_horizon: Duration::from_secs(600),
            restart_grace: Duration::from_secs(30),
            seed,
            secret,
            verify: proof::verify,
        }
    }

    /// 32 bytes that no other run of any node has: the seed of one of its random streams.
    pub(crate) fn stream(&self, stream: u64) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.node.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..].copy_from_slice(&(self.seed ^ stream).to_le_bytes());
        bytes
    }
}
