//! Set elements as text, exactly as the renderer writes them: parts joined by ` . `, numbers in
//! decimal, addresses in their usual form, interface names quoted, protocols by name.

use std::net::{Ipv4Addr, Ipv6Addr};

use cluster::net::MacAddr;

/// Bits of one part's type in the type of a concatenation (`TYPE_BITS` in nft's
/// include/datatype.h).
const TYPE_BITS: u32 = 6;
/// Every part of a concatenation begins at a multiple of this (netfilter registers).
const REGISTER_BYTES: usize = 4;

/// One part's type, by its number in nft's include/datatype.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Ipv4,
    Ipv6,
    Ether,
    Protocol,
    Port,
    Mark,
    InterfaceName,
}

impl Part {
    fn from_number(number: u32) -> Option<Self> {
        match number {
            7 => Some(Self::Ipv4),
            8 => Some(Self::Ipv6),
            9 => Some(Self::Ether),
            12 => Some(Self::Protocol),
            13 => Some(Self::Port),
            19 => Some(Self::Mark),
            41 => Some(Self::InterfaceName),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Ipv4 | Self::Mark => 4,
            Self::Ipv6 | Self::InterfaceName => 16,
            Self::Ether => 6,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }

    fn text(self, bytes: &[u8]) -> Option<String> {
        Some(match self {
            Self::Ipv4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string(),
            Self::Ipv6 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string(),
            Self::Ether => MacAddr(<[u8; 6]>::try_from(bytes).ok()?).to_string(),
            Self::Protocol => protocol(*bytes.first()?),
            // Ports are in network order, marks in the machine's.
            Self::Port => u16::from_be_bytes(<[u8; 2]>::try_from(bytes).ok()?).to_string(),
            Self::Mark => u32::from_ne_bytes(<[u8; 4]>::try_from(bytes).ok()?).to_string(),
            Self::InterfaceName => {
                let name = bytes.split(|byte| *byte == 0).next()?;
                format!("\"{}\"", String::from_utf8_lossy(name))
            }
        })
    }
}

/// The names that nft prints for the protocols that services use.
fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// The type of a set's keys or of a map's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Type(Vec<Part>);

impl Type {
    /// From the number that nft keeps with the set; `None` for types that no table of ours uses.
    pub(crate) fn from_number(mut number: u32) -> Option<Self> {
        let mut parts = Vec::new();
        while number != 0 {
            parts.push(Part::from_number(number & ((1 << TYPE_BITS) - 1))?);
            number >>= TYPE_BITS;
        }
        parts.reverse();
        (!parts.is_empty()).then_some(Self(parts))
    }

    /// An element as the renderer writes it.
    pub(crate) fn text(&self, bytes: &[u8]) -> Option<String> {
        let mut texts = Vec::with_capacity(self.0.len());
        let mut at = 0;
        for part in &self.0 {
            texts.push(part.text(bytes.get(at..at + part.bytes())?)?);
            at += part.bytes().next_multiple_of(REGISTER_BYTES);
        }
        Some(texts.join(" . "))
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
            let parsed = Type::from_number(*number).and_then(|kind| kind.text(bytes));
            assert_eq!(parsed.as_deref(), Some(*text));
        }
    }

    #[test]
    fn other_types_and_short_data_are_not_guessed() {
        assert_eq!(Type::from_number(4), None);
        assert_eq!(Type::from_number(0), None);
        assert_eq!(Type::from_number(7).and_then(|kind| kind.text(&[10, 0])), None);
    }
}
