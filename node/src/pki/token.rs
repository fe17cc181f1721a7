//! Join tokens: `SWMTKN-1-<CA digest>-<secret>`, both base 36, as swarmkit's.

use std::fmt;
use std::str::FromStr;

use cluster::id::{format_id, parse_id};

/// Characters of a printed digest: 36^50 is the first power that exceeds 2^256.
const DIGEST_CHARS: usize = 50;
const PREFIX: &str = "SWMTKN";
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Text that is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid join token {given:?}: {reason}; `swarm join-token worker` on a manager prints a \
     valid one"
)]
pub struct TokenError {
    /// As given.
    pub given: String,
    /// Why not.
    pub reason: &'static str,
}

/// What admits a node in a role: a secret, and the digest of the CA that it may trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the CA's certificate.
    pub ca_digest: [u8; 32],
    /// The secret, an id's text.
    pub secret: String,
}

/// A new token for a CA.
#[must_use]
pub fn new_token(ca_digest: [u8; 32]) -> String {
    Token { ca_digest, secret: new_secret(rand::random()) }.to_string()
}

/// Text of a secret from random bits.
#[must_use]
pub fn new_secret(random: u128) -> String {
    format_id(random)
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}-1-{}-{}", base36(&self.ca_digest), self.secret)
    }
}

impl FromStr for Token {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bad = |reason| TokenError { given: text.to_owned(), reason };
        let parts: Vec<&str> = text.trim().split('-').collect();
        let [prefix, version, digest, secret] = parts[..] else {
            return Err(bad("it has not four parts joined by dashes"));
        };
        if prefix != PREFIX || version != "1" {
            return Err(bad("it does not begin with SWMTKN-1-"));
        }
        let ca_digest = from_base36(digest).ok_or_else(|| bad("its digest is malformed"))?;
        if parse_id(secret).is_err() {
            return Err(bad("its secret is malformed"));
        }
        Ok(Self { ca_digest, secret: secret.to_owned() })
    }
}

/// Big-endian bytes as fixed-width base 36.
fn base36(bytes: &[u8; 32]) -> String {
    let mut rest = *bytes;
    let mut text = vec![b'0'; DIGEST_CHARS];
    for place in text.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in &mut rest {
            let value = remainder * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 36).unwrap_or(u8::MAX);
            remainder = value % 36;
        }
        *place = DIGITS[remainder as usize];
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn from_base36(text: &str) -> Option<[u8; 32]> {
    if text.len() != DIGEST_CHARS {
        return None;
    }
    let mut bytes = [0_u8; 32];
    for character in text.bytes() {
        let digit = DIGITS.iter().position(|d| *d == character)?;
        let mut carry = u32::try_from(digit).ok()?;
        for byte in bytes.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for byte in [0, 1, 0x7f, 0xff] {
            let token = Token { ca_digest: [byte; 32], secret: new_secret(u128::from(byte)) };
            assert_eq!(token.to_string().parse::<Token>(), Ok(token));
        }
    }

    #[test]
    fn bad_tokens_say_why_and_where_to_get_one() {
        for (text, reason) in [
            ("", "four parts"),
            ("SWMTKN-2-a-b", "does not begin"),
            ("SWMTKN-1-abc-def", "digest is malformed"),
        ] {
            let error = text.parse::<Token>().unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("join-token worker"), "{error}");
        }
    }
}
