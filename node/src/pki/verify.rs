//! How a joiner, which has no certificate yet, checks whom it talks to: the presented chain must
//! end in the CA whose digest is in the join token, and the leaf must be signed by that CA, or by
//! one that it vouches for.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::{PkiError, digest_of, lifetime_of};

/// The one provider of cryptography.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client configuration for joining: trusts the CA with this digest and no other.
pub fn joining(ca_digest: [u8; 32]) -> Result<Arc<rustls::ClientConfig>, PkiError> {
    let provider = provider();
    let verifier = Arc::new(ByDigest::new(ca_digest));
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(PkiError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

#[derive(Debug)]
pub(crate) struct ByDigest {
    ca_digest: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ByDigest {
    pub(crate) fn new(ca_digest: [u8; 32]) -> Self {
        Self { ca_digest, provider: provider() }
    }
}

/// Words that the joiner's error is recognised by.
pub const WRONG_CA: &str = "the remote CA does not match the join token's digest";
/// The same, where this node's clock or the manager's is far off.
pub const WRONG_CLOCK: &str = "its certificate is not valid at the time of this node's clock";

/// The moment as of which a certificate is checked: now, or its first one if that is still to come.
/// It was signed by a manager whose clock is ahead, and would keep its node out until then.
pub(super) fn begun_at(certificate: &CertificateDer<'_>, now: UnixTime) -> UnixTime {
    let begin = lifetime_of(certificate).map_or(0, |lifetime| lifetime.begin);
    let begin = UnixTime::since_unix_epoch(Duration::from_secs(begin));
    if begin.as_secs() > now.as_secs() { begin } else { now }
}

fn told(error: Error) -> Error {
    match error {
        Error::InvalidCertificate(
            CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
            | CertificateError::Expired
            | CertificateError::ExpiredContext { .. },
        ) => Error::General(WRONG_CLOCK.to_owned()),
        other => other,
    }
}

impl ServerCertVerifier for ByDigest {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| digest_of(certificate) == self.ca_digest)
            .ok_or_else(|| Error::General(WRONG_CA.to_owned()))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let now = begun_at(end_entity, now);
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|e| Error::General(e.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(told)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use cluster::id::{ClusterId, NodeId};
    use cluster::spec::Role;
    use time::OffsetDateTime;

    use super::*;
    use crate::pki::{PeerIdentity, SERVER_NAME, certificate_der, new_ca, new_request, sign};

    /// Goal: a joiner whose clock is far off is told that, and not that a certificate is bad.
    #[test]
    fn a_clock_that_is_far_off_is_named() {
        let day = Duration::from_secs(24 * 60 * 60);
        let begin = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
        let identity = PeerIdentity { cluster: ClusterId(7), node: NodeId(9), role: Role::Manager };
        let ca = new_ca(identity.cluster, begin).unwrap();
        let (_key, request) = new_request().unwrap();
        let certificate = sign(&ca, &request, identity, begin, day * 90).unwrap();
        let certificate = certificate_der(&certificate).unwrap();
        let chain = [certificate_der(&ca.certificate).unwrap()];
        let joiner = ByDigest::new(digest_of(&chain[0]));
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        for (days, expected) in [(19_990, true), (20_000, true), (20_089, true), (20_091, false)] {
            let now = UnixTime::since_unix_epoch(day * days);
            let taken = joiner.verify_server_cert(&certificate, &chain, &name, &[], now);
            match taken {
                Ok(_) => assert!(expected, "day {days}"),
                Err(error) => {
                    assert!(!expected, "day {days}: {error}");
                    assert!(error.to_string().contains(WRONG_CLOCK), "{error}");
                }
            }
        }
    }
}
