//! A node's TLS configuration for both directions: the certificate can be replaced while
//! connections are open, and a certificate that has ended is taken for a while.
//!
//! The key is the identity, the certificate a statement about it. A daemon that was off when its
//! certificate ended must be able to renew it, and managers that were all off must be able to elect
//! a leader first. So within [`CERTIFICATE_GRACE_MS`] an ended certificate is checked as of its
//! last moment; what it opens the callee decides, by the key that its state lists
//! (`transport::access`).

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cluster::spec::CERTIFICATE_GRACE_MS;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::{Credentials, PkiError, certificate_der, lifetime_of, verify};

const GRACE: Duration = Duration::from_millis(CERTIFICATE_GRACE_MS);

/// A node's TLS configuration for both directions. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    /// For dialling peers.
    pub client: Arc<rustls::ClientConfig>,
    /// For answering peers and joiners: a client certificate is checked if there is one; routes
    /// for members insist on it.
    pub server: Arc<rustls::ServerConfig>,
    own: Arc<Own>,
}

/// The certificate that this node shows, and its key.
#[derive(Debug)]
struct Own(RwLock<Arc<CertifiedKey>>);

impl Tls {
    /// From a node's credentials.
    pub fn new(credentials: &Credentials) -> Result<Self, PkiError> {
        let ca = certificate_der(&credentials.ca)?;
        let provider = verify::provider();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca).map_err(PkiError::Tls)?;
        let roots = Arc::new(roots);
        let unusable = |reason: String| PkiError::Read { what: "CA certificate", reason };
        let own = Arc::new(Own(RwLock::new(certified(credentials)?)));
        let servers = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| unusable(e.to_string()))?;
        let mut client = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(PkiError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Tolerant(servers)))
            .with_client_cert_resolver(own.clone());
        client.alpn_protocols = vec![b"h2".to_vec()];
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| unusable(e.to_string()))?;
        let mut server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(PkiError::Tls)?
            .with_client_cert_verifier(Arc::new(Tolerant(clients)))
            .with_cert_resolver(own.clone());
        server.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { client: Arc::new(client), server: Arc::new(server), own })
    }

    /// Shows another certificate on connections that are made from now on.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), PkiError> {
        let fresh = certified(credentials)?;
        *self.own.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

/// The chain that a node shows: its certificate, and the CA's for joiners.
fn certified(credentials: &Credentials) -> Result<Arc<CertifiedKey>, PkiError> {
    let ca = certificate_der(&credentials.ca)?;
    let own = certificate_der(&credentials.certificate)?;
    let bad = |reason: String| PkiError::Read { what: "node key", reason };
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes())
        .map_err(|e| bad(e.to_string()))?;
    let key = verify::provider().key_provider.load_private_key(key).map_err(PkiError::Tls)?;
    let certified = CertifiedKey::new(vec![own, ca], key);
    certified.keys_match().map_err(PkiError::Tls)?;
    Ok(Arc::new(certified))
}

impl Own {
    fn get(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _issuers: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The moment as of which a certificate is checked: now, or its last one if it ended within the
/// grace.
fn checked_at(certificate: &CertificateDer<'_>, now: UnixTime) -> UnixTime {
    let Ok(lifetime) = lifetime_of(certificate) else { return now };
    let end = Duration::from_secs(lifetime.end);
    let since = Duration::from_secs(now.as_secs()).saturating_sub(end);
    if since.is_zero() || since > GRACE { now } else { UnixTime::since_unix_epoch(end) }
}

/// A verifier that takes ended certificates for a while.
#[derive(Debug)]
struct Tolerant<V: ?Sized>(Arc<V>);

impl ServerCertVerifier for Tolerant<WebPkiServerVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let at = checked_at(end_entity, now);
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

impl ClientCertVerifier for Tolerant<dyn ClientCertVerifier> {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.verify_client_cert(end_entity, intermediates, checked_at(end_entity, now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use cluster::id::{ClusterId, NodeId};
    use cluster::spec::Role;
    use time::OffsetDateTime;

    use super::super::{PeerIdentity, new_ca, new_request, sign};
    use super::*;

    const DAYS: u64 = 90;
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn an_ended_certificate_is_taken_within_the_grace_and_not_after() {
        let begin = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
        let identity = PeerIdentity { cluster: ClusterId(7), node: NodeId(9), role: Role::Worker };
        let ca = new_ca(identity.cluster, begin).unwrap();
        let (_key, request) = new_request().unwrap();
        let life = DAY * u32::try_from(DAYS).unwrap();
        let certificate = sign(&ca, &request, identity, begin, life).unwrap();
        let certificate = certificate_der(&certificate).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate_der(&ca.certificate).unwrap()).unwrap();
        let (roots, provider) = (Arc::new(roots), verify::provider());
        let inner: Arc<dyn ClientCertVerifier> =
            WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
        let verifier = Tolerant(inner);
        let taken = |days: u64| {
            let begin = Duration::from_secs(u64::try_from(begin.unix_timestamp()).unwrap());
            let now = UnixTime::since_unix_epoch(begin + DAY * u32::try_from(days).unwrap());
            verifier.verify_client_cert(&certificate, &[], now).is_ok()
        };
        for (days, expected) in [(0, true), (89, true), (91, true), (119, true), (121, false)] {
            assert_eq!(taken(days), expected, "after {days} days");
        }
    }
}
