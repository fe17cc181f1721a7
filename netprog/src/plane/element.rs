//! Elements of nftables sets and maps, as typed parts. They are compared and stored as values; text
//! in the notation of `nft` is only for display and scripts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cluster::net::MacAddr;
use cluster::spec::Protocol;
use serde::{Serialize, Serializer};

/// A key or a value: one part, or several that nft concatenates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element(Box<[Part]>);

/// One part of an element, by its type in nft.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `ipv4_addr`.
    V4(Ipv4Addr),
    /// `ipv6_addr`.
    V6(Ipv6Addr),
    /// `ether_addr`.
    Mac(MacAddr),
    /// `inet_proto`.
    Proto(u8),
    /// `inet_service`.
    Port(u16),
    /// `mark`.
    Mark(u32),
    /// `ifname`.
    Iface(String),
}

/// The protocols that services use, as nft names them.
const PROTOCOLS: [(u8, &str); 5] =
    [(1, "icmp"), (6, "tcp"), (17, "udp"), (58, "ipv6-icmp"), (132, "sctp")];

impl Element {
    /// An element of these parts, in order.
    pub fn of(parts: impl Into<Box<[Part]>>) -> Self {
        Self(parts.into())
    }

    /// Its parts in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.0
    }
}

impl Part {
    /// Of a transport protocol.
    #[must_use]
    pub fn protocol(protocol: Protocol) -> Self {
        Self::Proto(match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        })
    }
}

impl From<IpAddr> for Part {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => Self::V6(v6),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(" . ")?;
            }
            part.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => address.fmt(f),
            Self::Mac(mac) => mac.fmt(f),
            Self::Proto(number) => match PROTOCOLS.iter().find(|(known, _)| known == number) {
                Some((_, name)) => f.write_str(name),
                None => number.fmt(f),
            },
            Self::Port(port) => port.fmt(f),
            Self::Mark(mark) => mark.fmt(f),
            Self::Iface(name) => write!(f, "\"{name}\""),
        }
    }
}

impl Serialize for Element {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
