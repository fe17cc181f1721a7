//! What there is one of in IPv4, one of in IPv6, or one of in each.
//!
//! There is one encoding of each value, and decoding refuses every other. In JSON it is an object
//! with `v4`, `v6` or both in this order, each as it is printed. In bincode it is a number and the
//! bytes of each.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::NetError;

/// One of IPv4, one of IPv6, or one of each: none at all cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PerFamily<A, B> {
    /// IPv4 only.
    V4(A),
    /// IPv6 only.
    V6(B),
    /// Both families.
    Both(A, B),
}

/// A quantity of one family. What it prints, it reads.
pub trait OfFamily: Copy + fmt::Display + FromStr {
    /// Its bytes in bincode.
    type Bytes: Serialize + DeserializeOwned;

    /// What is said where there is none of either family.
    const NONE: NetError;

    /// Its bytes.
    fn bytes(&self) -> Self::Bytes;

    /// The inverse, if these are bytes of one.
    fn from_bytes(bytes: Self::Bytes) -> Option<Self>;
}

/// The numbers of the variants in bincode.
const V4: u8 = 0;
const V6: u8 = 1;
const BOTH: u8 = 2;

impl<A: OfFamily, B: OfFamily> PerFamily<A, B> {
    /// # Errors
    /// When there is none.
    pub fn new(v4: Option<A>, v6: Option<B>) -> Result<Self, NetError> {
        match (v4, v6) {
            (Some(v4), None) => Ok(Self::V4(v4)),
            (None, Some(v6)) => Ok(Self::V6(v6)),
            (Some(v4), Some(v6)) => Ok(Self::Both(v4, v6)),
            (None, None) => Err(A::NONE),
        }
    }

    /// That of IPv4.
    #[must_use]
    pub fn v4(&self) -> Option<A> {
        match self {
            Self::V4(v4) | Self::Both(v4, _) => Some(*v4),
            Self::V6(_) => None,
        }
    }

    /// That of IPv6.
    #[must_use]
    pub fn v6(&self) -> Option<B> {
        match self {
            Self::V6(v6) | Self::Both(_, v6) => Some(*v6),
            Self::V4(_) => None,
        }
    }
}

impl<A: OfFamily, B: OfFamily> Serialize for PerFamily<A, B> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let mut map = serializer.serialize_map(None)?;
            if let Some(v4) = self.v4() {
                map.serialize_entry("v4", &Printed(v4))?;
            }
            if let Some(v6) = self.v6() {
                map.serialize_entry("v6", &Printed(v6))?;
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
            tuple.serialize_element(&v4.bytes())?;
        }
        if let Some(v6) = self.v6() {
            tuple.serialize_element(&v6.bytes())?;
        }
        tuple.end()
    }
}

impl<'de, A: OfFamily, B: OfFamily> Deserialize<'de> for PerFamily<A, B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_map(Families(PhantomData))
        } else {
            deserializer.deserialize_tuple(3, Variant(PhantomData))
        }
    }
}

struct Families<A, B>(PhantomData<(A, B)>);

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Family {
    V4,
    V6,
}

impl<'de, A: OfFamily, B: OfFamily> Visitor<'de> for Families<A, B> {
    type Value = PerFamily<A, B>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with v4, v6 or both")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let (mut v4, mut v6) = (None, None);
        while let Some(family) = map.next_key()? {
            match family {
                Family::V4 if v4.is_none() && v6.is_none() => v4 = Some(printed(&mut map)?),
                Family::V6 if v6.is_none() => v6 = Some(printed(&mut map)?),
                Family::V4 => return Err(Error::custom("v4 again, or after v6")),
                Family::V6 => return Err(Error::duplicate_field("v6")),
            }
        }
        PerFamily::new(v4, v6).map_err(Error::custom)
    }
}

/// The next value, if it is as it is printed.
fn printed<'de, T: OfFamily, M: MapAccess<'de>>(map: &mut M) -> Result<T, M::Error> {
    map.next_value::<Printed<T>>().map(|printed| printed.0)
}

struct Printed<T>(T);

impl<T: fmt::Display> Serialize for Printed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr + fmt::Display> Deserialize<'de> for Printed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<T>(PhantomData<T>);

        impl<T: FromStr + fmt::Display> Visitor<'_> for Text<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of this family as it is printed")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
                let read: Option<T> = text.parse().ok();
                let same = read.filter(|value| value.to_string() == text);
                same.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_str(Text(PhantomData)).map(Self)
    }
}

struct Variant<A, B>(PhantomData<(A, B)>);

impl<'de, A: OfFamily, B: OfFamily> Visitor<'de> for Variant<A, B> {
    type Value = PerFamily<A, B>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0, 1 or 2 and the bytes of one of IPv4, one of IPv6 or one of each")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        match next(&mut seq)? {
            V4 => Ok(PerFamily::V4(from_bytes(&mut seq)?)),
            V6 => Ok(PerFamily::V6(from_bytes(&mut seq)?)),
            BOTH => Ok(PerFamily::Both(from_bytes(&mut seq)?, from_bytes(&mut seq)?)),
            other => Err(Error::custom(format!("{other} is no choice of families"))),
        }
    }
}

fn from_bytes<'de, T: OfFamily, S: SeqAccess<'de>>(seq: &mut S) -> Result<T, S::Error> {
    T::from_bytes(next(seq)?).ok_or_else(|| Error::custom("these bytes are no value"))
}

fn next<'de, T: Deserialize<'de>, S: SeqAccess<'de>>(seq: &mut S) -> Result<T, S::Error> {
    seq.next_element()?.ok_or_else(|| Error::custom("the value is cut off"))
}

#[cfg(test)]
pub(super) mod laws {
    use super::*;

    pub(crate) fn bincode(value: &impl Serialize) -> Vec<u8> {
        bincode::serde::encode_to_vec(value, bincode::config::standard()).unwrap()
    }

    /// The value, if all bytes are its encoding.
    pub(crate) fn from_bincode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
        let read = bincode::serde::decode_from_slice(bytes, bincode::config::standard());
        read.ok().filter(|(_, used)| *used == bytes.len()).map(|(value, _)| value)
    }

    /// What is written reads as the same, in JSON and in bincode.
    pub(crate) fn check_round_trips<T>(value: T)
    where
        T: Serialize + DeserializeOwned + fmt::Debug + PartialEq,
    {
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<T>(&json).unwrap(), value);
        assert_eq!(from_bincode(&bincode(&value)), Some(value));
    }

    /// If the bytes are a value's, they are what is written of it.
    pub(crate) fn check_reading<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
        if let Some(value) = from_bincode::<T>(bytes) {
            assert_eq!(bincode(&value), bytes);
        }
    }
}
