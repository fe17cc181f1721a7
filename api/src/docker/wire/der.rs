//! As much of X.509 as `TLSInfo` needs: the raw issuer and the raw public key of a certificate.
//!
//! The certificate is the cluster's own, from the replicated state; whatever does not parse gives
//! `None`, and the field stays empty.

/// Raw bytes of a certificate's parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CertificateParts {
    /// DER of the subject name.
    pub subject: Vec<u8>,
    /// DER of the `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
}

/// Reads the first certificate of a PEM text (RFC 7468, RFC 5280 section 4.1).
pub(crate) fn parse_certificate(pem: &str) -> Option<CertificateParts> {
    let body = pem.split("-----BEGIN CERTIFICATE-----").nth(1)?;
    let body = body.split("-----END CERTIFICATE-----").next()?;
    let der = base64_decode(body)?;
    let (certificate, _) = element(&der)?;
    let mut fields = element(certificate.content)?.0.content;
    // An explicit version tag precedes the serial number in every certificate but those of v1.
    if element(fields)?.0.tag == EXPLICIT_0 {
        fields = element(fields)?.1;
    }
    // serial number, signature algorithm, issuer, validity
    for _field in 0..4 {
        fields = element(fields)?.1;
    }
    let (subject, rest) = element(fields)?;
    let (public_key, _) = element(rest)?;
    Some(CertificateParts {
        subject: subject.whole.to_vec(),
        public_key: public_key.whole.to_vec(),
    })
}

const EXPLICIT_0: u8 = 0xa0;

#[derive(Clone, Copy)]
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

/// The first element and what follows it; lengths above 65535 bytes are refused.
fn element(input: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, after_tag) = input.split_first()?;
    let (&first, after_length) = after_tag.split_first()?;
    let (length, header) = match first {
        0..=0x7f => (usize::from(first), 2),
        0x81 => (usize::from(*after_length.first()?), 3),
        0x82 => {
            let [high, low] = *after_length.first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes([high, low])), 4)
        }
        0x80 | 0x83..=0xff => return None,
    };
    let whole = input.get(..header + length)?;
    let element = Element { tag, content: whole.get(header..)?, whole };
    Some((element, input.get(header + length..)?))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard base64 with padding (RFC 4648 section 4), as Go prints `[]byte`.
pub(crate) fn base64_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |place: usize| u32::from(chunk.get(place).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            if place <= chunk.len() {
                let index = (group >> (18 - 6 * place)) & 0x3f;
                text.push(char::from(ALPHABET[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut group = 0_u32;
    let mut bits = 0_u32;
    for character in text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'=') {
        let digit = ALPHABET.iter().position(|known| *known == character)?;
        group = (group << 6) | u32::try_from(digit).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((group >> bits) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_give_parts_or_none(bytes: Vec<u8>) {
            let body = base64_encode(&bytes);
            let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
            let parts = parse_certificate(&pem);
            prop_assert!(parts.is_none_or(|parts| parts.subject.len() < bytes.len()));
            prop_assert_eq!(base64_decode(&body), Some(bytes));
        }
    }

    /// The example certificate of the Docker Engine API's description of `TLSInfo`.
    const EXAMPLE: &str = include_str!("../../../tests/docker/ca.pem");

    #[test]
    fn dockers_example_gives_dockers_values() {
        let parts = parse_certificate(EXAMPLE).unwrap();
        assert_eq!(base64_encode(&parts.subject), "MBMxETAPBgNVBAMTCHN3YXJtLWNh");
        assert_eq!(
            base64_encode(&parts.public_key),
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmT9XIw9h1qoNclv9VeHmf/Vi6/uI2vFXdBveXTpcPjqx6i9w\
             Nazchk1XWV/dKTKvSh9xyGKmiIeRcE4OiMnJ1A=="
        );
    }

    #[test]
    fn base64_matches_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64_encode(bytes.as_bytes()), text);
            assert_eq!(base64_decode(text).unwrap(), bytes.as_bytes());
        }
    }

    #[test]
    fn rubbish_is_none() {
        for text in ["", "-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----\nMIIB\n"] {
            assert_eq!(parse_certificate(text), None, "{text}");
        }
    }
}
