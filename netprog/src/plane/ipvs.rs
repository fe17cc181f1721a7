//! IPVS: virtual services by firewall mark, their schedulers and real servers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The key of a virtual service: a firewall mark and an address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VirtualKey {
    /// IPv6.
    pub ipv6: bool,
    /// Mark of its packets: all ports of all protocols.
    pub fwmark: u32,
}

/// A virtual service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualEntry {
    pub scheduler: Scheduler,
    /// Real servers by address, all by direct routing and on the port that the client called, with
    /// their weights. One of weight 0 keeps its connections and gets no new ones.
    pub real: BTreeMap<IpAddr, u32>,
}

/// How long connections are kept after the last packet, in seconds, as in `ipvsadm --set`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timeouts {
    /// Established ones of TCP.
    pub tcp: u32,
    /// Those that have seen a FIN.
    pub tcp_fin: u32,
    /// UDP.
    pub udp: u32,
}

impl Timeouts {
    /// The kernel's own (`tcp_timeouts` and `udp_timeouts`, net/netfilter/ipvs/ip_vs_proto_*.c).
    pub const KERNEL: Self = Self { tcp: 900, tcp_fin: 120, udp: 300 };
}

/// A scheduler and its settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scheduler {
    /// As in `ipvsadm -s`.
    pub name: String,
    /// Settings of its own: bits of [`SCHEDULER_FLAGS`].
    pub flags: u32,
}

/// The bits of a service's flags that belong to its scheduler: `IP_VS_SVC_F_SCHED1` to `SCHED3`
/// (include/uapi/linux/ip_vs.h).
pub const SCHEDULER_FLAGS: u32 = 0x38;
/// Of `sh` and `mh`: where the chosen server has weight 0, choose another (`IP_VS_SVC_F_SCHED1`).
pub const FLAG_FALLBACK: u32 = 0x08;
/// Of `sh` and `mh`: the source port is part of what is hashed (`IP_VS_SVC_F_SCHED2`).
pub const FLAG_PORT: u32 = 0x10;

impl fmt::Display for VirtualKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-f {}{}", self.fwmark, if self.ipv6 { " -6" } else { "" })
    }
}

impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--set {} {} {}", self.tcp, self.tcp_fin, self.udp)
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-s {}", self.name)?;
        let named = [(FLAG_FALLBACK, "fallback"), (FLAG_PORT, "port")];
        let set: Vec<String> = named
            .iter()
            .filter(|(flag, _)| self.flags & flag != 0)
            .map(|(_, name)| format!("{}-{name}", self.name))
            .collect();
        if set.is_empty() { Ok(()) } else { write!(f, " -b {}", set.join(",")) }
    }
}
