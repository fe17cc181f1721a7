//! Facts about this node that rendering needs in addition to the assignment and the view.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster::id::TaskId;
use cluster::net::Subnet;
use serde::{Deserialize, Serialize};

/// Facts of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// Own underlay address.
    pub vtep: IpAddr,
    /// TCP port of the cluster listener, if this node has one.
    pub cluster_port: u16,
    /// MTU of the underlay link in bytes.
    pub underlay_mtu: u32,
    /// Prefix of `skein_gwbridge`; its first address is the bridge's.
    pub gwbridge: Subnet,
    /// Which balancer programs VIPs.
    pub balancer: Balancer,
    /// Sandboxes that exist: their supervisors have made them.
    pub sandboxes: BTreeMap<TaskId, LocalSandbox>,
}

/// A sandbox that exists on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalSandbox {
    /// Its address on `skein_gwbridge`.
    pub egress: IpAddr,
    /// Port of 127.0.0.11 on which its DNS server has its UDP socket.
    pub dns_udp_port: u16,
    /// The same for TCP.
    pub dns_tcp_port: u16,
}

/// Which balancer programs VIPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Balancer {
    /// Destination MAC rewritten by nftables in the fabric's bridge.
    Nft,
    /// IPVS, direct routing, by firewall mark.
    Ipvs,
}

impl Balancer {
    /// As in flags and in the node's description.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Ipvs => "ipvs",
        }
    }
}
