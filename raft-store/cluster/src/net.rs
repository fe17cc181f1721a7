//! Network quantities: MAC addresses, VNIs, subnets, the addresses of an endpoint and the
//! subnets of a network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::addresses::Addresses;
pub use self::per_family::PerFamily;
pub use self::subnets::Subnets;

mod addresses;
mod per_family;
mod subnets;

/// Text or a number that is not the quantity it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Not six hexadecimal octets.
    #[error("{0:?} is not a MAC address: give six octets, like 02:42:0a:00:00:05")]
    Mac(String),
    /// Outside 1..=16777215.
    #[error("VNI {0} is outside 1-16777215")]
    Vni(u32),
    /// Not a prefix.
    #[error("invalid subnet {0}: give an address and a prefix length, like 10.0.9.0/24")]
    Subnet(String),
    /// Neither of IPv4 nor of IPv6.
    #[error("an endpoint needs an IPv4 or an IPv6 address")]
    NoAddress,
    /// Neither of IPv4 nor of IPv6.
    #[error("a network needs an IPv4 or an IPv6 subnet")]
    NoSubnet,
    /// Host bits are set.
    #[error("invalid subnet {given}: host bits are set, did you mean {meant}?")]
    HostBits {
        /// As given.
        given: String,
        /// With the host bits cleared.
        meant: String,
    },
}

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The locally administered address that Docker derives from an IPv4 address (02:42 and the
    /// four octets); for IPv6 the last four octets serve.
    #[must_use]
    pub fn for_address(address: IpAddr) -> Self {
        let tail: [u8; 4] = match address {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => {
                let o = v6.octets();
                [o[12], o[13], o[14], o[15]]
            }
        };
        Self([0x02, 0x42, tail[0], tail[1], tail[2], tail[3]])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Self, NetError> {
        let bad = || NetError::Mac(text.to_owned());
        let mut octets = [0_u8; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_not_hex| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(octets)) }
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 6]>::deserialize(deserializer).map(Self)
        }
    }
}

/// A VXLAN network identifier, RFC 7348: 24 bits, 0 unused here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The first one that is given out, as Docker's.
    pub const FIRST: Self = Self(4096);
    /// The last one.
    pub const LAST: Self = Self(0xFF_FFFF);

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = NetError;
    fn try_from(number: u32) -> Result<Self, NetError> {
        if (1..=Self::LAST.0).contains(&number) {
            Ok(Self(number))
        } else {
            Err(NetError::Vni(number))
        }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A prefix without host bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet(IpNet); // invariant: no host bits are set

impl Subnet {
    /// Refuses host bits.
    pub fn new(net: IpNet) -> Result<Self, NetError> {
        let meant = net.trunc();
        if meant == net {
            Ok(Self(net))
        } else {
            Err(NetError::HostBits { given: net.to_string(), meant: meant.to_string() })
        }
    }

    /// The prefix that holds `address`.
    pub fn holding(address: IpAddr, prefix_len: u8) -> Result<Self, NetError> {
        IpNet::new(address, prefix_len)
            .map(|net| Self(net.trunc()))
            .map_err(|_too_long| NetError::Subnet(format!("{address}/{prefix_len}")))
    }

    /// As the ipnet crate's type.
    #[must_use]
    pub fn net(&self) -> IpNet {
        self.0
    }

    /// Prefix length.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether the address lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Whether they share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.contains(&other.0) || other.0.contains(&self.0)
    }

    /// Address number `n` of the prefix, if it has one; 0 is the network address.
    #[must_use]
    pub fn address(&self, n: u64) -> Option<IpAddr> {
        let candidate = match self.0.network() {
            IpAddr::V4(v4) => {
                let n = u32::try_from(n).ok()?;
                IpAddr::V4(Ipv4Addr::from(u32::from(v4).checked_add(n)?))
            }
            IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).checked_add(u128::from(n))?.into()),
        };
        self.contains(candidate).then_some(candidate)
    }

    /// The last address: broadcast in IPv4, never given out.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.0.broadcast()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Subnet {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Self, NetError> {
        let net: IpNet = text.parse().map_err(|_not_a_net| NetError::Subnet(text.to_owned()))?;
        Self::new(net)
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn mac_round_trips(octets: [u8; 6]) {
            let mac = MacAddr(octets);
            prop_assert_eq!(mac.to_string().parse::<MacAddr>(), Ok(mac));
        }

        #[test]
        fn subnet_addresses_stay_inside(ip: u32, len in 0_u8..=32, n: u32) {
            let subnet = Subnet::holding(IpAddr::V4(ip.into()), len).unwrap();
            if let Some(address) = subnet.address(u64::from(n)) {
                prop_assert!(subnet.contains(address));
            }
            prop_assert_eq!(subnet.to_string().parse::<Subnet>(), Ok(subnet));
        }
    }

    #[test]
    fn bad_quantities_say_what_to_give() {
        assert_eq!(
            "10.9.0.0/99".parse::<Subnet>().unwrap_err().to_string(),
            "invalid subnet 10.9.0.0/99: give an address and a prefix length, like 10.0.9.0/24"
        );
        assert_eq!(
            "10.9.0.7/24".parse::<Subnet>().unwrap_err().to_string(),
            "invalid subnet 10.9.0.7/24: host bits are set, did you mean 10.9.0.0/24?"
        );
        assert!(Vni::try_from(0).is_err());
    }
}
