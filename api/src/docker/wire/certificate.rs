//! What `TLSInfo` shows of a certificate: its raw subject and its raw public key.
//!
//! The certificate is the cluster's own, from the replicated state; whatever does not parse gives
//! `None`, and the field stays empty.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use x509_parser::pem::parse_x509_pem;

/// Parts of a certificate in base64 (RFC 4648 section 4), as Go prints `[]byte`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CertificateParts {
    /// DER of the subject name.
    pub subject: String,
    /// DER of the `SubjectPublicKeyInfo`.
    pub public_key: String,
}

/// Reads the first certificate of a PEM text (RFC 7468, RFC 5280 section 4.1).
pub(crate) fn parse_certificate(text: &str) -> Option<CertificateParts> {
    let (_, pem) = parse_x509_pem(text.as_bytes()).ok()?;
    if pem.label != "CERTIFICATE" {
        return None;
    }
    let certificate = pem.parse_x509().ok()?;
    Some(CertificateParts {
        subject: BASE64_STANDARD.encode(certificate.subject().as_raw()),
        public_key: BASE64_STANDARD.encode(certificate.public_key().raw),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_give_parts_or_none(bytes: Vec<u8>) {
            let body = BASE64_STANDARD.encode(&bytes);
            let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
            let parts = parse_certificate(&pem);
            prop_assert!(parts.is_none_or(|parts| parts.subject.len() < body.len()));
        }
    }

    /// The example certificate of the Docker Engine API's description of `TLSInfo`.
    const EXAMPLE: &str = include_str!("../../../tests/docker/ca.pem");

    #[test]
    fn dockers_example_gives_dockers_values() {
        let parts = parse_certificate(EXAMPLE).unwrap();
        assert_eq!(parts.subject, "MBMxETAPBgNVBAMTCHN3YXJtLWNh");
        assert_eq!(
            parts.public_key,
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmT9XIw9h1qoNclv9VeHmf/Vi6/uI2vFXdBveXTpcPjqx6i9w\
             Nazchk1XWV/dKTKvSh9xyGKmiIeRcE4OiMnJ1A=="
        );
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        let key = EXAMPLE.replace("CERTIFICATE", "PRIVATE KEY");
        let broken = EXAMPLE.replace("MII", "AAA");
        for text in ["", "-----BEGIN CERTIFICATE-----", &key, &broken] {
            assert_eq!(parse_certificate(text), None, "{text}");
        }
    }
}
