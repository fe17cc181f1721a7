//! Elements of sets and maps as the kernel keeps them.

use cluster::net::MacAddr;
use netprog::plane::element::{Element, Part};

/// Bits of one part's type in the type of a concatenation (`TYPE_BITS` in nft's
/// include/datatype.h).
const TYPE_BITS: u32 = 6;
/// Every part of a concatenation starts at a multiple of this (netfilter registers).
const REGISTER_BYTES: usize = 4;

/// One part's type, by its number in nft's include/datatype.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartType {
    V4,
    V6,
    Mac,
    Proto,
    Port,
    Mark,
    Iface,
}

impl PartType {
    fn from_number(number: u32) -> Option<Self> {
        match number {
            7 => Some(Self::V4),
            8 => Some(Self::V6),
            9 => Some(Self::Mac),
            12 => Some(Self::Proto),
            13 => Some(Self::Port),
            19 => Some(Self::Mark),
            41 => Some(Self::Iface),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::V4 | Self::Mark => 4,
            Self::V6 | Self::Iface => 16,
            Self::Mac => 6,
            Self::Proto => 1,
            Self::Port => 2,
        }
    }

    fn read(self, bytes: &[u8]) -> Option<Part> {
        Some(match self {
            Self::V4 => Part::V4(<[u8; 4]>::try_from(bytes).ok()?.into()),
            Self::V6 => Part::V6(<[u8; 16]>::try_from(bytes).ok()?.into()),
            Self::Mac => Part::Mac(MacAddr(<[u8; 6]>::try_from(bytes).ok()?)),
            Self::Proto => Part::Proto(*bytes.first()?),
            // Ports are in network order, marks in the machine's.
            Self::Port => Part::Port(u16::from_be_bytes(<[u8; 2]>::try_from(bytes).ok()?)),
            Self::Mark => Part::Mark(u32::from_ne_bytes(<[u8; 4]>::try_from(bytes).ok()?)),
            Self::Iface => {
                let name = bytes.split(|byte| *byte == 0).next()?;
                Part::Iface(String::from_utf8_lossy(name).into_owned())
            }
        })
    }
}

/// The type of a set's keys or of a map's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Type(Vec<PartType>);

impl Type {
    /// From the number that nft stores with the set; `None` for types that our tables do not use.
    pub(crate) fn from_number(mut number: u32) -> Option<Self> {
        let mut parts = Vec::new();
        while number != 0 {
            parts.push(PartType::from_number(number & ((1 << TYPE_BITS) - 1))?);
            number >>= TYPE_BITS;
        }
        parts.reverse();
        (!parts.is_empty()).then_some(Self(parts))
    }

    /// An element from the kernel's bytes; `None` if there are too few.
    pub(crate) fn read(&self, bytes: &[u8]) -> Option<Element> {
        let mut parts = Vec::with_capacity(self.0.len());
        let mut at = 0;
        for part in &self.0 {
            parts.push(part.read(bytes.get(at..at + part.bytes())?)?);
            at += part.bytes().next_multiple_of(REGISTER_BYTES);
        }
        Some(Element::of(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_read_as_they_are_written() {
        let mark = |n: u32| n.to_ne_bytes();
        let table: &[(u32, &[u8], &str)] = &[
            (7, &[10, 0, 0, 15], "10.0.0.15"),
            (13, &[0x1f, 0x90], "8080"),
            (12, &[17], "udp"),
            (12, &[89], "89"),
            (19, &mark(250), "250"),
            (
                7 << 6 | 9,
                &[10, 0, 0, 15, 2, 0x42, 10, 0, 0, 5, 0, 0],
                "10.0.0.15 . 02:42:0a:00:00:05",
            ),
            (
                12 << 12 | 13 << 6 | 7,
                &[6, 0, 0, 0, 0, 80, 0, 0, 10, 0, 0, 5],
                "tcp . 80 . 10.0.0.5",
            ),
            (41, b"eth0\0\0\0\0\0\0\0\0\0\0\0\0", "\"eth0\""),
        ];
        for (number, bytes, text) in table {
            let parsed = Type::from_number(*number).and_then(|kind| kind.read(bytes));
            assert_eq!(parsed.map(|element| element.to_string()).as_deref(), Some(*text));
        }
    }

    #[test]
    fn other_types_and_short_data_are_not_guessed() {
        assert_eq!(Type::from_number(4), None);
        assert_eq!(Type::from_number(0), None);
        assert_eq!(Type::from_number(7).and_then(|kind| kind.read(&[10, 0])), None);
    }
}
