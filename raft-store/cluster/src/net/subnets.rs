//! The subnets that one network has.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::per_family::{OfFamily, PerFamily};
use super::{Addresses, NetError, Subnet};

/// One subnet of IPv4, one of IPv6, or one of each, with the network's gateway in it. Each is kept
/// as the gateway's address and the length of the prefix, like `10.0.1.1/24`, so that the gateway
/// is always in the subnet.
pub type Subnets = PerFamily<Ipv4Net, Ipv6Net>;

impl OfFamily for Ipv4Net {
    type Bytes = ([u8; 4], u8);

    const NONE: NetError = NetError::NoSubnet;

    fn bytes(&self) -> Self::Bytes {
        (self.addr().octets(), self.prefix_len())
    }

    fn from_bytes((octets, prefix_len): Self::Bytes) -> Option<Self> {
        Self::new(Ipv4Addr::from(octets), prefix_len).ok()
    }
}

impl OfFamily for Ipv6Net {
    type Bytes = ([u8; 16], u8);

    const NONE: NetError = NetError::NoSubnet;

    fn bytes(&self) -> Self::Bytes {
        (self.addr().octets(), self.prefix_len())
    }

    fn from_bytes((octets, prefix_len): Self::Bytes) -> Option<Self> {
        Self::new(Ipv6Addr::from(octets), prefix_len).ok()
    }
}

impl Subnets {
    /// One subnet; `None` if the gateway is not in it.
    #[must_use]
    pub fn one(subnet: Subnet, gateway: IpAddr) -> Option<Self> {
        if !subnet.contains(gateway) {
            return None;
        }
        match IpNet::new(gateway, subnet.prefix_len()).ok()? {
            IpNet::V4(v4) => Some(Self::V4(v4)),
            IpNet::V6(v6) => Some(Self::V6(v6)),
        }
    }

    /// IPv4 before IPv6.
    pub fn iter(&self) -> impl Iterator<Item = Subnet> + use<> {
        let (v4, v6) = (self.v4().map(IpNet::V4), self.v6().map(IpNet::V6));
        v4.into_iter().chain(v6).map(|net| Subnet(net.trunc()))
    }

    /// The addresses of the network's bridge on every node, one in each subnet.
    #[must_use]
    pub fn gateways(&self) -> Addresses {
        match self {
            Self::V4(v4) => Addresses::V4(v4.addr()),
            Self::V6(v6) => Addresses::V6(v6.addr()),
            Self::Both(v4, v6) => Addresses::Both(v4.addr(), v6.addr()),
        }
    }

    /// The one of the same family as an address.
    #[must_use]
    pub fn like(&self, address: IpAddr) -> Option<Subnet> {
        self.iter().find(|subnet| subnet.net().addr().is_ipv4() == address.is_ipv4())
    }

    /// Whether an address lies in one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.iter().any(|subnet| subnet.contains(address))
    }

    /// The first one that shares an address with a prefix.
    #[must_use]
    pub fn overlapping(&self, other: &Subnet) -> Option<Subnet> {
        self.iter().find(|subnet| subnet.overlaps(other))
    }
}

impl fmt::Display for Subnets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(v4) => v4.trunc().fmt(f),
            Self::V6(v6) => v6.trunc().fmt(f),
            Self::Both(v4, v6) => write!(f, "{} {}", v4.trunc(), v6.trunc()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::per_family::laws::{bincode, check_reading, check_round_trips, from_bincode};

    fn arb() -> impl Strategy<Value = Subnets> {
        let v4 = (any::<Ipv4Addr>(), 0..=32_u8)
            .prop_map(|(address, length)| Ipv4Net::new(address, length).unwrap());
        let v6 = (any::<Ipv6Addr>(), 0..=128_u8)
            .prop_map(|(address, length)| Ipv6Net::new(address, length).unwrap());
        let each = (proptest::option::of(v4), proptest::option::of(v6));
        each.prop_filter_map("no subnet", |(v4, v6)| Subnets::new(v4, v6).ok())
    }

    fn subnet() -> impl Strategy<Value = Subnet> {
        let v4 = (0..4_u8, 20..33_u8).prop_map(|(n, length)| (IpAddr::from([10, 0, 1, n]), length));
        let v6 = (0..4_u16, 120..129_u8)
            .prop_map(|(n, length)| (IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]), length));
        let either = prop_oneof![v4, v6];
        either.prop_map(|(address, length)| Subnet::holding(address, length).unwrap())
    }

    proptest! {
        #[test]
        fn both_encodings_round_trip(subnets in arb()) {
            check_round_trips(subnets);
        }

        /// Goal: a value has one encoding. Method: what any bytes are read as encodes to them; the
        /// lengths are such that every second one is that of a prefix.
        #[test]
        fn what_is_read_is_what_is_written(
            kind in 0..4_u8,
            v4: [u8; 4],
            v6: [u8; 16],
            lengths in (0..64_u8, any::<u8>()),
            rest in proptest::collection::vec(any::<u8>(), 0..2),
        ) {
            let (v4, v6) = ([&v4[..], &[lengths.0]].concat(), [&v6[..], &[lengths.1]].concat());
            let bytes = match kind {
                0 => [&[kind][..], &v4, &rest].concat(),
                1 => [&[kind][..], &v6, &rest].concat(),
                _ => [&[kind][..], &v4, &v6, &rest].concat(),
            };
            let all_good = match kind {
                0 => lengths.0 <= 32,
                1 => lengths.1 <= 128,
                2 => lengths.0 <= 32 && lengths.1 <= 128,
                _ => false,
            };
            prop_assert_eq!(from_bincode::<Subnets>(&bytes).is_some(), all_good && rest.is_empty());
            check_reading::<Subnets>(&bytes);
        }

        /// Goal: a network asks its subnets what a look at each of them tells.
        #[test]
        fn subnets_are_looked_up_by_an_address(subnets in arb(), v4: Ipv4Addr, v6: Ipv6Addr) {
            let all: Vec<Subnet> = subnets.iter().collect();
            let gateways = subnets.gateways();
            prop_assert_eq!(all.len(), gateways.iter().count());
            for (subnet, gateway) in all.iter().zip(gateways.iter()) {
                prop_assert_eq!(subnets.like(gateway), Some(*subnet));
                prop_assert!(subnet.contains(gateway) && subnets.contains(gateway));
                prop_assert_eq!(subnets.overlapping(subnet), Some(*subnet));
            }
            for address in [IpAddr::V4(v4), IpAddr::V6(v6)] {
                let held = all.iter().any(|subnet| subnet.contains(address));
                prop_assert_eq!(subnets.contains(address), held);
                let has_family = gateways.like(address).is_some();
                prop_assert_eq!(subnets.like(address).is_some(), has_family);
            }
        }

        /// Goal: the gateway lies in the subnet. Method: subnets and gateways near each other.
        #[test]
        fn one_subnet_has_its_own_gateway(subnet in subnet(), near in subnet()) {
            let gateway = near.net().addr();
            let one = Subnets::one(subnet, gateway);
            prop_assert_eq!(one.is_some(), subnet.contains(gateway));
            if let Some(one) = one {
                prop_assert_eq!(one.iter().collect::<Vec<_>>(), [subnet]);
                prop_assert_eq!(one.gateways(), Addresses::from(gateway));
                prop_assert_eq!(one.to_string(), subnet.to_string());
            }
        }
    }

    #[test]
    fn encodings_stand_still() {
        let (v4, v6) = ("10.0.1.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap());
        let octets = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let table = [
            (Subnets::V4(v4), r#"{"v4":"10.0.1.1/24"}"#, vec![0, 10, 0, 1, 1, 24]),
            (Subnets::V6(v6), r#"{"v6":"fd00::1/64"}"#, [&[1][..], &octets, &[64]].concat()),
            (
                Subnets::Both(v4, v6),
                r#"{"v4":"10.0.1.1/24","v6":"fd00::1/64"}"#,
                [&[2, 10, 0, 1, 1, 24][..], &octets, &[64]].concat(),
            ),
        ];
        for (subnets, json, bytes) in table {
            assert_eq!(serde_json::to_string(&subnets).unwrap(), json);
            assert_eq!(bincode(&subnets), bytes);
        }
        assert_eq!(Subnets::Both(v4, v6).to_string(), "10.0.1.0/24 fd00::/64");
    }

    #[test]
    fn no_subnet_and_other_encodings_are_refused() {
        for (json, why) in [
            ("{}", "a network needs an IPv4 or an IPv6 subnet"),
            (r#"{"v4":null}"#, "invalid type: null"),
            (r#"{"v4":"10.0.1.1/24","v6":null}"#, "invalid type: null"),
            (r#""10.0.1.1/24""#, "invalid type: string"),
            (r#"["10.0.1.1/24"]"#, "invalid type: sequence"),
            (r#"{"v4":["10.0.1.1",24]}"#, "invalid type: sequence"),
            (r#"{"v5":"10.0.1.1/24"}"#, "unknown variant `v5`"),
            (r#"{"v4":"10.0.1.1/24","v4":"10.0.1.1/24"}"#, "v4 again, or after v6"),
            (r#"{"v6":"fd00::1/64","v4":"10.0.1.1/24"}"#, "v4 again, or after v6"),
            (r#"{"v6":"fd00::1/64","v6":"fd00::1/64"}"#, "duplicate field `v6`"),
            (r#"{"v4":"fd00::1/64"}"#, "invalid value"),
            (r#"{"v6":"10.0.1.1/24"}"#, "invalid value"),
            (r#"{"v4":"10.0.1.1"}"#, "invalid value"),
            (r#"{"v4":"10.0.1.1/33"}"#, "invalid value"),
            (r#"{"v4":"10.0.1.1/024"}"#, "invalid value"),
            (r#"{"v6":"fd00::1/129"}"#, "invalid value"),
            (r#"{"v6":"FD00::1/64"}"#, "invalid value"),
            (r#"{"v6":"fd00:0::1/64"}"#, "invalid value"),
        ] {
            let error = serde_json::from_str::<Subnets>(json).unwrap_err().to_string();
            assert!(error.starts_with(why), "{json}: {error}");
        }
        let octets = [7; 22];
        for kind in 3..=u8::MAX {
            assert_eq!(from_bincode::<Subnets>(&[&[kind][..], &octets].concat()), None, "{kind}");
        }
        // The number 0 as bincode writes a larger one.
        assert_eq!(from_bincode::<Subnets>(&[251, 0, 0, 10, 0, 1, 1, 24]), None);
    }
}
