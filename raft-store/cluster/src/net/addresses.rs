//! The addresses that one endpoint or one service has on a network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::NetError;
use super::per_family::{OfFamily, PerFamily};

/// One address of IPv4, one of IPv6, or one of each. One address has the bytes in bincode that an
/// `IpAddr` has.
pub type Addresses = PerFamily<Ipv4Addr, Ipv6Addr>;

impl OfFamily for Ipv4Addr {
    type Bytes = [u8; 4];

    const NONE: NetError = NetError::NoAddress;

    fn bytes(&self) -> [u8; 4] {
        self.octets()
    }

    fn from_bytes(octets: [u8; 4]) -> Option<Self> {
        Some(octets.into())
    }
}

impl OfFamily for Ipv6Addr {
    type Bytes = [u8; 16];

    const NONE: NetError = NetError::NoAddress;

    fn bytes(&self) -> [u8; 16] {
        self.octets()
    }

    fn from_bytes(octets: [u8; 16]) -> Option<Self> {
        Some(octets.into())
    }
}

impl Addresses {
    /// IPv4 before IPv6.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (v4, v6) = (self.v4().map(IpAddr::V4), self.v6().map(IpAddr::V6));
        v4.into_iter().chain(v6)
    }

    /// The IPv4 address, or the IPv6 address if that is the only one.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        match self {
            Self::V4(v4) | Self::Both(v4, _) => IpAddr::V4(*v4),
            Self::V6(v6) => IpAddr::V6(*v6),
        }
    }

    /// The one of the same family as another address.
    #[must_use]
    pub fn like(&self, other: IpAddr) -> Option<IpAddr> {
        match other {
            IpAddr::V4(_) => self.v4().map(IpAddr::V4),
            IpAddr::V6(_) => self.v6().map(IpAddr::V6),
        }
    }

    /// Whether the address is one of these.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.like(address) == Some(address)
    }
}

impl From<IpAddr> for Addresses {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => Self::V6(v6),
        }
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(v4) => v4.fmt(f),
            Self::V6(v6) => v6.fmt(f),
            Self::Both(v4, v6) => write!(f, "{v4} {v6}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::per_family::laws::{bincode, check_reading, check_round_trips, from_bincode};

    fn arb() -> impl Strategy<Value = Addresses> {
        let each = (any::<Option<Ipv4Addr>>(), any::<Option<Ipv6Addr>>());
        each.prop_filter_map("no address", |(v4, v6)| Addresses::new(v4, v6).ok())
    }

    proptest! {
        #[test]
        fn both_encodings_round_trip(addresses in arb()) {
            check_round_trips(addresses);
        }

        /// Goal: a value has one encoding. Method: what any bytes are read as encodes to them.
        #[test]
        fn what_is_read_is_what_is_written(kind in 0..4_u8, rest: [u8; 20], length in 0..21_usize) {
            check_reading::<Addresses>(&[&[kind], &rest[..length]].concat());
        }

        #[test]
        fn one_address_has_the_bytes_of_an_ip_address(address: IpAddr) {
            let config = bincode::config::standard();
            let plain = bincode::serde::encode_to_vec(address, config).unwrap();
            prop_assert_eq!(bincode(&Addresses::from(address)), plain);
        }

        #[test]
        fn the_families_are_looked_up_by_an_address(addresses in arb(), other: IpAddr) {
            let all: Vec<IpAddr> = addresses.iter().collect();
            prop_assert!(all.is_sorted() && all.first() == Some(&addresses.first()));
            prop_assert!(all.iter().all(|address| addresses.contains(*address)));
            prop_assert_eq!(addresses.contains(other), all.contains(&other));
            let like = all.iter().find(|address| address.is_ipv4() == other.is_ipv4());
            prop_assert_eq!(addresses.like(other), like.copied());
        }
    }

    #[test]
    fn encodings_stand_still() {
        let (v4, v6) = (Ipv4Addr::new(10, 0, 1, 2), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
        let octets = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        let table = [
            (Addresses::V4(v4), r#"{"v4":"10.0.1.2"}"#, vec![0, 10, 0, 1, 2]),
            (Addresses::V6(v6), r#"{"v6":"fd00::2"}"#, [&[1][..], &octets].concat()),
            (
                Addresses::Both(v4, v6),
                r#"{"v4":"10.0.1.2","v6":"fd00::2"}"#,
                [&[2, 10, 0, 1, 2][..], &octets].concat(),
            ),
        ];
        for (addresses, json, bytes) in table {
            assert_eq!(serde_json::to_string(&addresses).unwrap(), json);
            assert_eq!(bincode(&addresses), bytes);
        }
    }

    #[test]
    fn no_address_and_other_encodings_are_refused() {
        for (json, why) in [
            ("{}", "an endpoint needs an IPv4 or an IPv6 address"),
            (r#"{"v4":null}"#, "invalid type: null"),
            (r#"{"v4":"10.0.1.2","v6":null}"#, "invalid type: null"),
            (r#""10.0.1.2""#, "invalid type: string"),
            (r#"["10.0.1.2"]"#, "invalid type: sequence"),
            (r#"{"v5":"10.0.1.2"}"#, "unknown variant `v5`"),
            (r#"{"v4":"10.0.1.2","v4":"10.0.1.2"}"#, "v4 again, or after v6"),
            (r#"{"v6":"fd00::2","v4":"10.0.1.2"}"#, "v4 again, or after v6"),
            (r#"{"v6":"fd00::2","v6":"fd00::2"}"#, "duplicate field `v6`"),
            (r#"{"v4":"fd00::2"}"#, "invalid value"),
            (r#"{"v6":"10.0.1.2"}"#, "invalid value"),
            (r#"{"v6":"FD00::2"}"#, "invalid value"),
            (r#"{"v6":"fd00:0::2"}"#, "invalid value"),
        ] {
            let error = serde_json::from_str::<Addresses>(json).unwrap_err().to_string();
            assert!(error.starts_with(why), "{json}: {error}");
        }
        let octets = [7; 20];
        for kind in 3..=u8::MAX {
            assert_eq!(from_bincode::<Addresses>(&[&[kind][..], &octets].concat()), None, "{kind}");
        }
        // The number 0 as bincode writes a larger one.
        assert_eq!(from_bincode::<Addresses>(&[251, 0, 0, 10, 0, 1, 2]), None);
    }
}
