//! How SWIM names a node: one run of it, so that a restarted node is not taken for its dead self.

use std::net::SocketAddr;

use cluster::id::NodeId;
use serde::{Deserialize, Serialize};

use crate::proof::{Author, Proof, Statement};

/// One run of a node, as SWIM knows it.
///
/// Two identities of one node conflict; the one with the greater (generation, renewals) wins, so a
/// node that comes back after a crash is alive at once and does not wait for its old self to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Grows at each start of the node.
    pub generation: u64,
    /// Grows when the node learns, while running, that it was declared down.
    pub renewals: u32,
    /// Where it receives gossip, by UDP and by TCP.
    pub address: SocketAddr,
    /// That the node itself runs as this generation with these renewals. Its address needs none:
    /// the managers tell it.
    pub proof: Proof,
}

impl Identity {
    /// The identity of a run that proves itself.
    pub(crate) fn of_run(
        author: &Author,
        generation: u64,
        renewals: u32,
        address: SocketAddr,
    ) -> Self {
        let proof = author.prove(Statement::Run(generation, renewals));
        Self { node: author.node, generation, renewals, address, proof }
    }

    /// Which of two identities of one node is the later.
    #[must_use]
    pub fn age(&self) -> (u64, u32) {
        (self.generation, self.renewals)
    }

    /// The identity to which an announcement to a node is addressed before anything is known of
    /// it but its address; every real identity of that node wins over it.
    #[must_use]
    pub fn unknown(node: NodeId, address: SocketAddr) -> Self {
        Self { node, generation: 0, renewals: 0, address, proof: Proof::default() }
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        // Only who holds the node's key can: foca says `Defunct`, and `Membership` renews.
        None
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        // The address is the last resort, so that both sides of a conflict name the same winner.
        (self.generation, self.renewals, self.address)
            > (adversary.generation, adversary.renewals, adversary.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foca::Identity as _;

    fn identity(generation: u64, renewals: u32) -> Identity {
        let address = "127.0.0.1:7946".parse().unwrap();
        Identity { generation, renewals, ..Identity::unknown(NodeId(1), address) }
    }

    #[test]
    fn a_later_run_wins_and_a_renewal_wins_over_its_own_run_only() {
        let table = [
            (identity(2, 0), identity(1, 9), true),
            (identity(1, 9), identity(2, 0), false),
            (identity(1, 1), identity(1, 0), true),
            (identity(1, 0), identity(1, 0), false),
        ];
        for (left, right, wins) in table {
            assert_eq!(left.win_addr_conflict(&right), wins, "{left:?} {right:?}");
        }
    }
}
