//! How SWIM names a node: one run of it, so that a restarted node is not taken for its dead self.

use std::net::SocketAddr;

use cluster::id::NodeId;
use serde::{Deserialize, Serialize};

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
}

impl Identity {
    /// The identity to which an announcement to a node is addressed before anything is known of
    /// it but its address; every real identity of that node wins over it.
    #[must_use]
    pub fn unknown(node: NodeId, address: SocketAddr) -> Self {
        Self { node, generation: 0, renewals: 0, address }
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { renewals: self.renewals.checked_add(1)?, ..*self })
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
        Identity { node: NodeId(1), generation, renewals, address }
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
        let renewed = identity(3, 4).renew().unwrap();
        assert!(renewed.win_addr_conflict(&identity(3, 4)));
        assert_eq!(identity(3, u32::MAX).renew(), None);
    }
}
