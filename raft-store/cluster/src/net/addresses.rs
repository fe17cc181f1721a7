//! The addresses that one endpoint or one service has on a network.
//!
//! There is one encoding of each value, and decoding refuses every other. In JSON it is an object
//! with `v4`, `v6` or both in this order, each as it is printed. In bincode it is a number and the
//! octets, so that one address has the bytes that an `IpAddr` has.

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::NetError;

/// One address of IPv4, one of IPv6, or one of each: none at all cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Addresses {
    /// IPv4 only.
    V4(Ipv4Addr),
    /// IPv6 only.
    V6(Ipv6Addr),
    /// Both families.
    Both(Ipv4Addr, Ipv6Addr),
}

/// The numbers of the variants in bincode.
const V4: u8 = 0;
const V6: u8 = 1;
const BOTH: u8 = 2;

impl Addresses {
    /// # Errors
    /// When there is no address.
    pub fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Result<Self, NetError> {
        match (v4, v6) {
            (Some(v4), None) => Ok(Self::V4(v4)),
            (None, Some(v6)) => Ok(Self::V6(v6)),
            (Some(v4), Some(v6)) => Ok(Self::Both(v4, v6)),
            (None, None) => Err(NetError::NoAddress),
        }
    }

    /// The IPv4 address.
    #[must_use]
    pub fn v4(&self) -> Option<Ipv4Addr> {
        match self {
            Self::V4(v4) | Self::Both(v4, _) => Some(*v4),
            Self::V6(_) => None,
        }
    }

    /// The IPv6 address.
    #[must_use]
    pub fn v6(&self) -> Option<Ipv6Addr> {
        match self {
            Self::V6(v6) | Self::Both(_, v6) => Some(*v6),
            Self::V4(_) => None,
        }
    }

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

impl Serialize for Addresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let mut map = serializer.serialize_map(None)?;
            if let Some(v4) = self.v4() {
                map.serialize_entry("v4", &v4)?;
            }
            if let Some(v6) = self.v6() {
                map.serialize_entry("v6", &v6)?;
            }
            return map.end();
        }
        let (variant, count) = match self {
            Self::V4(_) => (V4, 1),
            Self::V6(_) => (V6, 1),
            Self::Both(..) => (BOTH, 2),
        };
        let mut tuple = serializer.serialize_tuple(1 + count)?;
        tuple.serialize_element(&variant)?;
        if let Some(v4) = self.v4() {
            tuple.serialize_element(&v4.octets())?;
        }
        if let Some(v6) = self.v6() {
            tuple.serialize_element(&v6.octets())?;
        }
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_map(Families)
        } else {
            deserializer.deserialize_tuple(3, Octets)
        }
    }
}

struct Families;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Family {
    V4,
    V6,
}

impl<'de> Visitor<'de> for Families {
    type Value = Addresses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with v4, v6 or both")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Addresses, A::Error> {
        let (mut v4, mut v6) = (None, None);
        while let Some(family) = map.next_key()? {
            match family {
                Family::V4 if v4.is_none() && v6.is_none() => v4 = Some(printed(&mut map)?),
                Family::V6 if v6.is_none() => v6 = Some(printed(&mut map)?),
                Family::V4 => return Err(Error::custom("v4 again, or after v6")),
                Family::V6 => return Err(Error::duplicate_field("v6")),
            }
        }
        Addresses::new(v4, v6).map_err(Error::custom)
    }
}

/// The next value, if it is an address as it is printed.
fn printed<'de, T, A>(map: &mut A) -> Result<T, A::Error>
where
    T: FromStr + fmt::Display,
    A: MapAccess<'de>,
{
    map.next_value::<Printed<T>>().map(|printed| printed.0)
}

struct Printed<T>(T);

impl<'de, T: FromStr + fmt::Display> Deserialize<'de> for Printed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<T>(PhantomData<T>);

        impl<T: FromStr + fmt::Display> Visitor<'_> for Text<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address as it is printed")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
                let read: Option<T> = text.parse().ok();
                let same = read.filter(|address| address.to_string() == text);
                same.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_str(Text(PhantomData)).map(Self)
    }
}

struct Octets;

impl<'de> Visitor<'de> for Octets {
    type Value = Addresses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0, 1 or 2 and the octets of as many addresses")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Addresses, A::Error> {
        match next(&mut seq)? {
            V4 => Ok(Addresses::V4(next::<[u8; 4], A>(&mut seq)?.into())),
            V6 => Ok(Addresses::V6(next::<[u8; 16], A>(&mut seq)?.into())),
            BOTH => {
                let v4 = next::<[u8; 4], A>(&mut seq)?.into();
                Ok(Addresses::Both(v4, next::<[u8; 16], A>(&mut seq)?.into()))
            }
            other => Err(Error::custom(format!("{other} is no set of addresses"))),
        }
    }
}

fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(seq: &mut A) -> Result<T, A::Error> {
    seq.next_element()?.ok_or_else(|| Error::custom("the addresses are cut off"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arb() -> impl Strategy<Value = Addresses> {
        let each = (any::<Option<Ipv4Addr>>(), any::<Option<Ipv6Addr>>());
        each.prop_filter_map("no address", |(v4, v6)| Addresses::new(v4, v6).ok())
    }

    fn bincode(addresses: &Addresses) -> Vec<u8> {
        bincode::serde::encode_to_vec(addresses, bincode::config::standard()).unwrap()
    }

    /// The value, if all bytes are its encoding.
    fn from_bincode(bytes: &[u8]) -> Option<Addresses> {
        let read = bincode::serde::decode_from_slice(bytes, bincode::config::standard());
        read.ok().filter(|(_, used)| *used == bytes.len()).map(|(addresses, _)| addresses)
    }

    proptest! {
        #[test]
        fn both_encodings_round_trip(addresses in arb()) {
            let json = serde_json::to_string(&addresses).unwrap();
            prop_assert_eq!(serde_json::from_str::<Addresses>(&json).ok(), Some(addresses));
            prop_assert_eq!(from_bincode(&bincode(&addresses)), Some(addresses));
        }

        /// Goal: a value has one encoding. Method: what any bytes are read as encodes to them.
        #[test]
        fn what_is_read_is_what_is_written(kind in 0..4_u8, rest: [u8; 20], length in 0..21_usize) {
            let bytes = [&[kind], &rest[..length]].concat();
            if let Some(addresses) = from_bincode(&bytes) {
                prop_assert_eq!(bincode(&addresses), bytes);
            }
        }

        #[test]
        fn one_address_has_the_bytes_of_an_ip_address(address: IpAddr) {
            let config = bincode::config::standard();
            let plain = bincode::serde::encode_to_vec(address, config).unwrap();
            prop_assert_eq!(bincode(&address.into()), plain);
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
            assert_eq!(from_bincode(&[&[kind][..], &octets].concat()), None, "{kind}");
        }
        // The number 0 as bincode writes a larger one.
        assert_eq!(from_bincode(&[251, 0, 0, 10, 0, 1, 2]), None);
    }
}
